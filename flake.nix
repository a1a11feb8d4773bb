{
  description = "deployer: run change plans against NixOS hosts, and go back when they fail";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: nixpkgs.lib.genAttrs systems (s: f nixpkgs.legacyPackages.${s});
    in
    {
      nixosModules.deployer-host = ./runbooks/modules/deployer-host.nix;

      packages = each (pkgs: {
        default = pkgs.buildGoModule {
          pname = "deployer";
          version = self.shortRev or "dev";
          src = self;
          # Of `go mod vendor`; changes with go.sum, and `nix build` prints the new one.
          vendorHash = "sha256-ddySAAjqo8NA/dwhFeWHx7ERt86mzsclQBOJWQngWqU=";
          subPackages = [ "cmd/deployer" ];
          env.CGO_ENABLED = 0;
          tags = [ "embedagents" ];
          preBuild = ''
            mkdir -p cmd/internal/agents/bin
            for arch in amd64 arm64; do
              GOARCH=$arch go build -trimpath -ldflags '-s -w' -o agent ./cmd/deployer-agent
              sha256sum < agent | cut -d' ' -f1 > cmd/internal/agents/bin/agent-$arch.sha256
              gzip -9nc agent > cmd/internal/agents/bin/agent-$arch.gz
            done
            rm agent
          '';
          meta.mainProgram = "deployer";
        };
      });
    };
}
