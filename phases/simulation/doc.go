// Package simulation proves promise 9: killed anywhere, loses nothing. It has
// tests only: a world of hosts, links, disks and clocks under the real engine,
// the real agent and the real recovery code.
package simulation
