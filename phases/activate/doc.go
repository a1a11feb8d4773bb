// Package activate is the switch phase: lock, copy, dry-activate, snapshot, and
// `switch-to-configuration test` of the new system. Neither the profile nor the
// boot default is touched here: until the commit steps of the validate phase a
// reboot brings the old system back by itself.
//
// The activation is a uniquely named transient unit on the host. It outlives
// the connection, and its result is the receipt that the host wrote; a second
// connection can follow it.
package activate
