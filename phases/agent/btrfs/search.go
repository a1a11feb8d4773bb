package btrfs

import (
	"encoding/binary"
	"errors"
	"iter"
	"os"

	"golang.org/x/sys/unix"
)

const headerSize = 32

// items is what one call of the search gave, in the order of keys. The data is
// the buffer's: the next call has other data there.
type items = iter.Seq2[searchHeader, []byte]

// page gives as many of the first items of a range as room has place for. It
// needs root.
func (a *searchArgs) page(f *os.File, key searchKey, room int) (found int, _ items, err error) {
	for _, size := range []int{room, len(a.Buf)} {
		a.Key, a.Size = key, uint64(size)
		a.Key.Items = ^uint32(0)
		if err = ioctl(f, iocTreeSearchV2, a); !errors.Is(err, unix.EOVERFLOW) { // the first one has no place
			break
		}
	}
	if err != nil {
		return 0, nil, err
	}
	found = int(a.Key.Items)
	return found, func(yield func(searchHeader, []byte) bool) {
		buf := a.Buf[:]
		for range found {
			item := searchHeader{
				Trans: binary.NativeEndian.Uint64(buf), Object: binary.NativeEndian.Uint64(buf[8:]), Offset: binary.NativeEndian.Uint64(buf[16:]),
				Type: binary.NativeEndian.Uint32(buf[24:]), Len: binary.NativeEndian.Uint32(buf[28:]),
			}
			if !yield(item, buf[headerSize:][:item.Len]) {
				return
			}
			buf = buf[headerSize+item.Len:]
		}
	}, nil
}

// search gives each item of a range.
func (a *searchArgs) search(f *os.File, key searchKey, each func(searchHeader, []byte)) error {
	for {
		found, list, err := a.page(f, key, len(a.Buf))
		if err != nil || found == 0 {
			return err
		}
		var last searchHeader
		for item, data := range list {
			each(item, data)
			last = item
		}
		if !advance(&key, last) {
			return nil
		}
	}
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
