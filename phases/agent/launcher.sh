#!/bin/sh
# Written by deployer. The one program that the deploy user's sudo rule names:
# it receives agents, checks their digest and runs them. Owned by root, mode 0700.
#   agent install DIGEST   standard input becomes bin/DIGEST, if that is its sha256
#   agent run DIGEST ARG…  runs bin/DIGEST; exit 67: not installed yet
set -eu
umask 077
PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
dir=/nix/var/deployer
verb=${1-} digest=${2-}
case $digest in *[!0-9a-f]*|'') echo "agent: not a sha256: $digest" >&2; exit 64 ;; esac
[ ${#digest} = 64 ] || { echo "agent: not a sha256: $digest" >&2; exit 64; }
case $verb in
install)
  mkdir -p "$dir/bin"
  new=$(mktemp "$dir/bin/.new.XXXXXX")
  trap 'rm -f "$new"' EXIT
  cat > "$new"
  echo "$digest  $new" | sha256sum -c --status || { echo "agent: what arrived is not $digest" >&2; exit 65; }
  chmod 0500 "$new"
  sync "$new"
  mv -f "$new" "$dir/bin/$digest"
  sync "$dir/bin" ;;
run)
  shift 2
  [ -x "$dir/bin/$digest" ] || exit 67
  exec "$dir/bin/$digest" "$@" ;;
*) echo "usage: agent install|run DIGEST" >&2; exit 64 ;;
esac
