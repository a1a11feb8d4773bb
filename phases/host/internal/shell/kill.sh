# Ends one command and all that it started. Its id comes on standard input, and
# not as an argument, so that this script never finds itself.
read -r mark
[ -n "$mark" ] || exit 64
old= sessions=' '
# find sets $now to the live processes that carry the mark or were found before,
# with the rest of their login sessions and all their descendants. Sessions are
# remembered too: a process may fork between being seen and being killed.
find() {
  all= now= more=yes
  for f in /proc/[0-9]*/stat; do
    { read -r l <"$f"; } 2>/dev/null || continue
    p=${l%% *}
    set -- ${l##*) }
    case $1$2$4 in [ZX]* | *[!A-Za-z0-9]*) continue ;; esac
    all="$all $p:$2:$4"
  done
  roots=$(grep -lsF -e "DEPLOYER_COMMAND=$mark" /proc/[0-9]*/environ | tr -dc '0-9\n' | tr '\n' ' ')
  while [ -n "$more" ]; do
    more=
    for e in $all; do
      p=${e%%:*} r=${e#*:}
      case "$now " in *" $p "*) continue ;; esac
      case " $roots$old $now ! $sessions" in
      *" $p "*" ! "* | *" ${r%%:*} "*" ! "* | *" ! "*" ${r##*:} "*) ;;
      *) continue ;;
      esac
      now="$now $p" more=yes
      [ "${r##*:}" = 0 ] || sessions="$sessions${r##*:} "
    done
  done
}
n=0
while find; [ -n "$now" ]; do
  old=$now
  if [ $n -eq 0 ]; then kill -TERM $now; elif [ $n -ge 20 ]; then kill -KILL $now; fi 2>/dev/null
  [ $n -lt 60 ] || { echo "still running:$now" >&2; exit 1; }
  n=$((n + 1))
  sleep 0.1
done
