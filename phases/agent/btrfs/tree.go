package btrfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Ref is where a subvolume's name is: in a folder of another subvolume.
type Ref struct {
	Parent, Dir uint64
	Name        string
}

// Tree is every subvolume of a file system but the top level, by id.
type Tree struct {
	f    *os.File
	refs map[uint64]Ref
	ids  map[string]uint64 // by uuid
}

// ReadTree reads the file system that an open folder lies in. It needs root.
func ReadTree(f *os.File) (*Tree, error) {
	t := &Tree{f: f, refs: map[uint64]Ref{}, ids: map[string]uint64{}}
	key := searchKey{Tree: rootTree, MinObject: topLevel, MaxObject: lastID, MaxOffset: ^uint64(0), MaxTrans: ^uint64(0), MinType: rootItem, MaxType: backref}
	args := &searchArgs{}
	for {
		args.Key, args.Size = key, uint64(len(args.Buf))
		args.Key.Items = ^uint32(0)
		if err := ioctl(f, iocTreeSearchV2, args); err != nil {
			return nil, fmt.Errorf("cannot list the subvolumes of %s: %w", f.Name(), err)
		}
		if args.Key.Items == 0 {
			return t, nil
		}
		last := t.add(args.Buf[:], args.Key.Items)
		if !advance(&key, last) {
			return t, nil
		}
	}
}

const headerSize = 32

func (t *Tree) add(buf []byte, items uint32) (last searchHeader) {
	for range items {
		last = searchHeader{
			Trans: binary.NativeEndian.Uint64(buf), Object: binary.NativeEndian.Uint64(buf[8:]), Offset: binary.NativeEndian.Uint64(buf[16:]),
			Type: binary.NativeEndian.Uint32(buf[24:]), Len: binary.NativeEndian.Uint32(buf[28:]),
		}
		data := buf[headerSize:][:last.Len]
		buf = buf[headerSize+last.Len:]
		// The search compares whole keys: other types lie in the range as well.
		switch {
		case last.Type == backref && len(data) >= 18:
			n := binary.LittleEndian.Uint16(data[16:])
			t.refs[last.Object] = Ref{Parent: last.Offset, Dir: binary.LittleEndian.Uint64(data), Name: string(data[18:][:n])}
		case last.Type == rootItem && len(data) >= uuidAt+16:
			t.ids[uuid([16]byte(data[uuidAt:]))] = last.Object
		}
	}
	return last
}

// advance moves the start of the search behind an item. A key is (object, type,
// offset) as one number: moving object and offset alone would find the same
// items again for ever, or pass some by.
func advance(key *searchKey, last searchHeader) bool {
	key.MinObject, key.MinType, key.MinOffset = last.Object, last.Type, last.Offset+1
	if key.MinOffset != 0 {
		return true
	}
	if key.MinType++; key.MinType <= 255 {
		return true
	}
	key.MinType = 0
	key.MinObject++
	return key.MinObject != 0 && key.MinObject <= key.MaxObject
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
	id, ok := t.ids[uuid]
	return id, ok && uuid != ""
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

// lookup is the path of a folder inside its subvolume.
func lookup(f *os.File, tree, dir uint64) (string, error) {
	a := inoLookupArgs{Tree: tree, Object: dir}
	if err := ioctl(f, iocInoLookup, &a); err != nil {
		return "", fmt.Errorf("cannot find folder %d of subvolume %d: %w", dir, tree, err)
	}
	return unix.ByteSliceToString(a.Name[:]), nil
}
