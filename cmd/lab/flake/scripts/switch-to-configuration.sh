#!@debian@/usr/bin/bash
# The lab's switch-to-configuration. It follows switch-to-configuration-ng in
# what callers can see: actions, messages, the lock, the lists that let an
# interrupted switch go on, and the exit codes
#   1    not root, a pre-switch check or an inhibitor, the boot loader, systemd
#   2    the activation script failed
#   4    a unit failed
#   11   the lock is held (the errno of flock)
#   100  a different init interface: only a reboot helps
#   101  stderr is closed
out=@out@
export PATH=/usr/bin:/usr/sbin
action=$1
trap : PIPE # a closed pipe is an error to write to, not a death
say() { echo "$*" >&2 || exit 101; }
finish() { [ @fault@ = 0 ] || exit @fault@; exit "$1"; }

case $action in switch|boot|test|dry-activate|check) ;; *)
  say "Usage: switch-to-configuration [check|switch|boot|test|dry-activate]"; exit 1 ;;
esac
[ "$(id -u)" = 0 ] || { say "Error: switch-to-configuration must be run as the root user"; exit 1; }
[ -e /etc/NIXOS ] || grep -q '^ID=nixos' /etc/os-release || { say "This is not a NixOS installation!"; exit 1; }

mkdir -p /run/nixos
exec 9>>/run/nixos/switch-to-configuration.lock
flock -n 9 || { say "Could not acquire lock"; exit 11; }
export NIXOS_ACTION=$action

# ---- pre-switch checks -------------------------------------------------------
inhibitors() { # what both systems name and do not agree on
  python3 -IS - "$(readlink -f /run/current-system)/switch-inhibitors" $out/switch-inhibitors <<'PY'
import json, os, sys
old, new = (json.load(open(p)) if os.path.exists(p) else {} for p in sys.argv[1:])
for k in old:
    if k in new and old[k] != new[k]:
        print(k, ":", old[k], "->", new[k])
PY
}
if [ "${NIXOS_NO_CHECK:-}" != 1 ]; then
  changes=
  [ $action = boot ] || changes=$(inhibitors)
  if [ "$changes" ]; then
    say "There are changes to critical components of the system:"; say; say "$changes"; say
    say "Switching into this system is not recommended."
    say "You probably want to run 'nixos-rebuild boot' and reboot your system instead."; say
    say "If you really want to switch into this configuration directly, then"
    say "you can set NIXOS_NO_CHECK=1 to ignore pre-switch checks."; say
    say "WARNING: doing so might cause the switch to fail or your system to become unstable."; say
    say "Pre-switch check 'switchInhibitors' failed"; say "Pre-switch checks failed"; exit 1
  fi
  @preSwitch@ || { say "Pre-switch check 'lab' failed"; say "Pre-switch checks failed"; exit 1; }
fi
[ $action != check ] || finish 0

# ---- boot loader first -------------------------------------------------------
if [ $action = switch ] || [ $action = boot ]; then
  $out/bin/install-boot-loader $out || { say "Failed to install bootloader"; exit 1; }
fi
[ "${NIXOS_NO_SYNC:-}" = 1 ] || sync -f /nix/store
[ $action != boot ] || finish 0

if [ "$(cat /run/current-system/init-interface-version 2>/dev/null)" != "$(cat $out/init-interface-version)" ]; then
  say "Warning: the new NixOS configuration has an ‘init’ that is"
  say "incompatible with the current configuration.  The new configuration"
  say "won't take effect until you reboot the system."
  finish 100
fi

# ---- which units differ ------------------------------------------------------
old=/etc/static/systemd/system new=$out/etc/systemd/system
active() { systemctl list-units --full --all --no-legend --plain | awk '$3=="active"||$3=="activating"||$3=="reloading"{print $1}' | sort; }
key() { grep -qi "^$2=\(true\|yes\|1\)$" "$1"; }
nokey() { grep -qi "^$2=\(false\|no\|0\)$" "$1"; }
w=/run/nixos/stc.$$; mkdir -p $w; trap 'rm -rf $w' EXIT
active > $w/before
for l in stop skip start restart reload; do : > $w/$l; done
for l in start restart reload; do cat /run/nixos/$l-list >> $w/$l 2>/dev/null; done
record() { [ $action = dry-activate ] || echo "$2" >> /run/nixos/$1-list; }

