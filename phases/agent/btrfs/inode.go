package btrfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// inode is what a snapshot's tree says of a file or folder.
type inode struct {
	made    uint64 // transaction: the number may have been another's before
	links   uint32
	names   map[name]bool
	entries map[string]uint64 // of a folder; without subvolumes, which no snapshot has
	xattrs  map[string]string
	content []extent
	stat
}

type stat struct {
	size, device   uint64 // of a folder, its size says nothing more than its entries
	uid, gid, mode uint32
}

type name struct {
	dir  uint64
	name string
}

// extent is a part of a file that was written: neither a hole nor only allocated.
type extent struct {
	at, len uint64
	source
}

// source is where the bytes of an extent come from. Two parts of one extent on
// the disk have one source, wherever they begin.
type source struct {
	disk, shift uint64
	inline      string // small files lie in the tree
	packed      byte
}

// side reads the inodes of one of the two that are wanted. It reads ahead where
// it was asked for neighbours before.
type side struct {
	f           *os.File
	tree        uint64
	wanted      map[uint64]bool
	args        searchArgs
	room        int
	from, until uint64 // what ahead has all wanted inodes of
	ahead       map[uint64]*inode
	dirs        map[uint64]string
}

const (
	aheadLeast = 4 << 10
	aheadNear  = 256 // inodes
)

func newSide(f *os.File, tree uint64, wanted map[uint64]bool) *side {
	return &side{f: f, tree: tree, wanted: wanted, room: aheadLeast, ahead: map[uint64]*inode{}, dirs: map[uint64]string{RootInode: ""}}
}

// touched gives the inodes that were touched after a transaction.
func (s *side) touched(since uint64, each func(ino uint64)) error {
	if since == ^uint64(0) {
		return nil
	}
	key := searchKey{Tree: s.tree, MinObject: RootInode, MaxObject: lastID, MaxOffset: ^uint64(0), MaxType: 255, MinTrans: since + 1, MaxTrans: ^uint64(0)}
	return s.args.search(s.f, key, func(item searchHeader, data []byte) {
		if item.Type == inodeItem && len(data) >= 16 && binary.LittleEndian.Uint64(data[8:]) > since {
			each(item.Object)
		}
	})
}

// forget makes it read anew: more is wanted.
func (s *side) forget() { s.from, s.until = 0, 0 }

// inode is nil if there is none, or none that has a name.
func (s *side) inode(ino uint64) (*inode, error) {
	if ino < s.from || ino >= s.until {
		if err := s.read(ino); err != nil {
			return nil, err
		}
	}
	if n := s.ahead[ino]; n != nil && n.links > 0 {
		return n, nil
	}
	return nil, nil
}

func (s *side) read(ino uint64) error {
	if ino >= s.until && ino-s.until < aheadNear {
		s.room = min(2*s.room, len(s.args.Buf))
	} else {
		s.room = aheadLeast
	}
	clear(s.ahead)
	key := searchKey{Tree: s.tree, MinObject: ino, MaxObject: lastID, MaxOffset: ^uint64(0), MaxType: 255, MaxTrans: ^uint64(0)}
	for s.from, s.until = ino, lastID; ; {
		found, list, err := s.args.page(s.f, key, s.room)
		if err != nil || found == 0 {
			return err
		}
		var last searchHeader
		for item, data := range list {
			if item.Object != last.Object && s.wanted[item.Object] && s.ahead[item.Object] == nil {
				s.ahead[item.Object] = &inode{}
			}
			if n := s.ahead[item.Object]; n != nil {
				n.take(item, data)
			}
			last = item
		}
		if last.Object > ino { // which may have more than was read
			delete(s.ahead, last.Object)
			s.until = last.Object
			return nil
		}
		if !advance(&key, last) {
			return nil
		}
	}
}

var le = binary.LittleEndian

// take adds an item of the inode: include/uapi/linux/btrfs_tree.h.
func (n *inode) take(item searchHeader, data []byte) {
	switch {
	case item.Type == inodeItem && len(data) >= 64:
		n.made, n.links = le.Uint64(data), le.Uint32(data[40:])
		n.stat = stat{size: le.Uint64(data[16:]), uid: le.Uint32(data[44:]), gid: le.Uint32(data[48:]), mode: le.Uint32(data[52:]), device: le.Uint64(data[56:])}
		if n.mode&unix.S_IFMT == unix.S_IFDIR {
			n.size = 0
		}
	case item.Type == inodeRef:
		for len(data) >= 10 { // index, length, name
			end := 10 + int(le.Uint16(data[8:]))
			put(&n.names, name{item.Offset, string(data[10:end])}, true)
			data = data[end:]
		}
	case item.Type == inodeExt:
		for len(data) >= 18 { // folder, index, length, name
			end := 18 + int(le.Uint16(data[16:]))
			put(&n.names, name{le.Uint64(data), string(data[18:end])}, true)
			data = data[end:]
		}
	case item.Type == xattrItem, item.Type == dirIndex:
		for len(data) >= 30 { // key of what is named, transaction, lengths, kind, name, value
			value := 30 + int(le.Uint16(data[27:]))
			end := value + int(le.Uint16(data[25:]))
			switch named := string(data[30:value]); {
			case item.Type == xattrItem:
				put(&n.xattrs, named, string(data[value:end]))
			case data[8] == inodeItem:
				put(&n.entries, named, le.Uint64(data))
			}
			data = data[end:]
		}
	case item.Type == extentData && len(data) >= 21:
		n.extent(item.Offset, data)
	}
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// extent adds a struct btrfs_file_extent_item.
func (n *inode) extent(at uint64, data []byte) {
	const inline, regular = 0, 1
	e := extent{at: at, source: source{packed: data[16]}}
	switch kind := data[20]; {
	case kind == inline:
		e.len, e.inline = le.Uint64(data[8:]), string(data[21:])
	case kind == regular && len(data) >= 53 && le.Uint64(data[21:]) != 0:
		e.len, e.disk, e.shift = le.Uint64(data[45:]), le.Uint64(data[21:]), le.Uint64(data[37:])-at
	default:
		return
	}
	n.content = append(n.content, e)
}

// paths is where an inode is, below the subvolume.
func (s *side) paths(n *inode) (list []string, err error) {
	for at := range n.names {
		if at == (name{RootInode, ".."}) {
			return []string{"."}, nil
		}
		dir, err := s.dir(at.dir)
		if err != nil {
			return nil, err
		}
		list = append(list, path.Join(dir, at.name))
	}
	slices.Sort(list)
	return list, nil
}

// dir is a folder's path: it has one name.
func (s *side) dir(ino uint64) (string, error) {
	if at, known := s.dirs[ino]; known {
		return at, nil
	}
	key := searchKey{Tree: s.tree, MinObject: ino, MaxObject: ino, MaxOffset: ^uint64(0), MinType: inodeRef, MaxType: inodeRef, MaxTrans: ^uint64(0)}
	_, list, err := s.args.page(s.f, key, aheadLeast)
	if err != nil {
		return "", err
	}
	for item, data := range list {
		if item.Type != inodeRef || len(data) <= 10 {
			continue
		}
		base := string(data[10:])
		above, err := s.dir(item.Offset)
		s.dirs[ino] = path.Join(above, base)
		return s.dirs[ino], err
	}
	return "", fmt.Errorf("folder %d has no name", ino)
}
