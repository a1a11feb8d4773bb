// Command lab runs disposable NixOS-shaped hosts on one Linux machine.
package main
