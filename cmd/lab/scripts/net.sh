# The network of a lab. Of the host with number N, v(N) is the cable's end on
# the lab's side; w(N) and x(N) are the ends of the link that lies between
# cable and bridge while there is delay or loss.
GATEWAY=10.77.0.1

bridge() {
  ip link set lo up
  ip link add br0 type bridge
  ip addr add $GATEWAY/24 dev br0
  ip link set br0 up
}

# plug gives the host an interface with its address before it boots: no DHCP,
# nothing that a reboot or a reset would have to do again.
plug() {
  if [ "$BACKEND" = vm ]; then
    ip tuntap add dev "v$INDEX" mode tap
  else
    ip netns add "$NAME"
    ip link add "v$INDEX" type veth peer name host0 netns "$NAME"
    ip -n "$NAME" link set lo up
    ip -n "$NAME" addr add "$ADDRESS/24" dev host0
    link_up
  fi
  ip link set "v$INDEX" master br0 up
}

link_up() {
  ip -n "$NAME" link set host0 up
  ip -n "$NAME" route add default via $GATEWAY 2> /dev/null || true # it goes with the link
}

# power_on is what a boot does to a machine's network: the namespace outlives the
# container, a firewall in it and a link that is down must not.
power_on() { ip netns exec "$NAME" nft flush ruleset; link_up; }

linked() { ip link show "x$INDEX" > /dev/null 2>&1; }
on_bridge() { if linked; then echo "x$INDEX"; else echo "v$INDEX"; fi; }

# cut_cable is silent: no carrier is lost, nothing is refused.
cut_cable() { ip link set "$(on_bridge)" nomaster; }
heal() { ip link set "$(on_bridge)" master br0; }

# disturb puts a link, as link.go has it, between bridge and host; both ways pass
# through it. It writes its number once frames do.
disturb() {
  clear_link
  ip link add "x$INDEX" type veth peer name "w$INDEX"
  ip link set "v$INDEX" nomaster
  ip link set "v$INDEX" promisc on
  ip link set "w$INDEX" promisc on up
  ip link set "x$INDEX" master br0 up
  rm -f "$DIR/link"
  setsid "$RUN/lab" _link "$1" "v$INDEX" "w$INDEX" "$DIR/link" < /dev/null > "$DIR/link.log" 2>&1 &
  while [ ! -s "$DIR/link" ]; do
    kill -0 $! 2> /dev/null || { cat "$DIR/link.log" >&2; return 1; }
    sleep 0.01
  done
}

# clear_link makes the host's network good again, whatever was done to it.
clear_link() {
  if linked; then
    kill -9 "$(cat "$DIR/link")" || true
    ip link del "x$INDEX"
    ip link set "v$INDEX" promisc off
  fi
  if [ "$BACKEND" != vm ]; then link_up; fi # a host may have taken its own end down
  heal
}
