// Package phases is the engine: it makes a plan of a runbook, walks it, and
// walks back when something fails.
//
// # Mechanism
//
// A [Kind] compiles one section of a runbook into steps; [NewRun] does so for
// all, and contacts nobody. A [Step] has a name and an effect, and more where
// it can: what it would change ([Planner]), what it needs ([Requirer]), why it
// is not needed ([Skipper]), and its undo ([Undoer]) as typed operations of the
// host's agent, made before the effect. [Run.MakePlan] only reads: it looks at
// every host, asks every step, and seals the answer with a digest.
//
// A [Lane] is one host in a run; all that is done to a host goes through it. It
// puts the agent there, and finds its way back to it when a connection ends.
//
// [Runner.Execute] takes each step through four middlewares and a watch, from
// the outside in:
//
//	explain   an error gets its place: phase, step, host
//	skip      a step that says why it is not needed is not run
//	again     Retry and Wait are results: pause, then the next attempt
//	journal   intent and undo durable, then the effect, then the outcome
//	watch     what a step says is shown, and that it lives when it says nothing
//
// The undo of all steps of a lane makes its recipe. It lies on the host before
// the first effect and grows with every step, in an order of its own
// ([Compose]): what runs now first, then the profile, the boot default last.
// When a step fails every lane that was changed is restored by its host's own agent, the last lane first, and compared with
// what it was over a new connection. [Runner.Restore] does the same for a run
// of the past.
//
// A run outlives its process. What ends one and not the other (a wait, an
// interrupt, another controller) saves it: no end is recorded. [Run.Seize] takes
// its hosts again, under an epoch above all that they saw, and learns what each
// has decided; [Runner.Resume] then settles each step from the journal: what had
// its effect is not done again, what is in doubt is asked for under its old
// operation id, and answered by its receipt, what was only looked at is looked
// at again. Every host keeps its lane's part of the journal, which goes along
// with each write; a run can be rebuilt from those. What cannot be restored is stuck or unknown, and the [Outcome]
// has the commands that remain for a person.
//
// # Guarantees
//
// Each with the test that is named after it, or that would fail without it.
//
//   - An intent is journalled and the undo is on the host strictly before an
//     effect: TestIntentAndUndoComeBeforeTheEffect.
//   - What is undone on a host is the reverse of what was done, within the
//     order of recipes: TestUndoIsTheReverseOfDo, TestComposeKeepsTheOrder.
//   - The journal alone tells how a run ended, and no step is left in doubt by
//     a process that lives: TestReplayEqualsLive.
//   - The restore point is exact: TestPromise01ExactRestorePoint (pipeline).
//   - Try, judge, commit, in this order: TestPromise02TryJudgeCommit,
//     TestPromise02NothingIsCommittedBeforeJudgement (pipeline).
//   - An activation outlives its connection:
//     TestPromise04ActivationOutlivesTheConnection (activate).
//   - A way back waits for no window, signature, journal or disk:
//     TestPromise06RollbackIsNeverGated, TestPromise06FailedRunGoesBackAtOnce,
//     TestPromise06GatesAndWindowsOnlyGoForward (pipeline).
//   - A connection that goes for a moment ends no run: what may be asked twice is
//     asked again (TestSequences, TestAConfirmationIsAskedForUntilItIsAnswered).
//   - A restore goes on over any connection: TestRestoreIsFollowedOverAnyConnection.
//   - When the journal fails or its disk is full, forward work stops and the
//     restore goes on: TestSequences, TestFullJournalStopsForwardWork.
//   - What was built elsewhere is built again, and has to be the same:
//     TestASystemThatIsNotHereIsMadeAgain.
//   - A run that was stopped and is resumed ends as if it had not been, and what
//     changed a host is not done twice: TestResumedEndsAsIfItHadNotBeenStopped;
//     killed at any point: package simulation.
//   - Rolled back is never exit 0, a lane ends old, new, or says so:
//     TestPromise11RolledBackIsNeverExitZero, TestEveryRunEndsByTheTable, TestJudge.
//   - No data never passes: TestPromise11NoDataNeverPasses (validate).
//   - A host that moved since it was planned for is refused, with the reason:
//     TestPromise12DriftedHostIsRefused (activate), TestPlanDigest.
//   - Planning changes nothing on a host: TestPlanningOnlyReads.
//   - A bug in a step is a failure of it, and hosts go back: TestSequences.
package phases
