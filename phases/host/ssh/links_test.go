package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/hbohlen/deployer/phases/host"
)

// What the default promises is a number; the tests below use a shorter one, and
// bounds so far above it that a busy machine is within them.
const (
	impatient = 3 * time.Second
	bound     = 10 * time.Second
)

func TestADeadConnectionIsNoticedWithinTenSeconds(t *testing.T) {
	if got := (Config{}).limit(); got >= 10*time.Second {
		t.Errorf("it takes %s", got)
	}
}

var spaces atomic.Int32

// far is a site whose servers are in a network of their own: what is dropped on
// the way there is just not heard of again.
func far(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "needs "+tool+" (apt install iproute2 nftables)")
		}
	}
	n := (os.Getpid()*16 + int(spaces.Add(1))) % 16384
	s.space, s.ip = fmt.Sprint("dl", n), fmt.Sprintf("198.18.%d.%d", n>>6, n<<2&0xff|2)
	near := fmt.Sprintf("198.18.%d.%d/30", n>>6, n<<2&0xff|1)
	t.Cleanup(func() {
		exec.Command("sh", "-c", `ip netns pids $0 | xargs -r kill -9; ip netns del $0`, s.space).Run()
	})
	script := `set -e
ip netns add $0
ip link add $0 type veth peer name eth0 netns $0
ip addr add $1 dev $0; ip link set $0 up
ip -n $0 addr add $2/30 dev eth0; ip -n $0 link set eth0 up; ip -n $0 link set lo up
ip route replace $2/32 dev $0 cwnd lock 10 # as on a long way: the kernel takes little to send`
	if out, err := exec.Command("sh", "-c", script, s.space, near, s.ip).CombinedOutput(); err != nil {
		missing(t, "needs network namespaces: "+string(out))
	}
	return s
}

// drop lets no packet in that matches; empty: none at all.
func (s *site) drop(match string) {
	s.t.Helper()
	rules := "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in " + match + " drop"
	if out, err := exec.Command("ip", "netns", "exec", s.space, "nft", rules).CombinedOutput(); err != nil {
		s.t.Fatalf("nft: %s", out)
	}
}

// behind is a target reached by way of a jump host.
func (s *site) behind(jump, target string) Config {
	hop := func(name, at string) string {
		ip, port, _ := net.SplitHostPort(at)
		return "Host " + name + "\n HostName " + ip + "\n Port " + port + "\n User root\n IdentityFile " + s.login + "\n"
	}
	s.write("config", hop("jump", jump)+hop("inner", target)+" ProxyJump jump\n")
	s.write("known_hosts", knownhosts.Line([]string{target, jump}, s.ed.PublicKey())+"\n")
	return Config{Name: "web1", Address: "inner", ConfigFile: s.path("config"), KnownHosts: s.path("known_hosts"), patience: impatient}
}

func TestSilentPeerIsLost(t *testing.T) {
	t.Parallel()
	t.Run("packets are dropped", func(t *testing.T) {
		t.Parallel()
		s := far(t)
		s.silent(s.up(), func(*Host) { s.drop("") })
	})
	t.Run("sshd hangs", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		s.silent(s.up(), func(h *Host) {
			pid, _ := strconv.Atoi(run(t, h, "sh", "-c", "echo $PPID"))
			t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
			syscall.Kill(pid, syscall.SIGSTOP)
		})
	})
	t.Run("target behind a jump host", func(t *testing.T) {
		t.Parallel()
		s, near := far(t), newSite(t)
		near.rsa, near.ed = s.rsa, s.ed
		for _, f := range []string{"host_rsa", "host_ed25519", "authorized_keys"} {
			content, _ := os.ReadFile(s.path(f))
			near.write(f, string(content))
		}
		s.silent(s.behind(near.at(near.sshd()), s.at(s.sshd())), func(*Host) { s.drop("") })
	})
	t.Run("jump host", func(t *testing.T) {
		t.Parallel()
		s := far(t)
		s.silent(s.behind(s.at(s.sshd()), s.at(s.sshd())), func(*Host) { s.drop("iifname eth0") })
	})
}

