args: import ./common.nix args // { networking.hostName = "staging"; }
