// Package shell runs commands and starts processes through one line given to a
// POSIX shell. What differs between this machine and a remote one is only how
// such a line is started; that is a Transport. So the two kinds of host quote,
// end and fail alike.
//
// # The line
//
// A command becomes
//
//	exec /bin/sh -c '[cd DIR;] export DEPLOYER_COMMAND=ID K=V…; exec PROGRAM ARG…'
//
// The outer quoting means the same to sh, bash, zsh and fish, because the login
// shell reads it, and login shells differ. The inner line is POSIX. Each `exec`
// replaces the shell, so that what the host reports (code, signal) is the
// program's own, and nothing stands between it and its streams.
//
// # Ending a command
//
// Neither closing a session nor a signal request ends a remote command (sshd
// ignores signals for root logins, and sudo does not pass SIGKILL on). So every
// command carries a random id in its environment, and stopping one means a
// second session that looks through /proc for it: what carries the id, what
// shares a login session with it, and what descends from it gets SIGTERM and,
// two seconds later, SIGKILL, until nothing is found. This costs a command that
// ends by itself nothing at all.
package shell