// silent checks that all that a connection can be busy with ends as lost.
func (s *site) silent(c Config, cut func(*Host)) {
	s.t.Helper()
	c.patience = impatient
	h := s.dial(c)
	reading, err := h.Start(s.context(), host.Command{Args: []string{"sh", "-c", "echo begun; sleep 60"}})
	if err != nil {
		s.t.Fatal(err)
	}
	io.ReadFull(reading, make([]byte, len("begun\n")))
	fed := make(chan struct{}) // by the input that never ends
	command := func(stdin io.Reader, args ...string) func() error {
		return func() error {
			_, err := h.Run(s.context(), host.Command{Args: args, Stdin: stdin})
			return err
		}
	}
	outcomes := map[string]func() error{
		"a silent command": command(nil, "sleep", "60"),
		"endless input":    command(&endless{fed: fed}, "sh", "-c", "cat >/dev/null"),
		"endless output":   command(nil, "cat", "/dev/zero"),
		"reading":          func() error { io.Copy(io.Discard, reading); _, err := reading.Wait(); return err },
	}
	var all sync.WaitGroup
	check := func(name string, act func() error) {
		all.Go(func() {
			err := act()
			var e *host.Error
			if !errors.As(err, &e) || e.Kind != host.Lost {
				s.t.Errorf("%s: got %v", name, err)
			}
		})
	}
	for name, act := range outcomes {
		check(name, act)
	}
	<-fed
	cut(h)
	began := time.Now()
	check("a new session", command(nil, "true"))
	all.Wait()
	<-h.Lost()
	if d := time.Since(began); d > bound {
		s.t.Errorf("noticed after %s", d)
	}
}

// endless says when it was first read from.
type endless struct {
	fed  chan struct{}
	once sync.Once
}

func (e *endless) Read(b []byte) (int, error) {
	e.once.Do(func() { close(e.fed) })
	return len(b), nil
}

func TestQuietCommandKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.up()
	c.patience = impatient
	run(t, s.dial(c), "sleep", fmt.Sprint((3 * impatient).Seconds()))
}

// An answer that has to wait behind what was sent before is no silence.
func TestSlowLinkIsNotASilentOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	port := s.sshd()
	front := listen(t, func(c net.Conn) { pipe(slow{c}, s.at(port), nil) })
	s.know(front, s.ed)
	c := s.config(front)
	c.patience = impatient
	res, err := s.dial(c).Run(s.context(), host.Command{Args: []string{"wc", "-c"}, Stdin: io.LimitReader(&endless{fed: make(chan struct{})}, 3<<20)})
	if err != nil || strings.TrimSpace(string(res.Stdout)) != fmt.Sprint(3<<20) {
		t.Errorf("got %s, %v", res.Stdout, err)
	}
}

// slow takes 400 kB a second.
type slow struct{ net.Conn }

func (s slow) Read(b []byte) (int, error) {
	time.Sleep(20 * time.Millisecond)
	return s.Conn.Read(b[:min(len(b), 8<<10)])
}

func TestHandshakeHasADeadline(t *testing.T) {
	t.Parallel()
	mute := func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }
	for name, config := range map[string]func(s *site) Config{
		"mute": func(s *site) Config {
			port := listen(t, mute)
			s.know(port, s.ed)
			return s.config(port)
		},
		"mute behind a jump host": func(s *site) Config {
			return s.behind(s.at(s.sshd()), s.at(listen(t, mute)))
		},
		"jump host falls silent": func(s *site) Config {
			port, frozen := s.sshd(), make(chan struct{})
			front := listen(t, func(c net.Conn) { pipe(c, s.at(port), frozen) })
			target := listen(t, func(c net.Conn) {
				io.ReadFull(c, make([]byte, 1)) // the handshake has begun
				close(frozen)
				mute(c)
			})
			return s.behind(s.at(front), s.at(target))
		},
		"login hangs": func(s *site) Config { return s.up("ForceCommand sleep 60") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := config(s)
			c.patience = impatient
			began := time.Now()
			s.refused(c, host.Timeout, "")
			if d := time.Since(began); d > bound {
				t.Errorf("it took %s", d)
			}
		})
	}
}

// What is broken for new connections is seen by Fresh alone, and which way.
func TestFreshSeesWhatOldSessionsHide(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind   host.Kind
		breaks func(s *site, sshd *os.Process)
	}{
		"sshd is dead":        {host.Refused, func(_ *site, sshd *os.Process) { sshd.Kill(); sshd.Wait() }},
		"sshd hangs":          {host.Timeout, func(_ *site, sshd *os.Process) { sshd.Signal(syscall.SIGSTOP) }},
		"firewall drops":      {host.Timeout, func(s *site, _ *os.Process) { s.drop("tcp flags & (syn|ack) == syn") }},
		"keys are gone":       {host.Denied, func(s *site, _ *os.Process) { s.write("authorized_keys", "") }},
		"host key is unknown": {host.HostKey, func(s *site, _ *os.Process) { s.write("known_hosts", "") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := far(t)
			port, sshd := s.master()
			s.know(port, s.ed)
			c := s.config(port)
			c.patience = impatient
			h := s.dial(c)
			tt.breaks(s, sshd)
			run(t, h, "true")
			_, err := h.Fresh(s.context())
			var e *host.Error
			if !errors.As(err, &e) || e.Kind != tt.kind {
				t.Errorf("got %v, want %s", err, tt.kind)
			}
			run(t, h, "true")
		})
	}
}

