# What the hosts share: the sub-volumes of the server-btrfs-impermanence plan.
{ ... }:
let
  subvol = name: { fsType = "btrfs"; options = [ "compress=zstd:1" "noatime" "subvol=${name}" ]; };
in
{
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
