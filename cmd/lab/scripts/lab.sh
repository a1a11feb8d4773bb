# What is around the hosts of a lab, in $RUN.

# prepare fills the run's folder: the program, keys, and the ssh files that lead
# to the hosts, NAME:ADDRESS each.
prepare() {
  local self=$1; shift
  (umask 077; mkdir -p "$RUN/ssh")
  cd "$RUN"
  cp "$self" lab # `go run` removes its own
  cp "$CACHE/key" ssh/id_ed25519
  sed '$a\' /etc/hosts > hosts # ends its last line
  for h; do
    local name=${h%:*} ip=${h#*:}
    mkdir "$name"; ssh-keygen -q -t ed25519 -N "" -C "$name" -f "$name/key"
    # On the usual port, and on the one that tests move sshd to.
    echo "$name,$ip,[$name]:2222,[$ip]:2222 $(cut -d' ' -f1,2 "$name/key.pub")" >> ssh/known_hosts
    printf 'Host %s\n  HostName %s\n  IdentityFile ~/.ssh/id_ed25519\n' "$name" "$ip" >> ssh/config
    echo "$ip $name" >> hosts
  done
}

# hold puts the lab's store, host names and ssh files where programs look for
# them, and makes its network; nothing outside the lab sees it.
hold() {
  private
  mount -t proc proc /proc
  readlink /proc/self/ns/mnt > "$RUN/namespace"
  local ssh; ssh=$(awk -F: '$1 == "root" { print $6 }' /etc/passwd)/.ssh # where ssh looks, whatever HOME says
  mkdir -p /run/netns; mkdir -p -m 700 "$ssh"
  mount -t tmpfs tmpfs /run/netns
  mount --bind "$RUN/hosts" /etc/hosts
  mount --bind "$RUN/ssh" "$ssh"
  bridge
}

# cgroups is one directory of lab or lab/host for each hierarchy of this machine.
# A host needs its own in each: two containers started from the same one share
# their payload's, and kill each other's units.
cgroups() {
  local root=/sys/fs/cgroup
  if [ -e $root/cgroup.controllers ]; then echo "$root/$1"; return; fi
  for c in systemd unified freezer memory; do [ ! -d $root/$c ] || echo "$root/$c/$1"; done
}

# join_cgroups puts the caller, and so all it starts, into the host's own.
join_cgroups() {
  for d in $(cgroups "$CGROUP/$NAME"); do mkdir -p "$d"; echo $PPID > "$d/cgroup.procs"; done
}

# freeze stops every process of the host where it stands (1), or lets it go on (0).
freeze() {
  local words=(THAWED FROZEN)
  for d in $(cgroups "$CGROUP/$NAME"); do
    if [ -e "$d/freezer.state" ]; then echo "${words[$1]}" > "$d/freezer.state"; return; fi
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo "$1" > "$d/cgroup.freeze"; fi
  done
}

# remove_cgroups waits until the last processes are through with dying. Only
# directories are removed: files of a cgroup go with it.
remove_cgroups() {
  for try in $(seq 1000); do
    local left=
    for d in $(cgroups "$CGROUP"); do
      [ ! -d "$d" ] || find "$d" -depth -type d -exec rmdir {} + 2> /dev/null || left=1
    done
    [ "$left" ] || return 0
    sleep 0.01
  done
  echo "its processes did not end" >&2; return 1
}
