#!@debian@/usr/bin/bash
# Stands for bootctl where there is no firmware: /boot/loader/oneshot stands
# for the EFI variable LoaderEntryOneShot, honoured and cleared by the lab. Those
# who read the variable itself find it until the next boot where Linux shows it.
variable=/sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
case ${1:-status} in
  set-oneshot)
    id=${2:-}
    [ "$id" ] || { rm -f /boot/loader/oneshot $variable; exit 0; }
    [ "$id" != @saved ] && [ ! -e "/boot/loader/entries/$id" ] && echo "Boot loader entry '$id' not found, setting it all the same." >&2
    printf '%s\n' "$id" > /boot/loader/oneshot.tmp && sync /boot/loader/oneshot.tmp && mv /boot/loader/oneshot.tmp /boot/loader/oneshot &&
      { printf '\7\0\0\0'; printf %s "$id" | sed 's/./&\x00/g'; printf '\0\0'; } > $variable ;;
  status)
    echo "System:"; echo "     Firmware: lab (EFI variables are files in /boot/loader)"
    echo "Current Boot Loader:"; echo "      Product: systemd-boot"
    echo "Default Boot Loader Entry:"; sed -n 's/^default /           id: /p' /boot/loader/loader.conf
    [ ! -e /boot/loader/oneshot ] || echo "OneShot Entry: $(cat /boot/loader/oneshot)" ;;
  list) ls -1 /boot/loader/entries ;;
  is-installed) echo yes ;;
  -p|--print-esp-path|-x|--print-boot-path) echo /boot ;;
  *) echo "Unknown command verb '$1'." >&2; exit 1 ;;
esac
