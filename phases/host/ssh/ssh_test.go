package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/hosttest"
)

func TestMain(m *testing.M) {
	os.Unsetenv("SSH_AUTH_SOCK")
	goleak.VerifyTestMain(m)
}

func (s *site) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

func hints(err error) []string {
	var e *host.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return nil
}

// refused checks the kind, and that the hints together hold a text.
func (s *site) refused(c Config, kind host.Kind, hint string) *host.Error {
	s.t.Helper()
	h, err := Dial(s.context(), c)
	if err == nil {
		h.Close()
		s.t.Fatal("it connected")
	}
	var e *host.Error
	if !errors.As(err, &e) || e.Kind != kind {
		s.t.Fatalf("error is %#v, want kind %s", err, kind)
	}
	if !strings.Contains(strings.Join(e.Hint, "\n"), hint) {
		s.t.Errorf("hints %q do not hold %q", e.Hint, hint)
	}
	return e
}

func TestConformance(t *testing.T) {
	s := newSite(t)
	c := s.up()
	hosttest.Conformance(t, func() host.Host { return s.dial(c) })
}

// The wrapping must mean the same to every login shell.
func TestLoginShellsDoNotMatter(t *testing.T) {
	for _, shell := range []string{"bash", "dash", "fish", "zsh"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // those that are here will do
		}
		t.Run(shell, func(t *testing.T) {
			s := newSite(t)
			s.shell = path
			c := s.up()
			hosttest.Conformance(t, func() host.Host { return s.dial(c) })
		})
	}
}

func TestRefusedWhenNobodyListens(t *testing.T) {
	s := newSite(t)
	s.know(22)
	s.refused(s.config(freePort(t)), host.Refused, "")
}

