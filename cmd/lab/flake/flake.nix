# A flake with no inputs: it builds NixOS-shaped systems with no network at all.
# All it needs from outside is the userland named in base.json, which is in the
# lab's store already as a fixed-output path, so Nix never tries to fetch it.
{
  description = "NixOS-shaped systems for the deployer lab";

  outputs = { self }:
    let
      json = file: builtins.fromJSON (builtins.readFile file);
      mini = import ./mini.nix {
        base = json ./base.json;
        label = self.shortRev or self.dirtyShortRev or "dirty";
      };
      # lab.json: what this lab is (keys, loader, trusted users).
      # variants/NAME.json: any option, set last; a test changes this.
      system = name: {
        inherit name;
        value = mini.mkSystem {
          modules = [ (./hosts + "/${name}.nix") (json ./lab.json) ];
          variant = json (./variants + "/${name}.json");
        };
      };
    in
    {
      nixosConfigurations = builtins.listToAttrs
        (map system [ "hetzner-vps-staging" "hetzner-vps" "shared" ]);
    };
}
