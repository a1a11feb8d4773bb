# The hardware and the initrd of one host, in $DIR.
BTRFS=noatime,compress=zstd:1

# fresh gives the host a new disk and /boot. New files: a loop device of the old
# ones may live a moment longer. The file system gets an identity of its own:
# older kernels take two twins for one.
fresh() {
  mkdir -p "$DIR"/{root,bios,top}; cd "$DIR"
  rm -f disk boot
  cp --sparse=always "$IMAGE.img" disk
  cp --sparse=always "$IMAGE.boot" boot
  btrfstune -f -m disk
}

# mount_image lets mount make the loop device: it goes by itself with its last
# mount, however the lab ends. Two mounts at once can race for one device.
mount_image() {
  for try in 1 2 3 4; do
    if mount -o "loop,$3" "$DIR/$1" "$2" 2> /dev/null; then return; fi
    sleep 0.2
  done
  mount -o "loop,$3" "$DIR/$1" "$2"
}
mount_boot() { if [ "$BOOT_FS" = vfat ]; then mount_image boot "$1" umask=0077; else mount_image boot "$1" noatime; fi; }

device() { findmnt -fno SOURCE "$1" | cut -d'[' -f1; } # a subvolume follows in brackets

# assemble mounts the file systems as the initrd would: an empty root in place of
# the last one (true: that one), and the kept subvolumes beside it.
assemble() {
  local dev root=$DIR/root ssh=$DIR/root/etc/ssh
  mount_image disk "$root" "$BTRFS,subvol=root"
  dev=$(device "$root")
  if [ "$LAYOUT" = ephemeral ]; then
    if [ "$1" = false ] && [ -e "$root/etc/NIXOS" ]; then renew_root "$dev"; fi
    for v in $SUBVOLUMES; do mount -t btrfs -o "$BTRFS,subvol=${v%%:*}" "$dev" "$root${v#*:}"; done
    ssh=$root/persist/etc/ssh
  fi
  if [ ! -e "$ssh/ssh_host_ed25519_key" ]; then # at the first boot: known_hosts has it
    mkdir -p "$ssh"; cp "$DIR/key" "$ssh/ssh_host_ed25519_key"; cp "$DIR/key.pub" "$ssh/ssh_host_ed25519_key.pub"
  fi
}

renew_root() {
  mount -t btrfs -o noatime,subvolid=5 "$1" "$DIR/top"
  if [ ! -e "$DIR/top/.keep-root" ]; then
    umount "$DIR/root"
    mv -T "$DIR/top/root" "$DIR/top/old_roots/$(next_old_root "$DIR/top/old_roots")"
    btrfs -q subvolume snapshot "$DIR/top/root-blank" "$DIR/top/root"
    mount -t btrfs -o "$BTRFS,subvol=root" "$1" "$DIR/root"
  fi
  umount "$DIR/top"
}

# next_old_root counts: the clock may be wrong this early in a boot.
next_old_root() {
  local last; last=$(ls "$1" | sed -n 's/^root-0*\([0-9]*\)-.*/\1/p' | sort -n | tail -1)
  printf 'root-%06d-%s\n' $((${last:-0} + 1)) "$(date -u +%Y%m%dT%H%M%SZ)"
}

# container and vm become what runs INIT: it is to be the caller's child.
container() {
  local root=$DIR/root
  mount_boot "$root/boot"
  power_on
  exec env -i PATH="$PATH" systemd-nspawn --register=no --keep-unit --quiet --machine="$NAME" --directory="$root" \
    --network-namespace-path="/run/netns/$NAME" --resolv-conf=off --timezone=off --link-journal=no \
    --kill-signal=SIGRTMIN+3 --capability=CAP_NET_ADMIN --console=pipe \
    --bind="$(device "$root")" --bind="$(device "$root/boot")" "$1"
}

# As emulation runs best: with two processors one boot of six hung; tb-size
# bounds a cache of 1 GiB.
vm() {
  umount -R "$DIR/root" # the guest mounts it itself
  local kernel; kernel=$(ls /boot/vmlinuz-* | sort -V | tail -1)
  initrd "${kernel#*/vmlinuz-}" > "$DIR/initrd"
  rm -f "$DIR/console"
  exec qemu-system-x86_64 \
    -accel tcg,thread=single,tb-size=96 -cpu max -m 512 -nographic -nodefaults -no-reboot -monitor none \
    -kernel "$kernel" -initrd "$DIR/initrd" -serial "file:$DIR/console" \
    -append "console=ttyS0 quiet panic=1 mitigations=off lab.name=$NAME lab.ip=$ADDRESS/24 lab.gw=$GATEWAY lab.layout=$LAYOUT init=$1" \
    -drive "file=$DIR/disk,if=virtio,format=raw,cache=writeback" \
    -drive "file=$DIR/boot,if=virtio,format=raw,cache=writeback" \
    -device virtio-rng-pci \
    -netdev "tap,id=n,ifname=v$INDEX,script=no,downscript=no" \
    -device "virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:$(printf %02x "$INDEX")"
}

# initrd is busybox, the modules a guest needs, and what is left of stage 1: the
# root has been renewed already.
initrd() (
  d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
  mkdir -p "$d"/{bin,mods,proc,sys,dev,run,new}
  cp "$CACHE/userland/usr/bin/busybox" "$d/bin/busybox"
  for m in virtio_pci virtio_blk virtio_net virtio_rng btrfs "$BOOT_FS" nls_cp437 nls_ascii nft_counter nf_tables; do
    modprobe --set-version "$1" --show-depends "$m" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || true
  done | awk '!seen[$0]++' | while read -r f; do
    cp "$f" "$d/mods/"; basename "$f" >> "$d/mods.list"
  done
  printf '#!/bin/busybox sh\nsubvolumes="%s" bootfs=%s\n' "$(echo $SUBVOLUMES)" "$BOOT_FS" > "$d/init"
  cat >> "$d/init" <<'END'
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read -r m; do insmod /mods/$m; done < /mods.list
for i in $(seq 200); do [ -b /dev/vdb ] && break; sleep 0.05; done
param() { sed -n "s/.*\<$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
o=noatime,compress=zstd:1
mount -t btrfs -o $o,subvol=root /dev/vda /new || { echo "lab: cannot mount the disk"; sleep 1; poweroff -f; }
if [ "$(param lab.layout)" = ephemeral ]; then
  for s in $subvolumes; do mount -t btrfs -o $o,subvol=${s%%:*} /dev/vda /new${s#*:}; done
fi
mount -t $bootfs /dev/vdb /new/boot
mount -t tmpfs -o mode=755 tmpfs /run
hostname "$(param lab.name)"
ip link set lo up; ip link set eth0 up; ip addr add "$(param lab.ip)" dev eth0; ip route add default via "$(param lab.gw)"
init=$(param init)
for m in proc sys dev run; do mount --move /$m /new/$m; done
exec switch_root /new "$init"
END
  chmod +x "$d/init"
  cd "$d" && find . | cpio -o -H newc --quiet | gzip -1
)

# take_power copies the disks while nothing moves, for lose_power to put in place.
take_power() { freeze 1; for f in disk boot; do cp --sparse=always "$DIR/$f" "$DIR/$f.lost"; done; }
lose_power() { for f in disk boot; do mv "$DIR/$f.lost" "$DIR/$f"; done; }
