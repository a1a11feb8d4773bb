// Command lab runs disposable NixOS-shaped hosts on one Linux machine: the
// place where deployer is tried out and tested for real, as root, without
// touching anything else of the machine.
//
//	lab up                           # staging and production, 2 s
//	lab project demo                 # a project that deploys to both
//	lab exec -- go test ./...        # names, ssh and Nix work in there
//	lab down
//
// # What a host is
//
// A userland of Debian 13 packages (systemd 257, OpenSSH 10, Nix 2.26) is one
// fixed-output path in a Nix store. A flake without inputs (folder flake) builds
// systems on it that behave as NixOS ones do where a caller can see it: the
// layout of the toplevel, profiles, switch-to-configuration with its actions,
// messages and exit codes, and the files of both boot loaders. A host boots one
// of them by its own init, under systemd-nspawn, or as a virtual machine
// (--backend vm).
//
// Its disk is a Btrfs image with the plan's subvolumes and a root that every
// boot renews; the old one goes to old_roots. /boot is a small file system of
// its own, vfat where the kernel has it and else ext4, so that it can be filled.
//
// # Who plays the hardware
//
// `lab up` starts a holder, the first process of new PID, mount and network
// namespaces; killing it takes everything along. For each host it starts a
// process (machine.play) that is firmware, boot loader and initrd in one: it
// picks the entry that is due, renews the root, mounts, starts the container,
// and again when the host reboots. What stands for the machine below:
//
//	/boot/loader/oneshot     the EFI variable LoaderEntryOneShot; bootctl writes it,
//	                         and shows it where Linux does
//	/boot/grub/grubenv       GRUB's own; next_entry is honoured once and cleared
//	panther.keep_root        on an entry's options: this boot keeps its root; with it in
//	                         boot.kernelParams a system's layout is a persistent root
//	/.keep-root              at the top of the disk: so does every boot
//
// A power loss freezes the host, copies its images and kills it: what was only
// in a file system's cache is gone. Delay and loss are made by a process that
// joins two interfaces, for kernels without sch_netem.
//
// What only calls other programs is shell, in folder scripts; lab.shell calls its
// functions.
//
// # Where things are
//
// LAB_HOME (default: deployer-lab in the user's cache) holds one folder for each
// userland recipe, in it the store, the images and run/LAB_ID. Inside `lab exec`
// the store is /nix, root's ~/.ssh leads to the hosts with keys that are really
// checked, and LAB_BIN, LAB_ID, LAB_HOME, LAB_HOSTS and DEPLOYER_LAB are set; HOME
// and with it Go's caches stay as they are. Exit code 15: the machine lacks something.
//
// The systems import deployer-host.nix itself, by a few functions that stand for
// nixpkgs' (mini.nix); services.deployer-host.enable leaves it out, and so do
// --plain and --no-launcher.
//
// Not NixOS, and not shown by the lab: the module system of nixpkgs, systemd in
// the initrd, the boot loaders themselves, the times of real evaluations.
package main
