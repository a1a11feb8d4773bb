#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read -r m; do insmod /mods/$m; done < /mods.list
for i in $(seq 200); do [ -b /dev/vdb ] && break; sleep 0.05; done
param() { sed -n "s/.*\<$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
o=noatime,compress=zstd:1
mount -t btrfs -o $o,subvol=root /dev/vda /new || { echo "lab: cannot mount the disk"; sleep 1; poweroff -f; }
if [ "$(param lab.layout)" = ephemeral ]; then
  for s in @subvolumes@; do mount -t btrfs -o $o,subvol=${s%%:*} /dev/vda /new${s#*:}; done
fi
mount -t @bootfs@ /dev/vdb /new/boot
mount -t tmpfs -o mode=755 tmpfs /run
hostname "$(param lab.name)"
ip link set lo up; ip link set eth0 up; ip addr add "$(param lab.ip)" dev eth0; ip route add default via "$(param lab.gw)"
init=$(param init)
for m in proc sys dev run; do mount --move /$m /new/$m; done
exec switch_root /new "$init"
