// Package btrfs reaches Btrfs by ioctl, in plain Go: no cgo and no btrfs-progs
// on the host. Numbers and layouts are those of the kernel's
// include/uapi/linux/btrfs.h and btrfs_tree.h; a test holds the sizes fast.
//
// It needs Linux 4.18 (BTRFS_IOC_GET_SUBVOL_INFO). Every call works on an open
// descriptor and a single name below it, so that odd names, a leading dash or
// a newline, are names and nothing else.
package btrfs
