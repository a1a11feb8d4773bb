// Package state keeps what a run did, so that a run killed at any point can be
// told from its journal alone.
//
// A run has a folder in the project's [Store], and in it journal.jsonl: one
// line per [Record], made of a checksum, a space, the record as JSON and a
// newline. Each record carries its number and the hash of the line before it.
// What a run is, is a pure [Fold] over these records.
//
//   - A record is durable when [Journal.Append] returns: one write and one
//     fsync, which appends made at the same time share.
//   - A tail torn by a crash is set aside and reported, never dropped or read.
//   - A line flipped, cut out, repeated or spliced in before the last one is
//     [Damage]: readers get what is whole and are told the line, [Open]
//     refuses, [OpenForRestore] goes on.
//   - An fsync error ends the journal: the kernel may have dropped the data, so
//     trying again proves nothing. Closing and opening it reads what is there.
//   - When the disk is full a ballast of 1 MiB is given up, the append is made,
//     and [Journal.Full] tells forward work to stop.
//   - Secrets named to [Journal.Redact] are in no line.
//   - Readers never write, and read while a run writes. They may see a record
//     a moment before it is durable.
//   - One process works on a run: [RunDir.Lease] and the journal are flocked,
//     and the kernel lets go when the process dies. Nothing goes stale.
//   - Everything is readable by its owner only.
//
// flock means one machine: a store does not belong on a network file system.
// The chain shows damage and accidents; it is no proof against somebody who may
// write the folder. A power cut that loses an earlier page of several
// unacknowledged lines and keeps a later one shows as damage rather than as a
// torn tail: the run can then be undone, not continued.
package state
