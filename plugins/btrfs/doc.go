// Package btrfs is the snapshot provider that ships with deployer. It runs on
// the controller and touches no file system: it asks the agent what is there
// (btrfs.discover), decides what can be taken and where to, and has one
// read-only set taken per file system (btrfs.snapshot).
//
//   - A set on one file system is asked for in one operation: the agent takes
//     all of it or nothing.
//   - What cannot be snapshotted is said in words before anything changes: not
//     Btrfs, missing, no subvolume of its own, a policy that is not built.
//   - What a snapshot leaves out (subvolumes below) is named.
//   - Snapshots never lie inside what they protect. The folder is the one from
//     deployer.yaml; where that is on another file system, one in /.snapshots if
//     that is a subvolume, deployer's own on the host, which no boot empties,
//     or one beside a subject.
//   - Created again under the same stamp it answers with the set that is there.
//
// The recipe is empty: with the policy keep a rollback leaves data as it is.
package btrfs