// penalising is a /usr whose sshd knows penalties: the machine's own, or the lab's.
func penalising(t *testing.T) string {
	cache, _ := os.UserCacheDir()
	lab, _ := filepath.Glob(filepath.Join(cache, "deployer-lab", "*", "userland", "usr"))
	for _, usr := range append([]string{"/usr"}, lab...) {
		if program, _ := os.ReadFile(filepath.Join(usr, "sbin", "sshd")); bytes.Contains(program, []byte("PerSourcePenalties")) {
			return usr
		}
	}
	t.Skip("needs OpenSSH 9.8 or newer (or that of the lab: go run ./cmd/lab base)")
	return ""
}

func TestPenaltyIsNamedAndPasses(t *testing.T) {
	t.Parallel()
	usr := penalising(t)
	s := newSite(t)
	s.usr = usr
	c := s.up("PerSourcePenalties authfail:5s min:1s")
	s.key("stranger", false)
	wrong := c
	wrong.Key = s.path("stranger")
	s.refused(wrong, host.Denied, "ssh-copy-id")
	var penalties int
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		h, err := Dial(s.context(), c)
		var e *host.Error
		switch {
		case err == nil:
			h.Close()
			if penalties > 0 {
				return // though it was tried all the time
			}
		case errors.As(err, &e) && e.Kind == host.Refused && strings.Contains(e.Hint[0], "wait a minute"):
			penalties++
		default:
			t.Fatalf("got %v", err)
		}
		if time.Now().After(until) {
			t.Fatalf("%d times penalised", penalties)
		}
	}
}

// Which words the server has for it, and whether they arrive, must not matter.
func TestRefusedSaysWhy(t *testing.T) {
	for said, want := range map[string]string{
		"Not allowed at this time\r\n": "does not prolong it",
		"Exceeded MaxStartups\r\n":     "MaxStartups",
		"":                             "PerSourcePenalties",
		"SSH-2.0-x\r\n":                "PerSourcePenalties",
	} {
		for _, rude := range []bool{false, true} {
			s := newSite(t)
			port := listen(t, func(c net.Conn) {
				if rude { // a reset, since there is something that was not read
					io.ReadFull(c, make([]byte, 1))
				}
				io.WriteString(c, said)
				c.Close()
			})
			s.know(port, s.ed)
			e := s.refused(s.config(port), host.Refused, want)
			if text := strings.TrimSpace(said); strings.HasPrefix(said, "Exceeded") && !strings.Contains(e.Error(), text) {
				t.Errorf("error is %v", e)
			}
		}
	}
}

func TestJumpHostTellsRefusedFromTimeout(t *testing.T) {
	for said, want := range map[string]host.Kind{
		"Connection refused": host.Refused, "Connection timed out": host.Timeout, "No route to host": host.Timeout,
	} {
		err := &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: said}
		if e := failure(t.Context(), Config{}, nil, err); e.Kind != want {
			t.Errorf("%s is %s", said, e.Kind)
		}
	}
}

// nix copy runs ssh, which by itself would wait for a silent peer for ever.
func TestNixNoticesSilenceToo(t *testing.T) {
	t.Parallel()
	s := far(t)
	c := s.up()
	c.patience = impatient
	h := s.dial(c)
	out, w := io.Pipe()
	cmd := exec.Command("ssh", append(h.NixSSHOpts(), "root@"+s.ip, "echo begun; sleep 60")...)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, len("begun\n")))
	s.drop("")
	limit := time.AfterFunc(2*bound, func() { cmd.Process.Kill(); t.Error("ssh still waits") })
	defer limit.Stop()
	if err := cmd.Wait(); err == nil {
		t.Error("ssh ended well")
	}
}

func listen(t testing.TB, serve func(net.Conn)) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// pipe forwards a connection until frozen is closed; then it is a dead peer:
// open, and silent.
func pipe(c net.Conn, to string, frozen <-chan struct{}) {
	back, err := net.Dial("tcp", to)
	if err != nil {
		c.Close()
		return
	}
	done := make(chan struct{}, 2)
	copy := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			select {
			case <-frozen: // swallow
			default:
				to.Write(buf[:n])
			}
			if err != nil {
				done <- struct{}{}
				return
			}
		}
	}
	go copy(back, c)
	go copy(c, back)
	<-done
	c.Close()
	back.Close()
	<-done
}
