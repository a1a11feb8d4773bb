// Package state keeps what a run did, so that a run killed at any point can be
// told from its journal alone.
//
// A run has a folder in the project's [Store], and in it a journal: one line
// per [Record], made of a checksum, a space, the record as JSON and a newline.
// Each record carries its number and the hash of the line before it. What a run
// is, is a pure [Fold] over these records.
//
// Who works on a run holds its [Lease]. Each takeover begins an epoch, which
// has a lease of its own, lease-N, and writes a segment of its own of the
// journal: journal.jsonl, then journal-2.jsonl and so on. A segment's first
// record goes on from the last one that its opener saw.
//
//   - A record is durable when [Journal.Append] returns: one write and one
//     fsync, which appends made at the same time share.
//   - A tail torn by a crash is set aside and reported, never dropped or read.
//   - A line flipped, cut out, repeated or spliced in before the last one of
//     any segment is [Damage]: readers get what is whole and are told the line,
//     [Open] refuses, [OpenForRestore] goes on.
//   - An fsync error ends the journal: the kernel may have dropped the data, so
//     trying again proves nothing. Closing and opening it reads what is there.
//   - When the disk is full a ballast of 1 MiB is given up, the append is made,
//     and [Journal.Full] tells forward work to stop. A run is taken over on a
//     full disk, too.
//   - Secrets named to [Journal.Redact] are in no line.
//   - Readers never write, and read while a run writes. They may see a record
//     a moment before it is durable. A read-only mount is read, and not written.
//   - One process wins a takeover. A lease is dead when its process is, or has
//     given no sign for [LeaseExpires]: a silent one is followed without force.
//   - A fenced process, taken over from, writes nothing: its next append fails.
//   - What Append acknowledged counts for good. What comes between its look at
//     the lease and its write is a late record: it is not acknowledged, does
//     not count, and is no damage; [Late] counts those.
//   - A rebuilt run is the run: [Store.Rebuild] makes it from what its hosts
//     kept, and a lane whose host kept all of it needs no other host.
//   - Everything is readable by its owner only.
//
// flock means one machine: a store does not belong on a network file system.
// Two machines that work on one run are kept apart by the run's hosts, which
// count epochs themselves. The chain shows damage and accidents; it is no proof
// against somebody who may write the folder. A power cut that loses an earlier
// page of several unacknowledged lines and keeps a later one shows as damage
// rather than as a torn tail: the run can then be undone, not continued.
package state
