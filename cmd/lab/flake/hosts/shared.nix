# One system for several hosts: no name of its own, the machine keeps its own.
import ./common.nix
