# The file systems of a fresh host. Their names depend on this text, too.

# subvolumes of the server-btrfs-impermanence plan, and where they are mounted.
SUBVOLUMES="nix:/nix persist:/persist log:/var/log services:/var/lib/services caddy:/var/lib/caddy backup:/var/backup
  containers:/var/lib/containers cache:/var/cache tmp:/var/tmp snapshots:/.snapshots old_roots:/btrfs_tmp/old_roots"

# image makes FILE.img and FILE.boot with a system of the flake in WORK, its
# profile and its boot loader's files.
image() {
  local file=$1 work=$2 system=$3 m=$2/top target=$2/target top nix log
  private; mkdir -p "$CACHE"/{images,roots}
  # Each change of the flake or the launcher makes new ones: unused for a day, they go.
  find "$CACHE/images" -name '*.ok' -mmin +1440 | while read -r old; do rm -f "$old" "${old%.ok}".{img,boot}; done
  top=$(nix build "path:$work/flake#nixosConfigurations.$system.config.system.build.toplevel" --print-out-paths --out-link "$CACHE/roots/${file##*/}")
  rm -f "$file".{img,boot}
  truncate -s "$SIZE" "$file.img"; mkfs.btrfs -q -L nixos "$file.img"
  truncate -s 32M "$file.boot"
  case $BOOT_FS in
    vfat) mkfs.vfat -n BOOT "$file.boot" > /dev/null ;;
    *) mkfs.ext4 -q -m 0 -L BOOT "$file.boot" ;;
  esac
  mkdir "$m" "$target"
  mount -o loop,compress=zstd:1,noatime "$file.img" "$m"
  btrfs -q subvolume create "$m/root"
  mkdir -p "$m"/root/{usr,etc,nix,boot,proc,sys,dev,run,tmp,home,var/log,var/lib}
  nix=$m/root/nix log=$m/root/var/log
  if [ "$LAYOUT" = ephemeral ]; then
    for v in $SUBVOLUMES; do btrfs -q subvolume create "$m/${v%%:*}"; mkdir -p "$m/root${v#*:}"; done
    nix=$m/nix log=$m/log
    btrfs -q subvolume snapshot -r "$m/root" "$m/root-blank"
  fi
  mkdir "$log/journal" # a journal that outlives reboots

  mkdir "$target/nix"; mount --bind "$nix" "$target/nix"
  nix --quiet copy --no-check-sigs --to "local?root=$target" "$top"
  mkdir -p "$nix"/var/nix/{profiles,gcroots}
  ln -sfn "$top" "$nix/var/nix/profiles/system-1-link"
  ln -sfn system-1-link "$nix/var/nix/profiles/system"
  ln -sfn /nix/var/nix/profiles "$nix/var/nix/gcroots/profiles"
  if [ "$LAUNCHER" ]; then
    btrfs -q subvolume create "$nix/var/deployer"; chmod 0700 "$nix/var/deployer"
    (umask 077; printf %s "$LAUNCHER" > "$nix/var/deployer/agent"); chmod 0700 "$nix/var/deployer/agent"
  fi

  # The system writes its own boot loader files, with the host's paths.
  mkdir -p "$target"/{boot,dev,usr,proc,lib64,bin}
  mount -o loop "$file.boot" "$target/boot"
  mount --bind "$(readlink -f "$top/systemd")" "$target/usr"
  mount -t proc proc "$target/proc"; mount --bind /dev "$target/dev"
  for l in bin lib lib64; do rmdir "$target/$l" 2>/dev/null || true; ln -sfn usr/$l "$target/$l"; done
  NIXOS_INSTALL_BOOTLOADER=1 chroot "$target" "$top/bin/install-boot-loader" "$top"
  umount "$target"/{boot,usr,proc,dev,nix} "$m"
  touch "$file.ok"
}
