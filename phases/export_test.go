package phases

// JudgeRun is judge, for its table.
var JudgeRun = judge
