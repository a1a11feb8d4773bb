# Takes one read-only snapshot of each kept subvolume, /.snapshots/NAME-UTC.
stamp=$(date -u +%Y%m%dT%H%M%SZ)
status=0
for path in /persist /var/lib/services /var/lib/caddy; do
  dest=/.snapshots/${path##*/}-$stamp
  # Inode 256 is the root of a subvolume; an existing target would take the
  # snapshot into itself.
  if [ "$(stat -c %i "$path" 2>/dev/null)" != 256 ]; then
    echo "$path is not a Btrfs subvolume" >&2; status=1
  elif [ -e "$dest" ]; then
    echo "$dest exists already" >&2; status=1
  else
    btrfs subvolume snapshot -r "$path" "$dest" || status=1
  fi
done
exit $status
