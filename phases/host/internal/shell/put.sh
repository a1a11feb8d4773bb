# Receives a file and its sha256 (64 digits after the content), and puts it in
# place only if they agree: a cut connection looks like an end of input here.
set -eu
umask 077
path=$1 mode=$2
case $path in */*) dir=${path%/*}/ ;; *) dir=./ ;; esac
new=$(mktemp "$dir.deployer-XXXXXXXX")
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$new"
want=$(tail -c 64 "$new")
truncate -s -64 "$new" 2>/dev/null || { echo "the upload was cut short" >&2; exit 65; }
have=$(sha256sum <"$new")
[ "${have%% *}" = "$want" ] || { echo "the upload was cut short" >&2; exit 65; }
chmod "$mode" "$new"
sync "$new"
mv -fT "$new" "$path"
trap - EXIT
sync "$dir"
