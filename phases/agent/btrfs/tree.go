package btrfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ref is where a subvolume's name is: in a folder of another subvolume.
type Ref struct {
	Parent, Dir uint64
	Name        string
}

// Tree is every subvolume of a file system but the top level, by id.
type Tree struct {
	f     *os.File
	refs  map[uint64]Ref
	infos map[uint64]Info // also of deleted ones that are not cleaned yet
	ids   map[string]uint64

	Default uint64 // what a mount without subvol= and subvolid= gets
}

// ReadTree reads the file system that an open folder lies in. It needs root.
func ReadTree(f *os.File) (*Tree, error) {
	t := &Tree{f: f, refs: map[uint64]Ref{}, infos: map[uint64]Info{}, ids: map[string]uint64{}}
	key := searchKey{Tree: rootTree, MinObject: topLevel, MaxObject: lastID, MaxOffset: ^uint64(0), MaxTrans: ^uint64(0), MinType: rootItem, MaxType: backref}
	if err := new(searchArgs).search(f, key, t.add); err != nil {
		return nil, fmt.Errorf("cannot list the subvolumes of %s: %w", f.Name(), err)
	}
	return t, nil
}

func (t *Tree) add(item searchHeader, data []byte) {
	// The search compares whole keys: other types lie in the range as well.
	switch {
	case item.Type == backref && len(data) >= 18:
		n := binary.LittleEndian.Uint16(data[16:])
		t.refs[item.Object] = Ref{Parent: item.Offset, Dir: binary.LittleEndian.Uint64(data), Name: string(data[18:][:n])}
	case item.Type == rootItem && len(data) >= otimeAt+12:
		i := infoOf(item.Object, data)
		t.infos[i.ID], t.ids[i.UUID] = i, i.ID
	case item.Object == rootDir && item.Type == dirItem && len(data) >= 30 && string(data[30:]) == "default":
		t.Default = binary.LittleEndian.Uint64(data)
	}
}

func infoOf(id uint64, item []byte) Info {
	at := func(offset int) [16]byte { return [16]byte(item[offset:]) }
	return Info{
		ID: id, UUID: uuid(at(uuidAt)), ParentUUID: uuid(at(parentAt)), Received: uuid(at(receivedAt)),
		ReadOnly: binary.LittleEndian.Uint64(item[flagsAt:])&rootFlagRO != 0, Changed: binary.LittleEndian.Uint64(item[ctransAt:]), Made: binary.LittleEndian.Uint64(item[otransAt:]),
		Created: time.Unix(int64(binary.LittleEndian.Uint64(item[otimeAt:])), int64(binary.LittleEndian.Uint32(item[otimeAt+8:]))).UTC(),
	}
}

// Path is a subvolume's path below the top level, "" for that itself.
func (t *Tree) Path(id uint64) (string, error) {
	if id == topLevel {
		return "", nil
	}
	ref, ok := t.refs[id]
	if !ok {
		return "", fmt.Errorf("subvolume %d has no name", id)
	}
	parent, err := t.Path(ref.Parent)
	if err != nil {
		return "", err
	}
	dir, err := lookup(t.f, ref.Parent, ref.Dir)
	return path.Join(parent, dir, ref.Name), err
}

// Find is the id of the subvolume with a uuid.
func (t *Tree) Find(uuid string) (uint64, bool) {
	id := t.ids[uuid]
	_, ok := t.refs[id]
	return id, ok && uuid != ""
}

// All is every subvolume that has a name, by id.
func (t *Tree) All() []Info {
	var list []Info
	for id := range t.refs {
		if i, ok := t.infos[id]; ok {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Cleaning tells whether a subvolume is deleted, but its space not free yet.
func (t *Tree) Cleaning(id uint64) bool {
	_, item := t.infos[id]
	_, name := t.refs[id]
	return item && !name
}

// Info is what is known of a subvolume.
func (t *Tree) Info(id uint64) Info { return t.infos[id] }

// Nested is the subvolumes directly in one, by id: their paths relative to it.
func (t *Tree) Nested(id uint64) (map[uint64]string, error) {
	list := map[uint64]string{}
	for child, ref := range t.refs {
		if ref.Parent != id {
			continue
		}
		dir, err := lookup(t.f, id, ref.Dir)
		if err != nil {
			return nil, err
		}
		list[child] = path.Join(dir, ref.Name)
	}
	return list, nil
}

// Below is the paths of the subvolumes that are nested in one, relative to it.
func (t *Tree) Below(id uint64) []string {
	base, err := t.Path(id)
	if err != nil {
		return nil
	}
	var list []string
	for child := range t.refs {
		if child == id || !t.Inside(child, id) {
			continue
		}
		if p, err := t.Path(child); err == nil { // one may be deleted at this moment
			list = append(list, strings.TrimPrefix(p[len(base):], "/"))
		}
	}
	slices.Sort(list)
	return list
}

// Inside tells whether a subvolume is another one, or nested in it.
func (t *Tree) Inside(id, other uint64) bool {
	for range len(t.refs) + 1 {
		if id == other {
			return true
		}
		ref, ok := t.refs[id]
		if !ok {
			return false
		}
		id = ref.Parent
	}
	return false
}

// PathOf is where an open folder is, below the top level.
func (t *Tree) PathOf(f *os.File) (string, error) {
	info, err := Get(f)
	if err != nil {
		return "", err
	}
	base, err := t.Path(info.ID)
	if err != nil {
		return "", err
	}
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	dir, err := lookup(f, info.ID, st.Sys().(*syscall.Stat_t).Ino)
	return path.Join(base, dir), err
}

// lookup is the path of a folder inside its subvolume.
func lookup(f *os.File, tree, dir uint64) (string, error) {
	a := inoLookupArgs{Tree: tree, Object: dir}
	if err := ioctl(f, iocInoLookup, &a); err != nil {
		return "", fmt.Errorf("cannot find folder %d of subvolume %d: %w", dir, tree, err)
	}
	return unix.ByteSliceToString(a.Name[:]), nil
}
