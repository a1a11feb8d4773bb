# What runs on a host, by its own bash.

# fill writes in ever smaller pieces until not a byte more fits. What a file
# system hands out late (Btrfs) it takes after a sync.
fill() {
  for round in 1 2 3; do
    for size in 1M 64k 4k 512; do dd if=/dev/urandom bs=$size >> "$1/.lab-fill" 2>/dev/null || true; done
    sync -f "$1"
  done
  df -h "$1" | tail -1
}

unfill() { rm -f "$1/.lab-fill"; sync -f "$1"; df -h "$1" | tail -1; }
