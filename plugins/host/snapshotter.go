package host

import (
	"context"
	"errors"
	"time"

	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

type snapshotter struct{ p *Plugin }

// stampLayout is how times stand in the names of snapshots.
const stampLayout = "20060102T150405Z"

func (s snapshotter) Probe(ctx context.Context, hostRef string) (string, error) {
	var detail string
	err := s.p.call(ctx, "probe", within(s.p.limits.plan, func(ctx context.Context, l *link) error {
		handle, _, release := s.p.core.grant(ctx, hostRef, "", false)
		defer release()
		resp, err := pluginv1.NewSnapshotterClient(l.conn).Probe(ctx, &pluginv1.ProbeRequest{HostRef: handle})
		if problem := resp.GetProblem(); err == nil && problem != "" {
			return &Error{Plugin: s.p.spec.Name, Code: "unsupported", Message: problem}
		}
		detail = resp.GetDetail()
		return err
	}))
	return detail, err
}

func (s snapshotter) Plan(ctx context.Context, req SnapshotRequest) (SnapshotPlan, error) {
	var plan SnapshotPlan
	err := s.p.call(ctx, "plan", within(s.p.limits.plan, func(ctx context.Context, l *link) error {
		handle, _, release := s.p.core.grant(ctx, req.HostRef, req.OperationID, false)
		defer release()
		resp, err := pluginv1.NewSnapshotterClient(l.conn).Plan(ctx, &pluginv1.PlanRequest{
			HostRef: handle, Run: req.Run, Dir: req.Dir, Subjects: subjects(req.Subvolumes),
		})
		plan = planOf(resp)
		return err
	}))
	return plan, err
}

func (s snapshotter) Create(ctx context.Context, req SnapshotRequest) (SnapshotResult, error) {
	if req.OperationID == "" {
		return SnapshotResult{}, errors.New("internal error: a snapshot without an operation id could be taken twice")
	}
	if req.Stamp == "" {
		req.Stamp = time.Now().UTC().Format(stampLayout)
	}
	var result SnapshotResult
	err := s.p.call(ctx, "snapshot", func(ctx context.Context, l *link) (err error) {
		result, err = s.create(ctx, l, req)
		return err
	})
	return result, err
}

// create is one try: progress, then one result, under the eyes of the watchdog.
func (s snapshotter) create(ctx context.Context, l *link, req SnapshotRequest) (SnapshotResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	handle, g, release := s.p.core.grant(ctx, req.HostRef, req.OperationID, !req.DryRun)
	defer release()
	defer cancel(nil)
	go g.watch(ctx, s.p.limits.silence, cancel)
	stream, err := pluginv1.NewSnapshotterClient(l.conn).Create(ctx, &pluginv1.CreateRequest{
		HostRef: handle, OperationId: req.OperationID, DryRun: req.DryRun, Run: req.Run, Dir: req.Dir,
		Subjects: subjects(req.Subvolumes), Stamp: req.Stamp,
	})
	for err == nil {
		var message *pluginv1.CreateResponse
		if message, err = stream.Recv(); err != nil {
			break
		}
		g.heard()
		if result := message.GetResult(); result != nil {
			return resultOf(result)
		}
		if req.Progress != nil {
			req.Progress(message.GetProgress().GetText())
		}
	}
	return SnapshotResult{}, because(ctx, err)
}
