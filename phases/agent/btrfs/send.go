package btrfs

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Change is how one path differs between two snapshots.
type Change struct {
	Path string // in the older one; of what is new, in the newer one
	To   string // where it was moved to
	Kind string // new, changed, gone, moved
}

// The kinds of changes.
const (
	New     = "new"
	Changed = "changed" // content, owner, mode or attributes, or another file by its name
	Gone    = "gone"
	Moved   = "moved"
)

// Diff is what changed from one read-only snapshot to another, and how many
// bytes of files were written in between.
type Diff struct {
	Changes []Change
	Bytes   uint64
}

// Compare finds what changed from older to newer, read-only snapshots of one
// file system, by a send stream without data: in the time of the changes,
// however many files there are. It needs root.
func Compare(older, newer *os.File) (Diff, error) {
	was, err := Get(older)
	if err != nil {
		return Diff{}, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return Diff{}, err
	}
	sent := make(chan error, 1)
	go func() {
		defer w.Close()
		const noData = 1 // BTRFS_SEND_FLAG_NO_FILE_DATA
		sent <- send(newer, was.ID, w, noData)
	}()
	d, err := readStream(bufio.NewReaderSize(r, 1<<20))
	_ = r.Close() // a send that is still under way ends by this
	if sendErr := <-sent; sendErr != nil {
		err = errors.Join(fmt.Errorf("cannot compare %s with %s: %w", newer.Name(), older.Name(), sendErr), err)
	}
	return d, err
}

// Send writes a read-only snapshot as a stream for `btrfs receive`: all of it,
// or what is other than in a parent, which the receiver must have as well.
func Send(snapshot *os.File, parent uint64, to *os.File) error {
	if err := send(snapshot, parent, to, 0); err != nil {
		return fmt.Errorf("cannot send %s: %w", snapshot.Name(), err)
	}
	return nil
}

// send keeps signals away from its thread: one that came while the pipe is full
// would make the kernel begin the call again, and the stream with it, in its middle.
func send(snapshot *os.File, parent uint64, to *os.File, flags uint64) error {
	runtime.LockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := ioctl(snapshot, iocSend, &sendArgs{FD: int64(to.Fd()), Parent: parent, Flags: flags})
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); e != nil {
		return errors.Join(err, e) // the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// fs/btrfs/send.h: commands, and attributes of them.
const (
	sendMkfile    = 3
	sendSymlink   = 8 // the last of those that make an inode
	sendRename    = 9
	sendLink      = 10
	sendUnlink    = 11
	sendRmdir     = 12
	sendXattr     = 13
	sendNoXattr   = 14
	sendTruncate  = 17
	sendChmod     = 18
	sendChown     = 19
	sendEnd       = 21
	sendExtent    = 22
	attrSize      = 4
	attrPath      = 15
	attrTo        = 16
	attrLink      = 17
	streamMagic   = "btrfs-stream\x00"
	commandHeader = 10 // length, command, checksum
	commandMax    = 1 << 20
)

// node is a file or folder while the stream is read. Names move, nodes stay.
type node struct {
	was     string // its path in the older snapshot; "" if it was not there
	old     bool
	changed bool
	names   map[string]*node // those that the stream spoke of; nil: taken away
	now     []string         // where it is in the end
}

func (n *node) child(name string) *node {
	c, ok := n.names[name]
	if !ok && n.old {
		c = &node{was: path.Join(n.was, name), old: true}
		n.put(name, c)
	}
	return c
}

func (n *node) put(name string, c *node) {
	if n.names == nil {
		n.names = map[string]*node{}
	}
	n.names[name] = c
}

// stream plays the commands of a send on the names of the older snapshot.
type stream struct {
	root  *node
	seen  []*node // that were there before and have lost or got a name, or changed
	bytes uint64
}

func readStream(r io.Reader) (Diff, error) {
	s := &stream{root: &node{old: true, was: ".", now: []string{"."}}}
	head := make([]byte, len(streamMagic)+4)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(streamMagic)]) != streamMagic {
		return Diff{}, fmt.Errorf("cannot read the send stream: %w", errors.Join(err, errors.New("no header")))
	}
	for {
		command, attrs, err := readCommand(r)
		if err == nil && command == sendEnd {
			return s.diff(), nil
		}
		if err == nil {
			err = s.play(command, attrs)
		}
		if err != nil {
			return Diff{}, fmt.Errorf("cannot read the send stream: %w", err)
		}
	}
}

