#!@debian@/usr/bin/bash
# Makes the running system's /etc, /run/current-system and so on match @out@:
# the shape of NixOS' activation script, a fraction of its work.
systemConfig=@out@
export PATH=/usr/bin:/usr/sbin
status=0

echo "setting up /etc..."
ln -sfn $systemConfig/etc /etc/static.tmp && mv -T /etc/static.tmp /etc/static
# Links of an earlier system that this one no longer has.
find /etc -lname '/etc/static/*' -xtype l -delete
mkdir -p /etc/systemd
cd -P /etc/static
# Few forks: a lab host may be an emulated one.
find . -mindepth 1 -type d ! -path './systemd*' -printf '/etc/%P\0' | xargs -0r mkdir -p
find . \( -type f -o -type l \) ! -path './systemd/*' -printf '%P\n' | while read -r f; do
  case $f in
    # These must be files that only root can change, or that tools insist on.
    sudoers|hostname|NIXOS) install -m 0440 "/etc/static/$f" "/etc/$f" ;;
    # sshd refuses keys below a directory that a group can write (/nix/store).
    ssh/authorized_keys.d/*) install -m 0444 "/etc/static/$f" "/etc/$f" ;;
    *) [ "/etc/$f" -ef "/etc/static/$f" ] || ln -sfn "/etc/static/$f" "/etc/$f" ;;
  esac
done
[ -e /etc/static/hostname ] || hostname > /etc/hostname
chmod 0444 /etc/hostname /etc/NIXOS
cd /
[ -L /etc/systemd/system ] || { rm -rf /etc/systemd/system; ln -sfn /etc/static/systemd/system /etc/systemd/system; }

# setuid programs cannot live in the store.
mkdir -p /run/wrappers/bin
[ -u /run/wrappers/bin/sudo ] || install -m 4755 /usr/bin/sudo /run/wrappers/bin/sudo

( # what the host's configuration adds
:
@activation@
) || { echo "Activation script snippet 'lab' failed (1)" >&2; status=2; }

mkdir -p /run /nix/var/nix/gcroots
ln -sfn $systemConfig /run/current-system.tmp && mv -T /run/current-system.tmp /run/current-system
ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
exit $status
