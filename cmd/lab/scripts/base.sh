# What all labs of one recipe share, in $CACHE.

# base makes the userland of PACKAGES, a Nix that runs on this machine, and a
# store with the userland in it.
base() {
  private; cd "$CACHE"
  rm -rf userland add # of a run that was stopped half-way
  mmdebstrap --quiet --variant=minbase --format=directory --include="$1" \
    --dpkgopt=path-exclude=/usr/share/{man,locale,doc}/'*' trixie "$CACHE/userland" || {
    echo "mmdebstrap needs Debian's mirror and the keyring: apt-get install -y debian-archive-keyring" >&2; return 1; }
  # What belongs to one machine, or to an installer, is not part of a system.
  (cd userland; rm -rf dev/* var/cache/* var/log/* var/lib/apt var/lib/dpkg/info etc/machine-id etc/hostname etc/resolv.conf etc/ssh/ssh_host_*
   grep -q ^nixbld: etc/group || chroot . groupadd -r nixbld)
  [ -e key ] || ssh-keygen -q -t ed25519 -N "" -C lab -f key
  own_nix
  add_userland
  touch userland.ok
}

# private keeps mounts to this namespace and puts the lab's store on /nix.
private() {
  mkdir -p "$CACHE/store" /nix
  mount --make-rprivate /
  mount --bind "$CACHE/store" /nix
}

# own_nix makes the userland's Nix run whatever this machine's libc is. It is
# given its loader by name, since Nix starts itself again as a build hook.
own_nix() {
  mkdir -p nix/bin etc
  cp userland/usr/bin/nix nix/bin/nix
  patchelf --force-rpath --set-rpath "$CACHE/userland/usr/lib/x86_64-linux-gnu" \
    --set-interpreter "$CACHE/userland/usr/lib64/ld-linux-x86-64.so.2" nix/bin/nix
  for n in build env store instantiate copy-closure daemon collect-garbage hash; do ln -sfn nix nix/bin/nix-$n; done
  cat > etc/nix.conf <<'END'
experimental-features = nix-command flakes
substituters =
sandbox = false
build-users-group =
# Dozens of small builds: 0.3 s each with it.
fsync-metadata = false
END
}

# add_userland makes it one fixed-output path. The flake names its hash, so
# evaluation stays pure and nothing is ever fetched.
add_userland() {
  mkdir add; cp -a userland add/debian-base
  path=$(nix-store --add-fixed --recursive sha256 add/debian-base)
  sum=$(nix hash path --base16 --type sha256 "$path")
  echo "{\"name\":\"debian-base\",\"sha256\":\"$sum\"}" > base.json
  nix-store --add-root "$CACHE/base-root" --realise "$path"
  rm -rf add
}
