package agent

import "context"

// deleteDry says of what deleteSnapshots would not delete why it stays.
func (a *agent) deleteDry(_ context.Context, args DeleteArgs) ([]Deleted, error) {
	s, err := a.store(false)
	if err != nil {
		return nil, err
	}
	list, made := []Deleted{}, a.made()
	w := &work{agent: a, volumes: map[string]*volumes{}}
	defer w.end()
	for _, snap := range args.Snapshots {
		v, err := w.on(snap.FSID)
		if err != nil {
			return list, err
		}
		if id, ok := v.tree.Find(snap.UUID); ok {
			if err := a.deletable(s, v, id, made); err != nil {
				list = append(list, Deleted{UUID: snap.UUID, State: "refused", Why: err.Error()})
			}
		}
	}
	return list, nil
}
