# Facts of a host without an agent: read only, as the login user, without sudo.
# Lines KEY=VALUE between a first and a last mark; what cannot be one line is
# unknown. Arguments: paths whose space matters.
nl='
'
say() { # KEY VALUE
  case $2 in *"$nl"*) echo "unknown=$1" ;; *) printf '%s=%s\n' "$1" "$2" ;; esac
}
has() { command -v "$1" >/dev/null 2>&1; }
each() { # KEY: every line of standard input
  while IFS= read -r line; do printf '%s=%s\n' "$1" "$line"; done
}
PATH=/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:${PATH:-/bin}:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
home=/nix/var/deployer found='' first=''
profiles=/nix/var/nix/profiles
echo 'deployer-facts=1'
say hostname "$(uname -n)"
say uname "$(uname -mr)"
say time "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
user=$(id -un) uid=$(id -u)
say user "$user"
say uid "$uid"
read -r boot < /proc/sys/kernel/random/boot_id && say boot_id "$boot"
for f in /etc/os-release /usr/lib/os-release; do
  [ -r $f ] || continue
  while IFS= read -r line; do case $line in ID=*) say os "${line#ID=}" ;; esac; done < $f
  break
done
if has systemctl; then
  { read -r line; say systemd "$line"; } <<END
$(systemctl --version 2>/dev/null)
END
  if units=$(systemctl list-units --state=failed --full --plain --no-legend --no-pager 2>/dev/null); then
    printf '%s\n' "$units" | each unit
  else
    echo unknown=failed
  fi
else
  echo unknown=failed
fi
for l in current-system booted-system; do
  [ ! -L /run/$l ] || say $l "$(readlink -f /run/$l)"
done
now=/run/current-system dir=/run/current-system/etc/systemd/system
[ ! -e $dir/multi-user.target.wants/deployer-resume.service ] || say module 1
for u in $dir/comin.service $dir/nixos-upgrade.timer $dir/bento-upgrade.timer $dir/cachix-agent.service \
  /run/systemd/transient/nixos-cli-activation-supervisor.service \
  /run/systemd/transient/nixos-rebuild-switch-to-configuration.service /tmp/deploy-rs-canary-*; do
  [ ! -e "$u" ] || say foreign "${u##*/}"
done
for k in kernel initrd kernel-modules; do
  [ ! -e $now/$k ] || [ ! -e /run/booted-system/$k ] || [ $now/$k -ef /run/booted-system/$k ] || say pending $k
done
[ ! -e $now/initrd ] || stat -Lc %s $now/kernel $now/initrd 2>/dev/null | each boot_bytes
[ ! -d $home ] || say state_dir "$(stat -c '%a %u %i' $home) $(stat -f -c %T $home)"
for p in systemd-run systemctl journalctl nix-env sha256sum sync; do has $p || say missing $p; done
if [ -L $profiles/system ]; then
  say profile "$(readlink $profiles/system)"
  for l in $profiles/system-*-link; do [ -L "$l" ] && first=1 && say generation "${l##*/}"; done
  [ -z "$first" ] || readlink $profiles/system-*-link | each target
  for l in "$(readlink -f $profiles/system)"/specialisation/*; do
    [ -e "$l" ] && say specialisation "${l##*/} $(readlink -f "$l")"
  done
fi
for d in /boot/loader /efi/loader /boot/efi/loader /boot/EFI/loader; do
  [ -e $d/loader.conf ] || continue
  if lines=$(cd $d && grep -aH '' loader.conf entries/*.conf 2>/dev/null); then
    echo boot=systemd-boot
    printf '%s\n' "$lines" | each bootline
  else
    echo unknown=boot
  fi
  found=1
  break
done
if [ -z "$found" ]; then
  for f in /boot/grub/grub.cfg /boot/grub2/grub.cfg; do
    [ -e $f ] || continue
    found=1
    if [ -r $f ]; then echo boot=grub; grep -aH '' $f | each bootline; else echo unknown=boot; fi
    break
  done
fi
[ -n "$found" ] || { [ -r /boot ] && [ -x /boot ]; } || echo unknown=boot
if has nix; then
  say nix "$(nix --version 2>/dev/null)"
  x='--extra-experimental-features nix-command'
  { nix $x config show 2>/dev/null || nix $x show-config 2>/dev/null; } | while IFS= read -r line; do
    case $line in trusted-users\ =*|trusted-public-keys\ =*) printf 'nix.%s\n' "$line" ;; esac
  done
  say groups "$(id -Gn)"
  [ "$uid" = 0 ] || say store "$(nix $x store info --json 2>/dev/null || nix $x store ping --json 2>/dev/null)"
fi
n=0 wanted=$#
while [ $n -lt "$wanted" ]; do # keep those that are there, in order
  p=$1 n=$((n + 1))
  shift
  if [ -e "$p" ]; then set -- "$@" "$p"; say space_path "$p"; else say unknown "space $p"; fi
done
if [ $# -gt 0 ]; then
  df --output=fstype,size,avail -B1 -- "$@" 2>/dev/null | { read -r line && each space; }
fi
if [ "$uid" = 0 ]; then
  [ -x $home/agent ] && echo launcher=1
  for r in $home/runs/*/recipe.json; do
    [ -e "$r" ] && { [ ! -e "${r%recipe.json}closing.json" ] || grep -q '"stuck"' "${r%recipe.json}closing.json"; } && r=${r%/recipe.json} && say open_run "${r##*/}"
  done
else
  echo unknown=open_run
  echo unknown=holder
  if has sudo; then
    if has timeout; then limit='timeout 5'; else limit=; fi
    if text=$($limit sudo -n -l $home/agent 2>&1); then echo launcher=1; else say sudo "${text%%"$nl"*}" && echo sudo_refused=1; fi
  else
    echo 'sudo=sudo: not found'
  fi
fi
echo unknown=switch_locked
echo 'end=1'