before=" $(tr '\n' ' ' < $w/before)"
for f in $old/*.service $old/*.socket $old/*.timer $old/*.path $old/*.mount; do
  f=${f##*/}
  case $before in *" $f "*) ;; *) continue ;; esac
  if [ ! -e $new/$f ]; then nokey $old/$f X-StopOnRemoval || echo $f >> $w/stop
  elif ! cmp -s $old/$f $new/$f; then
    if key $new/$f X-ReloadIfChanged; then echo $f >> $w/reload; record reload $f
    elif nokey $new/$f X-RestartIfChanged; then echo $f >> $w/skip
    elif nokey $new/$f X-StopIfChanged; then echo $f >> $w/restart; record restart $f
    else echo $f >> $w/stop; echo $f >> $w/start; record start $f; fi
  fi
done
for l in stop skip start restart reload; do sort -u $w/$l -o $w/$l; done
list() { tr '\n' ' ' < $w/$1 | sed 's/ $//; s/ /, /g'; }
show() { [ ! -s $w/$2 ] || say "$1: $(list $2)"; }

if [ $action = dry-activate ]; then
  show "would stop the following units" stop
  show "would NOT restart the following changed units" skip
  say "would activate the configuration..."
  show "would reload the following units" reload
  show "would restart the following units" restart
  show "would start the following units" start
  finish 0
fi

# ---- the switch --------------------------------------------------------------
logger -t nixos "switching to system configuration $out"
res=0
job() { # VERB UNIT…: one transaction, but tell which units it failed for
  local verb=$1 u; shift; [ $# -gt 0 ] || return 0
  systemctl $verb -- "$@" 9>&- && return 0
  res=4
  for u in "$@"; do systemctl is-active --quiet $u || say "Failed to $verb $u"; done
}
units() { systemctl list-units --full --all --no-legend --plain "$@"; }

if [ -s $w/stop ]; then show "stopping the following units" stop; systemctl stop -- $(cat $w/stop) 9>&-; fi
show "NOT restarting the following changed units" skip
say "activating the configuration..."
$out/activate $out 9>&- || { say "Failed to run activate script"; res=2; }
systemctl reset-failed
systemctl daemon-reload || { say "Failed to reload systemd"; exit 1; }
if [ -s $w/reload ]; then show "reloading the following units" reload; job reload $(cat $w/reload); rm -f /run/nixos/reload-list; fi
if [ -s $w/restart ]; then show "restarting the following units" restart; job restart $(cat $w/restart); rm -f /run/nixos/restart-list; fi
show "starting the following units" start
# Targets that are active pull in what is new in them.
job start $(cat $w/start) multi-user.target timers.target sockets.target
rm -f /run/nixos/start-list

sleep 0.25 # settle: what fails later is not seen, here as there
active > $w/after
fresh=$(comm -13 $w/before $w/after | grep -v '\.scope$' | tr '\n' ' ' | sed 's/ $//; s/ /, /g')
[ -z "$fresh" ] || say "the following new units were started: $fresh"
failed=$(units | awk '$3=="failed"{print $1}')
for u in $(units --type=service | awk '$4=="auto-restart"{print $1}'); do
  [ "$(systemctl show -p ExecMainStatus --value $u)" = 0 ] || failed="$failed $u"
done
if [ -n "$failed" ]; then
  say "warning: the following units failed: $(echo $failed | sed 's/ /, /g')"
  systemctl status --no-pager --full $failed >&2
  res=4
fi
if [ $res = 0 ]; then logger -t nixos "finished switching to system configuration $out"
else logger -t nixos "switching to system configuration $out failed (status $res)"; fi
finish $res