func readCommand(r io.Reader) (command uint16, attrs map[uint16][]byte, err error) {
	var head [commandHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > commandMax {
		return 0, nil, fmt.Errorf("a command of %d bytes", size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, err
	}
	attrs = map[uint16][]byte{}
	for len(data) >= 4 {
		n := int(binary.LittleEndian.Uint16(data[2:]))
		if len(data) < 4+n {
			return 0, nil, io.ErrUnexpectedEOF
		}
		attrs[binary.LittleEndian.Uint16(data)] = data[4:][:n]
		data = data[4+n:]
	}
	return binary.LittleEndian.Uint16(head[4:]), attrs, nil
}

func (s *stream) play(command uint16, attrs map[uint16][]byte) error {
	dir, name := s.find(string(attrs[attrPath]))
	if dir == nil {
		return fmt.Errorf("it names %q, which is not there", attrs[attrPath])
	}
	switch {
	case command >= sendMkfile && command <= sendSymlink:
		dir.put(name, &node{})
	case command == sendRename:
		return s.link(s.take(dir, name), string(attrs[attrTo]))
	case command == sendLink:
		from, base := s.find(string(attrs[attrLink]))
		if from == nil {
			return fmt.Errorf("it links %q, which is not there", attrs[attrLink])
		}
		return s.link(from.child(base), string(attrs[attrPath]))
	case command == sendUnlink, command == sendRmdir:
		s.take(dir, name)
	case command == sendExtent && len(attrs[attrSize]) == 8:
		s.bytes += binary.LittleEndian.Uint64(attrs[attrSize])
		s.change(dir, name)
	case slices.Contains([]uint16{sendXattr, sendNoXattr, sendTruncate, sendChmod, sendChown}, command):
		s.change(dir, name)
	}
	return nil
}

// find is the folder of a path and the last name; for the top both are of it.
func (s *stream) find(at string) (*node, string) {
	dir, name := path.Split(strings.Trim(at, "/"))
	n := s.root
	for _, part := range strings.FieldsFunc(dir, func(r rune) bool { return r == '/' }) {
		if n = n.child(part); n == nil {
			return nil, ""
		}
	}
	return n, name
}

func (s *stream) change(dir *node, name string) {
	n := s.root
	if name != "" {
		n = dir.child(name)
	}
	if n != nil && n.old && !n.changed {
		n.changed = true
		s.seen = append(s.seen, n)
	}
}

// take takes a name away.
func (s *stream) take(dir *node, name string) *node {
	n := dir.child(name)
	dir.put(name, nil)
	if n != nil && n.old {
		s.seen = append(s.seen, n)
	}
	return n
}

func (s *stream) link(n *node, at string) error {
	dir, name := s.find(at)
	if dir == nil || n == nil {
		return fmt.Errorf("it moves to %q, which is not there", at)
	}
	dir.put(name, n)
	if n.old {
		s.seen = append(s.seen, n)
	}
	return nil
}

// diff compares where everything was with where it is in the end.
func (s *stream) diff() Diff {
	d := Diff{Bytes: s.bytes}
	s.walk(s.root, "", &d)
	done := map[*node]bool{}
	for _, n := range s.seen {
		if done[n] {
			continue
		}
		done[n] = true
		d.Changes = append(d.Changes, n.changes()...)
	}
	slices.SortFunc(d.Changes, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Kind, b.Kind))
	})
	d.Changes = rewritten(d.Changes)
	return d
}

// rewritten makes one change of what is gone and new at one path: programs
// replace a file by another one that they rename to its name.
func rewritten(sorted []Change) (list []Change) {
	for _, c := range sorted {
		last := len(list) - 1
		if last >= 0 && list[last].Path == c.Path && list[last].Kind == Gone && c.Kind == New {
			list[last].Kind = Changed
			continue
		}
		list = append(list, c)
	}
	return list
}

func (n *node) changes() (list []Change) {
	if len(n.now) == 0 {
		return []Change{{Path: n.was, Kind: Gone}}
	}
	slices.Sort(n.now)
	if !slices.Contains(n.now, n.was) {
		list = append(list, Change{Path: n.was, To: n.now[0], Kind: Moved})
		n.now = n.now[1:]
	}
	for _, at := range n.now {
		if at != n.was {
			list = append(list, Change{Path: at, Kind: New}) // one more hard link
		}
	}
	if n.changed {
		list = append(list, Change{Path: n.was, Kind: Changed})
	}
	return list
}

func (s *stream) walk(n *node, at string, d *Diff) {
	for name, c := range n.names {
		if c == nil {
			continue
		}
		p := path.Join(at, name)
		c.now = append(c.now, p)
		if !c.old {
			d.Changes = append(d.Changes, Change{Path: p, Kind: New})
		}
		s.walk(c, p, d)
	}
}
