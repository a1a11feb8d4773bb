package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/hbohlen/deployer/phases/host"
)

// site is a folder with keys, known_hosts, an ssh configuration and what else
// a test's sshd needs.
type site struct {
	t     testing.TB
	dir   string
	rsa   ssh.Signer // host keys
	ed    ssh.Signer
	login string // private key file of the login
	log   string
	shell string // of both users that this sshd knows: root and dana
	rule  string // what sudo allows dana
	usr   string // instead of /usr, for its sshd; empty: the machine's own
	ip    string // of this site's servers
	space string // their network namespace; empty: the machine's
}

// missing skips, or fails where nothing may be skipped.
func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("DEPLOYER_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func newSite(t testing.TB) *site {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		missing(t, "needs /usr/sbin/sshd (apt install openssh-server)")
	}
	if os.Getuid() != 0 {
		missing(t, "needs root: sshd cannot log anybody in otherwise")
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		missing(t, "needs mount namespaces: unshare -m: "+string(out))
	}
	s := &site{t: t, dir: t.TempDir(), shell: "/bin/sh", rule: "dana ALL=(root) NOPASSWD: ALL", ip: "127.0.0.1"}
	os.Chmod(s.dir, 0o755) // dana's keys are here too
	os.Chmod(filepath.Dir(s.dir), 0o755)
	s.rsa, s.ed = s.key("host_rsa", true), s.key("host_ed25519", false)
	s.key("id", false)
	s.login, s.log = s.path("id"), s.path("log")
	s.authorize("id")
	s.write("config", "")
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) key(name string, useRSA bool) ssh.Signer {
	s.t.Helper()
	var private any
	if useRSA {
		private, _ = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		_, private, _ = ed25519.GenerateKey(rand.Reader)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name, string(pem.EncodeToMemory(block)))
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name+".pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return signer
}

func (s *site) authorize(key string) {
	pub, err := os.ReadFile(s.path(key + ".pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("authorized_keys", string(pub))
	os.Chmod(s.path("authorized_keys"), 0o644)
}

// sshd starts a server and returns its port. Extra lines come first, so they win.
func (s *site) sshd(extra ...string) int {
	s.t.Helper()
	port, _ := s.master(extra...)
	return port
}

// master is sshd for tests that end it themselves.
func (s *site) master(extra ...string) (int, *os.Process) {
	s.t.Helper()
	port := freePort(s.t)
	config := strings.Join(append(extra,
		fmt.Sprintf("Port %d", port), "ListenAddress "+s.ip, "PidFile none", "UsePAM no", "StrictModes no",
		"HostKey "+s.path("host_rsa"), "HostKey "+s.path("host_ed25519"), "PermitRootLogin yes",
		"PasswordAuthentication no", "AuthorizedKeysFile "+s.path("authorized_keys"), "MaxStartups 100",
		"Subsystem sftp internal-sftp"), "\n")
	name := fmt.Sprintf("sshd_%d", port)
	s.write(name, config+"\n")
	os.MkdirAll("/run/sshd", 0o755)
	s.users()
	args := []string{"unshare", "-m", "/bin/sh", "-c", private, s.dir, s.path(name), s.log, s.usr}
	if s.space != "" {
		args = append([]string{"ip", "netns", "exec", s.space}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	s.serve(port, cmd)
	return port, cmd.Process
}

// private lets sshd see users and a sudo rule of its own, which nobody else does.
const private = `set -e
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/shadow" /etc/shadow
[ -z "$3" ] || mount --bind "$3" /usr
[ ! -e /etc/sudoers ] || mount --bind "$0/sudoers" /etc/sudoers
exec /usr/sbin/sshd -D -E "$2" -f "$1"`

func (s *site) users() {
	s.write("passwd", fmt.Sprintf("root:x:0:0::%s:%s\ndana:x:4242:4242::%[1]s:%[2]s\nsshd:x:100:65534::/run/sshd:/bin/false\n", s.dir, s.shell))
	s.write("shadow", "root:*:19000:0:99999:7:::\ndana:*:19000:0:99999:7:::\n")
	s.write("sudoers", "root ALL=(ALL:ALL) ALL\n"+s.rule+"\n")
	os.Chmod(s.path("passwd"), 0o644)
	os.Chmod(s.path("sudoers"), 0o440)
}

func (s *site) serve(port int, cmd *exec.Cmd) {
	s.t.Helper()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if log, _ := os.ReadFile(s.log); s.t.Failed() && testing.Verbose() {
			s.t.Logf("sshd says:\n%s", log)
		}
	})
	for range 100 {
		if c, err := net.Dial("tcp", s.at(port)); err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(s.log)
	s.t.Fatalf("sshd does not start: %s", log)
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *site) at(port int) string { return fmt.Sprintf("%s:%d", s.ip, port) }

// know writes known_hosts.
func (s *site) know(port int, keys ...ssh.Signer) {
	var lines strings.Builder
	for _, k := range keys {
		lines.WriteString(knownhosts.Line([]string{s.at(port)}, k.PublicKey()) + "\n")
	}
	s.write("known_hosts", lines.String())
}

func (s *site) config(port int) Config {
	return Config{Name: "web1", Address: s.ip, User: "root", Port: port, Key: s.login,
		ConfigFile: s.path("config"), KnownHosts: s.path("known_hosts")}
}

func (s *site) dial(c Config) *Host {
	s.t.Helper()
	h, err := Dial(s.context(), c)
	if err != nil {
		s.t.Fatalf("%v %+v", err, hints(err))
	}
	s.t.Cleanup(func() { h.Close() })
	return h
}

// up is a server that everybody knows.
func (s *site) up(extra ...string) Config {
	port := s.sshd(extra...)
	s.know(port, s.ed)
	return s.config(port)
}

func run(t testing.TB, h host.Host, args ...string) string {
	t.Helper()
	res, err := h.Run(t.Context(), host.Command{Args: args})
	if err != nil || res.Code != 0 {
		t.Fatalf("%q: %+v, %v", args, res, err)
	}
	return strings.TrimSpace(string(res.Stdout))
}
