// Package ssh reaches hosts over SSH. The dialler is our own, wrapped in a
// goph.Client: goph reads keys, writes known_hosts and offers sftp, while its
// own dial knows no deadline, no jump host and one host key, and its commands
// are neither quoted nor ended by their context.
//
// # How a host is found
//
// The address is resolved by `ssh -G`, so that an alias means here what it means
// to ssh, with its user, port, keys, certificates, agent, known_hosts and
// ProxyJump. Where there is no ssh client, defaults are taken. ProxyCommand is
// refused by name. NixStoreURL and NixSSHOpts let `nix copy` go the same way.
//
// # What is guaranteed, each by the test in brackets
//
//   - A dial ends within its deadline, whatever the peer does or does not say,
//     a jump host or the login's shell (HandshakeHasADeadline), and with its
//     context (CancelEndsADial).
//   - Only a host that known_hosts knows is talked to, on every hop
//     (UnknownHostKeyIsRefused, ChangedHostKeyIsRefused,
//     RevokedHostKeyIsRefused, JumpHostsAreCheckedToo). AcceptNew accepts the
//     unknown, never the changed (AcceptNewWritesTheKeyOnce).
//   - Any key that known_hosts has is enough, hashed, one of several kinds, or
//     by a certificate authority (AnyKnownKindOfHostKeyWillDo,
//     HostCertificateOfAKnownAuthority).
//   - A login is tried once (DeniedIsTriedOnce) with all keys in one go: files,
//     certificates, agent (SecondKeyIsTriedToo, UserCertificate,
//     EncryptedKeyNeedsTheAgent). The agent is never forwarded (NoAgentForwarding).
//   - A connection whose peer has gone silent ends within 10 s
//     (ADeadConnectionIsNoticedWithinTenSeconds), and with it, as host.Lost, all
//     that waits on it: commands, their streams, sessions being opened, also
//     through a jump host (SilentPeerIsLost). nix copy ends as soon
//     (NixNoticesSilenceToo). A command that prints nothing is no silence
//     (QuietCommandKeepsItsConnection), and neither is a link that is slow
//     (SlowLinkIsNotASilentOne).
//   - What became of a command is never guessed (ConnectionLostWhileRunning).
//   - Fresh is a new connection and login: it sees what is broken for new ones
//     while old sessions work, and tells refused, timeout, denied and host key
//     apart (FreshSeesWhatOldSessionsHide), through a jump host too
//     (JumpHostTellsRefusedFromTimeout).
//   - An sshd that turns everybody away, for failed logins (OpenSSH 9.8 and
//     newer) or for being busy, is host.Refused and says what to wait for
//     (RefusedSaysWhy); trying meanwhile does not make it longer
//     (PenaltyIsNamedAndPasses).
//   - Arguments, environment and input arrive byte for byte, whatever the login
//     shell (Conformance, LoginShellsDoNotMatter).
//   - What is cancelled is gone from the host with all that it
//     started, as root, as a user and behind sudo (Conformance,
//     PrivilegedConformance). One exception: behind sudo, and with neither Env
//     nor Dir, a process that left both its session and its parent is not found
//     (CancelEndsAPlainSudoCommand).
//   - A sudo rule for one program is enough to start that program, with nothing
//     between it and its streams (SudoRuleForOneProgramIsEnough). A refusal is
//     told from a failure (SudoThatRefusesIsNoSudo).
//
// # Agents
//
// Start without Env and Dir puts nothing around a command but exec. Its standard
// input is its lease: it is expected to end when that does, which is also what a
// lost connection looks like to it.
package ssh
