// Package agent is the part of deployer that runs on hosts, and the client that
// the controller calls it with.
//
// # How it works
//
// The controller starts `agent run DIGEST serve` over one exec of its
// connection; requests and answers are JSON lines on standard input and output,
// matched by id, many at once. There is no daemon: the agent ends with its
// input. What must not end with it is a job: a transient unit of its own, whose
// wrapper (this same program) writes a receipt before and after the command.
// Another connection, another controller, or a person finds the receipt in
// Dir/jobs/UNIT and the output in the journal.
//
// What a host must remember lies below Dir:
//
//	agent                 the launcher
//	bin/DIGEST            agents
//	current               the digest of the agent that goes on after a reboot
//	lock, holder.json     the host's lock (flock), and who holds it
//	restore.lock          one restore at a time
//	jobs/UNIT/            job.json, receipt.json, alive (flock while it runs)
//	runs/RUN/             recipe.json, RESTORE.txt, files/DIGEST, closing.json;
//	                      set-STAMP.json, pause.json, data-ID.json: see below
//	holds.json            snapshots that are not to be deleted
//	runs/backup/          sets that were taken for the backup host
//	snapshots/            where /.snapshots is not there
//
// On a backup host, PATH/HOST/.deployer has a record of each copy beside it,
// the lock, and what is being received.
//
// # What it guarantees, each with a test of the same name
//
//   - JobRunsOnceHoweverOftenItIsStarted: a unit's name is its identity. The
//     receipt is created exclusively, before the command is executed.
//   - JobOutlivesItsConnection, UnitOfAJobSurvivesWhatASwitchDoes.
//   - ReceiptSaysLostWhenNothingRuns: a receipt says started, ended or lost,
//     after kill -9 and after a reboot as well; never "probably".
//   - WriteFinishesWhenTheStreamEnds, but ExecEndsWithConnection and
//     ExecTimeoutEndsItsGroup.
//   - StateFollowsNoSymlink, StateRefusesAFolderOthersCanReach,
//     ReadsDoNotMakeTheState.
//   - FileIsOldOrNewForEveryReader: temporary name, fsync, rename, fsync of the
//     folder; TornTemporaryFileIsNoState.
//   - LockIsExclusiveBetweenProcesses, and ends with its process;
//     LockRefusesWhileAnotherLaneIsOpen.
//   - ActivationIsReadBack, ActivationJudgesNewFailuresOnly: no exit code is
//     believed alone, see Judge.
//   - ProfileIsSetByNumberOrPathNeverByRollback: `nix-env --rollback` means the
//     next lower number, not what ran before.
//   - BootDefaultIsLeftOrReadBack.
//   - TrialStartsOnceAndLeavesTheDefault, TrialRefusesBeforeItWrites,
//     TrialIsReadBack; RebootIsNeverDoneByItself.
//   - LauncherRunsWhatItReceived, LauncherResumesTheAgentThatArmed.
//   - RestoreGoesOnAfterAFailure, RestoresRunOneAtATime,
//     RestoreCountsUnitsThatFailSinceTheRun.
//   - RecipeNamesOnlyContentThatIsThere, RecipeIsReadableByAPerson.
//   - SetIsAllOrNothing, SetIsOnTheDiskBeforeItAnswers,
//     SetRefusesWhatItCannotKeep, SetInterruptedIsTakenAgain,
//     SetIsTakenOnceHoweverOftenItIsAskedFor: what it is to be is written down
//     before (set-STAMP.json), and what it is afterwards.
//   - PausedSetIsOneMoment; PauseEndsWhateverHappens: another unit ends it.
//   - RestoreExchangesAMountedSubvolume: a writable copy takes the name at one
//     moment, what it replaces is kept. RestoreKilledAnywhereIsFinished: how far
//     it came is read from the subvolumes' ids, the rest is in data-ID.json.
//     RestoreThatFailsIsTakenBack, RestoreIsOnTheDiskBeforeItAnswers,
//     RestoreRefusesWithTheNamesOfWhoHoldsIt,
//     RestoreStopsWhoUsesItAndStartsExactlyThose,
//     RestoreMovesNestedSubvolumesAlong, RestoreWithAFullDisk,
//     WhatIsWrittenWhileNothingIsMountedIsToldOf.
//   - TakingBackKilledAnywhereLosesNothing: a copy that was in place when a later
//     try began is kept, and listed as replaced: WhatWasWrittenSinceTheBootIsKept.
//   - RestoreOfTheRootExchangesOnly: the recipe's reboot does the rest, and looks
//     after it whether the host runs from it. RootThatWasPutAwayComesBackItself:
//     a layout that makes its root anew is undone by giving the old one its name.
//   - DeleteGuard: only what the agent wrote down that it made.
//   - NoDataIsNeverOK, EveryProbeEnds.
//   - FactsScriptOnlyReads: planning changes nothing on a host.
//   - PanicBecomesError, PendingCallsFailWhenTheStreamEnds.
//
// # What it is not
//
// The agent trusts its caller, who is root on this host already. Directory
// fsync is as good as the disk's. The boot default is read for systemd-boot
// and GRUB as NixOS writes them; elsewhere it is unknown.
package agent
