#!@debian@/usr/bin/bash
# grub-editenv FILE list|set K=V…|unset K…|create, and as grub-reboot ENTRY.
# The block is GRUB's own: 1024 bytes, filled up with #, written in place.
set -e
write() { # FILE, its lines on stdin
  local text pad
  text=$(echo "# GRUB Environment Block"; sed '/^$/d'; echo .); text=${text%.}
  printf -v pad '%*s' $((1024 - ${#text})) ''
  printf '%s%s' "$text" "${pad// /#}" | dd of="$1" conv=notrunc,fsync status=none
}
lines() { [ ! -s "$1" ] || grep -v '^#' "$1" || true; }
if [ "${0##*/}" = grub-reboot ]; then set -- /boot/grub/grubenv set "next_entry=$1"; fi
file=$1 verb=$2; shift 2
[ "$file" != - ] || file=/boot/grub/grubenv
case $verb in
  list) lines "$file" ;;
  create) write "$file" < /dev/null ;;
  set|unset)
    kept=$(lines "$file")
    for kv in "$@"; do
      kept=$(grep -v "^${kv%%=*}=" <<< "$kept" || true)
      [ $verb = unset ] || kept+=$'\n'$kv
    done
    write "$file" <<< "$kept" ;;
  *) echo "grub-editenv: error: Unknown command \`$verb'." >&2; exit 1 ;;
esac
