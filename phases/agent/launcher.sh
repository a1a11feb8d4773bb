#!/bin/sh
# Written by deployer. The one program that the deploy user's sudo rule names:
# it receives agents, checks their digest and runs them. Owned by root, mode 0700.
#   agent install DIGEST   standard input becomes bin/DIGEST, if that is its sha256
#   agent run DIGEST ARG…  runs bin/DIGEST; exit 67: not installed yet
#   agent resume           at boot: the agent that file `current` names goes on with
#                          what it guarded; nothing if there is no such file
set -eu
umask 077
PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
dir=/nix/var/deployer
verb=${1-} digest=${2-}
if [ "$verb" = resume ]; then
  if [ -L "$dir/current" ] || [ ! -f "$dir/current" ]; then exit 0; fi
  read -r digest < "$dir/current" || :
fi
case $digest in *[!0-9a-f]*|'') echo "agent: not a sha256: $digest" >&2; exit 64 ;; esac
[ ${#digest} = 64 ] || { echo "agent: not a sha256: $digest" >&2; exit 64; }
agent=$dir/bin/$digest
intact() { echo "$digest  $1" | sha256sum -c --status; }
case $verb in
install)
  mkdir -p "$dir/bin"
  new=$(mktemp "$dir/bin/.new.XXXXXX")
  trap 'rm -f "$new"' EXIT
  cat > "$new"
  intact "$new" || { echo "agent: what arrived is not $digest" >&2; exit 65; }
  chmod 0500 "$new"
  sync "$new"
  mv -f "$new" "$agent"
  sync "$dir/bin" ;;
run)
  shift 2
  [ -x "$agent" ] || exit 67
  exec "$agent" "$@" ;;
resume)
  if [ -L "$agent" ] || [ ! -x "$agent" ] || ! intact "$agent"; then
    echo "agent: $agent is not there, or not what its name says" >&2; exit 67
  fi
  exec "$agent" resume ;;
*) echo "usage: agent install|run DIGEST, agent resume" >&2; exit 64 ;;
esac
