package btrfs

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RootInode is the inode of every subvolume's root: BTRFS_FIRST_FREE_OBJECTID.
const RootInode = 256

// include/uapi/linux/btrfs.h; _IOC of include/uapi/asm-generic/ioctl.h, which
// amd64 and arm64 share.
const (
	magic = 0x94

	iocSync          = magic<<8 | 8
	iocSnapDestroy   = 1<<30 | 4096<<16 | magic<<8 | 15
	iocTreeSearchV2  = 3<<30 | 112<<16 | magic<<8 | 17
	iocInoLookup     = 3<<30 | 4096<<16 | magic<<8 | 18
	iocSnapCreateV2  = 1<<30 | 4096<<16 | magic<<8 | 23
	iocSpaceInfo     = 3<<30 | 16<<16 | magic<<8 | 20
	iocDevInfo       = 3<<30 | 4096<<16 | magic<<8 | 30
	iocFSInfo        = 2<<30 | 1024<<16 | magic<<8 | 31
	iocSend          = 1<<30 | 72<<16 | magic<<8 | 38
	iocGetSubvolInfo = 2<<30 | 504<<16 | magic<<8 | 60
	iocSnapDestroyV2 = 1<<30 | 4096<<16 | magic<<8 | 63

	topLevel = 5   // BTRFS_FS_TREE_OBJECTID
	rootTree = 1   // BTRFS_ROOT_TREE_OBJECTID
	rootDir  = 6   // BTRFS_ROOT_TREE_DIR_OBJECTID, where the default subvolume is named
	dirItem  = 84  // BTRFS_DIR_ITEM_KEY
	rootItem = 132 // BTRFS_ROOT_ITEM_KEY
	backref  = 144 // BTRFS_ROOT_BACKREF_KEY
	lastID   = ^uint64(255)

	inodeItem  = 1 // BTRFS_INODE_ITEM_KEY; struct btrfs_inode_item
	inodeRef   = 12
	inodeExt   = 13 // BTRFS_INODE_EXTREF_KEY, for a file with many names
	xattrItem  = 24
	dirIndex   = 96 // BTRFS_DIR_INDEX_KEY; struct btrfs_dir_item, as a xattr's
	extentData = 108

	readOnly   = 1 << 1 // BTRFS_SUBVOL_RDONLY, in arguments
	byID       = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID
	rootFlagRO = 1 << 0 // BTRFS_ROOT_SUBVOL_RDONLY, in a root item's flags

	// Of struct btrfs_root_item, which is packed.
	flagsAt, uuidAt, parentAt, receivedAt, ctransAt, otransAt, otimeAt = 208, 247, 263, 279, 295, 303, 339
)

type volArgs struct {
	FD   int64
	Name [4088]byte
}

type volArgsV2 struct {
	FD      int64
	Transid uint64
	Flags   uint64
	_       [4]uint64
	Name    [4040]byte
}

type inoLookupArgs struct {
	Tree, Object uint64
	Name         [4080]byte
}

type fsInfoArgs struct {
	MaxID, Devices uint64
	FSID           [16]byte
	_              [992]byte
}

type devInfoArgs struct {
	ID          uint64
	UUID        [16]byte
	Used, Total uint64
	_           [379]uint64
	Path        [1024]byte
}

// spaceArgs has room for every combination of kind and profile that there is.
type spaceArgs struct {
	Slots, Total uint64
	Spaces       [64]struct{ Flags, Total, Used uint64 }
}

type sendArgs struct {
	FD      int64
	Clones  uint64
	Sources uintptr
	Parent  uint64
	Flags   uint64
	Version uint32
	_       [28]byte
}

type timespec struct {
	Sec  uint64
	Nsec uint32
	_    uint32
}

type subvolInfoArgs struct {
	ID                             uint64
	Name                           [256]byte
	Parent, Dir                    uint64
	Generation, Flags              uint64
	UUID, ParentUUID, Received     [16]byte
	CTrans, OTrans, STrans, RTrans uint64
	CTime, OTime, STime, RTime     timespec
	_                              [8]uint64
}

type searchKey struct {
	Tree                       uint64
	MinObject, MaxObject       uint64
	MinOffset, MaxOffset       uint64
	MinTrans, MaxTrans         uint64
	MinType, MaxType, Items, _ uint32
	_                          [4]uint64
}

type searchArgs struct {
	Key  searchKey
	Size uint64
	Buf  [64 << 10]byte
}

type searchHeader struct {
	Trans, Object, Offset uint64
	Type, Len             uint32
}

func ioctl[T any](f *os.File, request uintptr, arg *T) error {
	var errno unix.Errno
	for {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
		if errno != unix.EINTR {
			break
		}
	}
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// setName puts a single path component into an argument, with its closing zero.
func setName(to []byte, name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 {
		return fmt.Errorf("%q cannot be a subvolume's name", name)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("%q cannot be a subvolume's name", name)
		}
	}
	copy(to, name)
	return nil
}