func TestCancelEndsADial(t *testing.T) {
	s := newSite(t)
	s.know(22)
	c := s.config(listen(t, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := Dial(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownNameIsUnknown(t *testing.T) {
	s := newSite(t)
	s.know(22)
	c := s.config(22)
	c.Address = "no-such-host.invalid"
	s.refused(c, host.Unknown, "")
	c.Address = "-oProxyCommand=true"
	s.refused(c, host.Unknown, "")
}

func TestUnknownHostKeyIsRefused(t *testing.T) {
	s := newSite(t)
	c := s.config(s.sshd())
	s.know(1, s.ed)
	s.refused(c, host.HostKey, "ssh-keyscan -p")
	s.refused(c, host.HostKey, "--accept-new-host-keys") // as the command line has it
}

func TestChangedHostKeyIsRefused(t *testing.T) {
	s := newSite(t)
	port := s.sshd()
	s.know(port, s.key("other", false))
	for _, accept := range []bool{false, true} {
		c := s.config(port)
		c.AcceptNew = accept
		e := s.refused(c, host.HostKey, "ssh-keygen -R '[127.0.0.1]:")
		if !strings.Contains(e.Hint[0], "this may be an attack") {
			t.Errorf("first hint is %q", e.Hint[0])
		}
	}
}

func TestHostWithoutTheKnownKindIsRefused(t *testing.T) {
	s := newSite(t)
	port := s.sshd("HostKeyAlgorithms rsa-sha2-512")
	s.know(port, s.ed)
	s.refused(s.config(port), host.HostKey, "this may be an attack")
}

func TestRevokedHostKeyIsRefused(t *testing.T) {
	s := newSite(t)
	port := s.sshd()
	s.know(port, s.ed)
	known, _ := os.ReadFile(s.path("known_hosts"))
	s.write("known_hosts", "@revoked * "+string(ssh.MarshalAuthorizedKey(s.ed.PublicKey()))+string(known))
	s.refused(s.config(port), host.HostKey, "withdrawn")
}

func TestAcceptNewWritesTheKeyOnce(t *testing.T) {
	s := newSite(t)
	c := s.config(s.sshd())
	c.KnownHosts = s.path("new/known_hosts")
	c.AcceptNew = true
	s.dial(c)
	c.AcceptNew = false
	s.dial(c)
}

func TestAnyKnownKindOfHostKeyWillDo(t *testing.T) {
	s := newSite(t)
	port := s.sshd()
	for name, keys := range map[string][]ssh.Signer{"rsa": {s.rsa}, "ed25519": {s.ed}, "both": {s.ed, s.rsa}, "more": {s.key("old", false), s.ed}} {
		t.Run(name, func(t *testing.T) {
			s.know(port, keys...)
			s.dial(s.config(port))
		})
	}
	t.Run("hashed", func(t *testing.T) {
		line := knownhosts.Line([]string{s.at(port)}, s.rsa.PublicKey())
		_, key, _ := strings.Cut(line, " ")
		s.write("known_hosts", knownhosts.HashHostname(knownhosts.Normalize(s.at(port)))+" "+key+"\n")
		s.dial(s.config(port))
	})
}

func TestHostCertificateOfAKnownAuthority(t *testing.T) {
	s := newSite(t)
	ca := s.key("ca", false)
	keygen(t, "-s", s.path("ca"), "-I", "web1", "-h", "-n", "127.0.0.1", s.path("host_ed25519.pub"))
	port := s.sshd("HostCertificate " + s.path("host_ed25519-cert.pub"))
	authority := "@cert-authority * " + string(ssh.MarshalAuthorizedKey(ca.PublicKey()))
	s.write("known_hosts", strings.Replace(authority, "* ", "[127.0.0.1]:"+fmt.Sprint(port)+" ", 1))
	s.dial(s.config(port))
	s.know(port, s.ed) // the certificate is there, and only the bare key is known
	s.dial(s.config(port))
}

func keygen(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", append([]string{"-q"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %s", args, out)
	}
}

func TestDeniedIsTriedOnce(t *testing.T) {
	s := newSite(t)
	port := s.sshd()
	s.know(port, s.ed)
	s.key("stranger", false)
	var dials atomic.Int32
	front := listen(t, func(c net.Conn) { dials.Add(1); pipe(c, s.at(port), nil) })
	s.know(front, s.ed)
	c := s.config(front)
	c.Key = s.path("stranger")
	s.refused(c, host.Denied, "ssh-copy-id")
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestJumpHostsAreCheckedToo(t *testing.T) {
	s := newSite(t)
	jump, target := s.sshd(), s.sshd()
	alias := "Host jump\n HostName 127.0.0.1\n Port " + fmt.Sprint(jump) + "\n User root\n IdentityFile " + s.login +
		"\nHost inner\n HostName 127.0.0.1\n Port " + fmt.Sprint(target) + "\n User root\n IdentityFile " + s.login + "\n ProxyJump jump\n"
	s.write("config", alias)
	c := Config{Name: "web1", Address: "inner", ConfigFile: s.path("config"), KnownHosts: s.path("known_hosts")}
	s.know(target, s.ed)
	e := s.refused(c, host.HostKey, "ssh-keyscan")
	if e.Addr != s.at(jump) {
		t.Errorf("the error is about %s", e.Addr)
	}
	both := knownhosts.Line([]string{s.at(target), s.at(jump)}, s.ed.PublicKey())
	s.write("known_hosts", both+"\n")
	h := s.dial(c)
	if via := run(t, h, "sh", "-c", "echo $SSH_CONNECTION"); !strings.HasSuffix(via, fmt.Sprint(target)) {
		t.Errorf("arrived by %s", via)
	}
	h.Close()
	<-h.Lost()
	t.Run("Nix", func(t *testing.T) { openssh(t, c, s.dial(c)) })
}

// openssh checks that the ssh client with NixSSHOpts arrives where we do.
func openssh(t *testing.T, c Config, h *Host) {
	user, address, _ := strings.Cut(strings.TrimPrefix(h.NixStoreURL(), "ssh://"), "@")
	args := append(strings.Fields(strings.Join(h.NixSSHOpts(), " ")), user+"@"+strings.Trim(address, "[]"), "echo $SSH_CONNECTION")
	// The override of known_hosts does not reach ssh's own jump processes.
	text, _ := os.ReadFile(c.ConfigFile)
	os.WriteFile(c.ConfigFile, []byte(string(text)+"\nHost *\n UserKnownHostsFile "+c.KnownHosts+"\n"), 0o600)
	out, err := exec.Command("ssh", args...).CombinedOutput()
	if err != nil || strings.Fields(string(out))[3] != strings.Fields(run(t, h, "sh", "-c", "echo $SSH_CONNECTION"))[3] {
		t.Errorf("ssh %q: %s %v", args, out, err)
	}
}

func TestProxyCommandIsRefusedByName(t *testing.T) {
	s := newSite(t)
	s.write("config", "Host *\n ProxyCommand nc %h %p\n")
	s.know(22)
	s.refused(s.config(22), host.Unknown, "ProxyJump")
}

func TestWithoutAnSSHClient(t *testing.T) {
	s := newSite(t)
	c := s.up()
	t.Setenv("PATH", t.TempDir())
	s.dial(c)
}

func TestEncryptedKeyNeedsTheAgent(t *testing.T) {
	s := newSite(t)
	c := s.up()
	os.Remove(s.login)
	keygen(t, "-t", "ed25519", "-N", "secret", "-f", s.login+"2")
	os.Rename(s.login+"2", s.login)
	os.Rename(s.login+"2.pub", s.login+".pub")
	s.authorize("id")
	s.refused(c, host.Denied, "ssh-add "+s.login)
	t.Run("Agent", func(t *testing.T) { s.agent(); s.dial(c) })
}

// agent starts an ssh-agent that holds the login key.
func (s *site) agent() {
	sock := s.path("agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", sock)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s.t.Setenv("SSH_AUTH_SOCK", sock)
	s.write("askpass", "#!/bin/sh\necho secret\n")
	os.Chmod(s.path("askpass"), 0o700)
	for range 50 {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	add := exec.Command("ssh-add", s.login)
	add.Env = append(os.Environ(), "SSH_ASKPASS="+s.path("askpass"), "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:0")
	if out, err := add.CombinedOutput(); err != nil {
		s.t.Fatalf("ssh-add: %s", out)
	}
}

func TestUserCertificate(t *testing.T) {
	s := newSite(t)
	s.key("userca", false)
	keygen(t, "-s", s.path("userca"), "-I", "ana", "-n", "root", s.login+".pub")
	s.write("authorized_keys", "")
	s.dial(s.up("TrustedUserCAKeys " + s.path("userca.pub")))
}

func TestSecondKeyIsTriedToo(t *testing.T) {
	s := newSite(t)
	c := s.up()
	s.key("stranger", false)
	c.Key = s.path("stranger")
	s.write("config", "Host *\n IdentityFile "+s.login+"\n")
	s.dial(c)
}

func TestNoAgentForwarding(t *testing.T) {
	s := newSite(t)
	c := s.up()
	s.write("config", "Host *\n ForwardAgent yes\n")
	if got := run(t, s.dial(c), "sh", "-c", `echo "[$SSH_AUTH_SOCK]"`); got != "[]" {
		t.Errorf("the host sees %s", got)
	}
}

func TestChattyLoginShellIsRefused(t *testing.T) {
	s := newSite(t)
	s.refused(s.up(`ForceCommand echo welcome; eval "$SSH_ORIGINAL_COMMAND"`), host.Unknown, "bashrc")
}

func TestForcedCommandIsRefused(t *testing.T) {
	s := newSite(t)
	s.refused(s.up("ForceCommand echo go away; exit 1"), host.Unknown, "forced command")
}

func TestConnectionLostWhileRunning(t *testing.T) {
	s := newSite(t)
	h := s.dial(s.up())
	_, err := h.Run(s.context(), host.Command{Args: []string{"sh", "-c", "kill -9 $PPID"}})
	var e *host.Error
	if !errors.As(err, &e) || e.Kind != host.Lost {
		t.Errorf("got %v", err)
	}
	f, err := h.Fresh(s.context())
	if err != nil {
		t.Fatalf("not to be reached again: %v", err)
	}
	f.Close()
}
