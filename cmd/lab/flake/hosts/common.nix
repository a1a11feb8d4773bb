# What the hosts share: the sub-volumes of the server-btrfs-impermanence plan.
{ config, ... }:
let
  subvol = name: { fsType = "btrfs"; options = [ "compress=zstd:1" "noatime" "subvol=${name}" ]; };
in
{
  imports = [ ../modules/deployer-host.nix ];
  # Without the module the deploy user is let in by hand.
  security.sudo.extraRules = if config.services.deployer-host.enable then [ ] else [
    { users = [ "deploy" ]; commands = [{ command = "/nix/var/deployer/agent"; options = [ "NOPASSWD" ]; }]; }
  ];
  pantherOS.serverImpermanence.enable = true;
  services.caddy.enable = true;
  fileSystems = {
    "/" = subvol "root";
    "/nix" = subvol "nix";
    "/persist" = subvol "persist";
    "/var/log" = subvol "log";
    "/var/lib/services" = subvol "services";
    "/var/lib/caddy" = subvol "caddy";
    "/var/backup" = subvol "backup";
    "/var/lib/containers" = subvol "containers";
    "/var/cache" = subvol "cache";
    "/var/tmp" = subvol "tmp";
    "/.snapshots" = subvol "snapshots";
    "/btrfs_tmp/old_roots" = subvol "old_roots";
  };
  disko.devices.disk.main = { type = "disk"; device = "/dev/vda"; content.type = "btrfs"; };
}
