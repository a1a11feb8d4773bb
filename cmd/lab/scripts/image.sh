# Makes a host's disk and its /boot, with one system, its profile and its boot
# loader's files. Runs in a private mount namespace; all it needs is in the
# environment.
rm -f "$DISK" "$BOOT"
truncate -s "$SIZE" "$DISK"; mkfs.btrfs -q -L nixos "$DISK"
truncate -s "$BOOT_SIZE" "$BOOT"
case $BOOT_FS in
  vfat) mkfs.vfat -n BOOT "$BOOT" > /dev/null ;;
  *) mkfs.ext4 -q -m 0 -L BOOT "$BOOT" ;;
esac
m=$WORK/top; mkdir "$m" "$WORK/target"
mount -o loop,compress=zstd:1,noatime "$DISK" "$m"
btrfs -q subvolume create "$m/root"
mkdir -p "$m"/root/{usr,etc,nix,boot,proc,sys,dev,run,tmp,home,var/log,var/lib}
nix=$m/root/nix log=$m/root/var/log
if [ "$LAYOUT" = ephemeral ]; then
  for v in $SUBVOLUMES; do
    btrfs -q subvolume create "$m/${v%%:*}"; mkdir -p "$m/root${v#*:}"
  done
  nix=$m/nix log=$m/log
  btrfs -q subvolume snapshot -r "$m/root" "$m/root-blank"
fi
mkdir "$log/journal" # a journal that outlives reboots

mkdir "$WORK/target/nix"; mount --bind "$nix" "$WORK/target/nix"
nix --quiet copy --no-check-sigs --to "local?root=$WORK/target" "$TOP"
mkdir -p "$nix"/var/nix/{profiles,gcroots}
ln -sfn "$TOP" "$nix/var/nix/profiles/system-1-link"
ln -sfn system-1-link "$nix/var/nix/profiles/system"
ln -sfn /nix/var/nix/profiles "$nix/var/nix/gcroots/profiles"
if [ "$LAUNCHER" ]; then
  btrfs -q subvolume create "$nix/var/deployer"; chmod 0700 "$nix/var/deployer"
  install -m 0700 "$LAUNCHER" "$nix/var/deployer/agent"
fi

# The system writes its own boot loader files, with the host's paths.
mkdir -p "$WORK/target"/{boot,dev,usr,proc,lib64,bin}
mount -o loop "$BOOT" "$WORK/target/boot"
mount --bind "$(readlink -f "$TOP/systemd")" "$WORK/target/usr"
mount -t proc proc "$WORK/target/proc"; mount --bind /dev "$WORK/target/dev"
for l in bin lib lib64; do rmdir "$WORK/target/$l" 2>/dev/null || true; ln -sfn usr/$l "$WORK/target/$l"; done
NIXOS_INSTALL_BOOTLOADER=1 chroot "$WORK/target" "$TOP/bin/install-boot-loader" "$TOP"
umount "$WORK"/target/{boot,usr,proc,dev,nix} "$m"
