package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// link joins two interfaces at layer 2 and delays, jitters or loses what
// passes: latency for kernels that have no sch_netem.
type link struct {
	Delay, Jitter time.Duration
	Loss          float64 // share of frames, each way
}

// vnetHdrLen: frames carry their virtio-net header (PACKET_VNET_HDR), so that
// checksum and segmentation offload of veth survive the way through here.
const vnetHdrLen = 10

type port struct{ fd, index int }

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func openPort(name string) (port, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return port{}, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL)))
	if err != nil {
		return port{}, err
	}
	// Promiscuous: the far side's MAC address is not this interface's.
	promiscuous := &unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, promiscuous),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ifi.Index}),
	)
	return port{fd, ifi.Index}, err
}

// serveLink forwards between two interfaces until it is killed; its number in a
// file says that it has begun.
func serveLink(_ lab, args []string) error {
	var l link
	if err := json.Unmarshal([]byte(args[0]), &l); err != nil {
		return err
	}
	a, err := openPort(args[1])
	b, err2 := openPort(args[2])
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("cannot join %s and %s: %w", args[1], args[2], err)
	}
	if err := writeFile(args[3], []byte(strconv.Itoa(os.Getpid()))); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- l.forward(a, b) }()
	go func() { ended <- l.forward(b, a) }()
	return <-ended
}

type frame struct {
	due  time.Time
	data []byte
}

func (l link) forward(from, to port) error {
	queue := make(chan frame, 1<<14)
	go deliver(queue, to)
	buf := make([]byte, 1<<17)
	for {
		n, sender, err := unix.Recvfrom(from.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if ll, ok := sender.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue // our own
		}
		if n <= vnetHdrLen || rand.Float64() < l.Loss {
			continue
		}
		select {
		case queue <- frame{time.Now().Add(l.wait()), append([]byte(nil), buf[:n]...)}:
		default: // a full queue loses, as a router's does
		}
	}
}

func (l link) wait() time.Duration {
	if l.Jitter <= 0 {
		return l.Delay
	}
	return l.Delay + rand.N(2*l.Jitter) - l.Jitter
}

// deliver keeps the order of frames, as one link does.
func deliver(queue <-chan frame, to port) {
	for f := range queue {
		time.Sleep(time.Until(f.due))
		_ = unix.Sendto(to.fd, f.data, 0, &unix.SockaddrLinklayer{Ifindex: to.index, Halen: 6})
	}
}
