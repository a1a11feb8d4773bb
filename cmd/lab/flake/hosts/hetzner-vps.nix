args: import ./common.nix args // { networking.hostName = "production"; }
