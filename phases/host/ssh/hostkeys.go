package ssh

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/melbahja/goph"
	"golang.org/x/crypto/ed25519"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys checks the key of one hop.
type hostKeys struct {
	t         *target
	check     ssh.HostKeyCallback
	want      []knownhosts.KnownKey // what known_hosts has for this hop
	acceptNew bool
	problem   error // why the last key was refused
}

func newHostKeys(t *target, acceptNew bool) (*hostKeys, error) {
	var files []string
	for _, f := range append(append([]string(nil), t.userKnown...), t.globalKnown...) {
		if _, err := os.Stat(f); err == nil {
			files = append(files, f)
		}
	}
	check, err := knownhosts.New(files...)
	if err != nil {
		return nil, err
	}
	k := &hostKeys{t: t, check: check, acceptNew: acceptNew}
	return k, k.look()
}

// name makes a known_hosts address a net.Addr, as the callbacks want one.
type name string

func (name) Network() string  { return "tcp" }
func (n name) String() string { return string(n) }

// look asks for a key that nobody has, because the refusal lists the known ones.
func (k *hostKeys) look() error {
	nobody, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return err
	}
	var refused *knownhosts.KeyError
	if errors.As(k.check(k.t.known(), name(k.t.known()), nobody), &refused) {
		k.want = refused.Want
	}
	return nil
}

var certAlgorithms = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01, ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKECDSA256v01,
}

// algorithms asks the host for a key of a kind that is known: a host has keys
// of several kinds, and one that is not in known_hosts would look like an attack.
func (k *hostKeys) algorithms() []string {
	var certs, plain []string
	for _, w := range k.want {
		switch {
		case authority(w):
			certs = certAlgorithms
		case w.Key.Type() == ssh.KeyAlgoRSA:
			plain = append(plain, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			plain = append(plain, w.Key.Type())
		}
	}
	return append(append([]string(nil), certs...), plain...) // empty: all
}

// authority tells whether a known key stands for certificates; the line says
// so, and the parsed key does not.
func authority(w knownhosts.KnownKey) bool {
	f, err := os.Open(w.Filename)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if n == w.Line {
			return strings.HasPrefix(strings.TrimSpace(lines.Text()), "@cert-authority")
		}
	}
	return false
}

// callback is for ssh.ClientConfig.
func (k *hostKeys) callback(_ string, _ net.Addr, key ssh.PublicKey) error {
	err := k.check(k.t.known(), name(k.t.known()), key)
	var unknown *knownhosts.KeyError
	if k.acceptNew && errors.As(err, &unknown) && len(unknown.Want) == 0 {
		err = k.accept(key)
	}
	k.problem = err
	return err
}

func (k *hostKeys) accept(key ssh.PublicKey) error {
	if _, isCert := key.(*ssh.Certificate); isCert {
		return errors.New("its certificate is signed by nobody known")
	}
	if len(k.t.userKnown) == 0 {
		return errors.New("no known_hosts file to add the key to")
	}
	file := k.t.userKnown[0]
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return goph.AddKnownHost(k.t.known(), name(k.t.known()), key, file)
}

// explain says what a refused key means, and what to do.
func (k *hostKeys) explain(err error) (error, []string) {
	at, file := knownhosts.Normalize(k.t.known()), "known_hosts"
	if len(k.t.userKnown) > 0 {
		file = k.t.userKnown[0]
	}
	scan := fmt.Sprintf("ssh-keyscan -p %s %s >> %s", k.t.port, k.t.host, file)
	var revoked *knownhosts.RevokedError
	var mismatch *knownhosts.KeyError
	switch {
	case errors.As(err, &revoked):
		return fmt.Errorf("its host key is revoked by %s:%d", revoked.Revoked.Filename, revoked.Revoked.Line),
			[]string{"this may be an attack: somebody has a key that was withdrawn"}
	case errors.As(err, &mismatch) && len(mismatch.Want) == 0 && len(k.want) == 0:
		return errors.New("its host key is not known"),
			[]string{"# compare the fingerprint on the host's console, then:", scan, "# or add  --accept-new-host-keys  once"}
	}
	hints := []string{"# this may be an attack: ask whoever runs the host whether its key has changed; only then:"}
	for _, w := range k.want {
		hints = append(hints, fmt.Sprintf("ssh-keygen -R '%s' -f %s    # line %d, %s", at, w.Filename, w.Line, w.Key.Type()))
	}
	return fmt.Errorf("its host key is not the one in known_hosts: %w", err), append(hints, scan)
}
