# Makes the initramfs of a host that is a virtual machine.
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
mkdir -p "$d"/{bin,mods,proc,sys,dev,run,new}
cp "$BUSYBOX" "$d/bin/busybox"
for m in virtio_pci virtio_blk virtio_net virtio_rng btrfs $BOOT_FS nls_cp437 nls_ascii nft_counter nf_tables; do
  modprobe --set-version "$KERNEL" --show-depends $m 2>/dev/null | awk '$1 == "insmod" { print $2 }' || true
done | awk '!seen[$0]++' | while read -r f; do
  cp "$f" "$d/mods/"; basename "$f" >> "$d/mods.list"
done
printf '%s' "$INIT" > "$d/init"; chmod +x "$d/init"
(cd "$d" && find . | cpio -o -H newc --quiet | gzip -1) > "$OUT"
