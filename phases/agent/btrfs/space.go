package btrfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Space is how full a file system is, in bytes of its devices' (Unallocated) or
// of its users' (the rest). What df says is none of it: metadata that is full
// stops every change, with data to spare.
type Space struct {
	Unallocated   uint64
	Data, DataOf  uint64 // used, of what is allocated
	Meta, MetaOf  uint64
	Reserve       uint64 // of metadata, for the file system itself
	Device        uint64 // all devices' size
	Copies        uint64 // of metadata: 2 for DUP and RAID1
	MissingDevice bool
}

// The kinds and profiles of include/uapi/linux/btrfs_tree.h.
const (
	groupData     = 1 << 0
	groupMetadata = 1 << 2
	groupTwice    = 1<<4 | 1<<5 | 1<<6 // RAID1, DUP, RAID10
	groupReserve  = 1 << 49
)

// Usage reads how full the file system of an open folder is.
func Usage(f *os.File) (Space, error) {
	a := spaceArgs{Slots: uint64(len(spaceArgs{}.Spaces))}
	if err := ioctl(f, iocSpaceInfo, &a); err != nil {
		return Space{}, fmt.Errorf("cannot read the space of %s: %w", f.Name(), err)
	}
	s := Space{Copies: 1}
	for _, g := range a.Spaces[:a.Total] {
		if g.Flags&groupReserve != 0 {
			s.Reserve += g.Total
			continue
		}
		if g.Flags&groupData != 0 { // mixed groups are both
			s.Data, s.DataOf = s.Data+g.Used, s.DataOf+g.Total
		}
		if g.Flags&groupMetadata != 0 {
			s.Meta, s.MetaOf = s.Meta+g.Used, s.MetaOf+g.Total
		}
		if g.Flags&groupMetadata != 0 && g.Flags&groupTwice != 0 {
			s.Copies = 2
		}
	}
	return s, s.devices(f)
}

func (s *Space) devices(f *os.File) error {
	var fsInfo fsInfoArgs
	if err := ioctl(f, iocFSInfo, &fsInfo); err != nil {
		return err
	}
	found := uint64(0)
	for id := uint64(0); id <= fsInfo.MaxID; id++ {
		d := devInfoArgs{ID: id}
		err := ioctl(f, iocDevInfo, &d)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read device %d of %s: %w", id, f.Name(), err)
		}
		found++
		s.Device += d.Total
		s.Unallocated += d.Total - min(d.Used, d.Total)
	}
	s.MissingDevice = found < fsInfo.Devices
	return nil
}
