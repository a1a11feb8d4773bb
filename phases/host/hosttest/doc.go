// Package hosttest has what tests of hosts and of their users need: a Fake host
// with scripted answers, and Conformance, the suite that every real kind of host
// passes.
//
//	web1 := hosttest.New(t, "web1")
//	web1.OnArgs("systemctl", "is-active", "nginx").Out("active\n").Once()
//	web1.On(hosttest.Prefix("btrfs")).Reply(1, "", "no space left")
//
// A command that no rule matches fails the test, and so does a rule with Once
// that was not used up. Calls and Lines tell what was asked for.
package hosttest
