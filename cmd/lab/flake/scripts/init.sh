#!@bb@ sh
# Stage 2: turns an empty root into a running system, then becomes systemd.
# PID 1 of a container, or what the initramfs switches to.
systemConfig=@out@
export PATH=/usr/bin:/usr/sbin
bb=@bb@
$bb mkdir -p /usr /etc /var /tmp /run /root /proc /sys /dev /home /boot /var/empty
[ -e /proc/self ] || $bb mount -t proc proc /proc
$bb grep -q ' /run ' /proc/mounts || $bb mount -t tmpfs -o mode=755 tmpfs /run
$bb chmod 1777 /tmp; $bb chmod 700 /root
$bb mount -o bind @debian@/usr /usr
for l in bin sbin lib lib64; do [ -L /$l ] || $bb ln -s usr/$l /$l; done
echo "<<< lab stage 2: $systemConfig >>>"

# /persist is there on a host that has adopted the layout; else all is on /.
keep=/; [ ! -d /persist ] || keep=/persist/

# A root that is new gets the files of the userland's own /etc that nothing
# manages (passwd, pam.d, …).
if [ ! -e /etc/passwd ]; then
  $bb cp -a @debian@/etc/. /etc/
  $bb chmod -R u+w /etc
  rm -rf /etc/systemd/system /etc/ssh/sshd_config /etc/nix/nix.conf /etc/sudoers /etc/sudoers.d /etc/hostname
  chmod 0640 /etc/shadow /etc/gshadow
  echo "deploy:x:1000:1000::${keep}home/deploy:/bin/bash" >> /etc/passwd
  echo 'deploy:x:1000:' >> /etc/group
  echo 'deploy:*:19000:0:99999:7:::' >> /etc/shadow
fi

# A fresh /etc is not a first boot: no ldconfig, catalog, sysusers … each time.
touch /etc/.updated /var/.updated

# Identity that outlives the root.
mkdir -p ${keep}etc/ssh ${keep}home/deploy /etc/ssh
chown 1000:1000 ${keep}home/deploy
[ -s ${keep}etc/machine-id ] || cat /proc/sys/kernel/random/uuid | tr -d - > ${keep}etc/machine-id
[ -s ${keep}etc/ssh/ssh_host_ed25519_key ] || /usr/bin/ssh-keygen -q -t ed25519 -N '' -f ${keep}etc/ssh/ssh_host_ed25519_key
if [ $keep != / ]; then
  cp ${keep}etc/machine-id /etc/machine-id
  cp -p ${keep}etc/ssh/ssh_host_ed25519_key* /etc/ssh/
fi

# Where firmware shows its variables; bootctl puts what it sets there.
mount -t tmpfs -o mode=755 tmpfs /sys/firmware && mkdir -p /sys/firmware/efi/efivars

# setuid programs need a file system of their own: /run is nosuid here.
mkdir -p /run/wrappers; mount -t tmpfs -o mode=755,nodev tmpfs /run/wrappers
$systemConfig/activate
hostname -F /etc/hostname
chgrp nixbld /nix/store; chmod 1775 /nix/store
ln -sfn $systemConfig /run/booted-system
mkdir -p /nix/var/nix/gcroots; ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
exec /usr/lib/systemd/systemd "$@"
