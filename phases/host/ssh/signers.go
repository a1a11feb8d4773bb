package ssh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"

	"github.com/melbahja/goph"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyring is every key that a login may be tried with. x/crypto tries only one
// method of a kind, so all of them have to be in one.
type keyring struct {
	signers []ssh.Signer
	locked  []string // encrypted key files that neither the agent nor anybody opens
	agent   io.Closer
	seen    map[string]bool
}

// gather collects in the order in which ssh tries: what the user named, the
// agent's, then the other files. A server gives up after about six.
func gather(t *target, c Config) *keyring {
	k := &keyring{seen: map[string]bool{}}
	held := k.dialAgent(t.agent)
	files, public := k.files(t, c, held)
	if c.Key != "" {
		k.addMatching(append(held, files...), publicOf(c.Key))
	}
	for _, s := range held {
		if !t.identitiesOnly || slices.ContainsFunc(public, func(p ssh.PublicKey) bool { return same(p, s.PublicKey()) }) {
			k.add(s)
		}
	}
	for _, s := range files {
		k.add(s)
	}
	k.addCertificates(t)
	return k
}

func (k *keyring) dialAgent(socket string) []ssh.Signer {
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		conn.Close()
		return nil
	}
	k.agent = conn
	return signers
}

// files opens the identity files, and returns the public halves of all of them.
// One that the agent holds too is left closed: it may be encrypted.
func (k *keyring) files(t *target, c Config, held []ssh.Signer) (signers []ssh.Signer, public []ssh.PublicKey) {
	for _, file := range t.identities {
		pub := publicOf(file)
		if pub != nil {
			public = append(public, pub)
		}
		if pub != nil && slices.ContainsFunc(held, func(s ssh.Signer) bool { return same(s.PublicKey(), pub) }) {
			continue
		}
		signer, err := open(file, c)
		var missing *ssh.PassphraseMissingError
		if errors.As(err, &missing) {
			k.locked = append(k.locked, file)
		}
		if err == nil {
			signers = append(signers, signer)
		}
	}
	return signers, public
}

func open(file string, c Config) (ssh.Signer, error) {
	signer, err := goph.GetSigner(file, "")
	var missing *ssh.PassphraseMissingError
	if c.Passphrase == nil || !errors.As(err, &missing) {
		return signer, err
	}
	phrase, err := c.Passphrase(file)
	if err != nil {
		return nil, err
	}
	return goph.GetSigner(file, phrase)
}

// publicOf is an identity file's public half: from beside it, or from itself.
func publicOf(file string) ssh.PublicKey {
	if text, err := os.ReadFile(file + ".pub"); err == nil {
		if pub, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
			return pub
		}
	}
	signer, err := goph.GetSigner(file, "")
	var missing *ssh.PassphraseMissingError
	switch {
	case err == nil:
		return signer.PublicKey()
	case errors.As(err, &missing):
		return missing.PublicKey
	}
	return nil
}

// addCertificates puts what certificates allow before the bare keys.
func (k *keyring) addCertificates(t *target) {
	var certified []ssh.Signer
	for _, file := range append(suffixed(t.identities), t.certificates...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pub, _, _, _, _ := ssh.ParseAuthorizedKey(text)
		cert, ok := pub.(*ssh.Certificate)
		if !ok {
			continue
		}
		for _, s := range k.signers {
			if signer, err := ssh.NewCertSigner(cert, s); err == nil {
				certified = append(certified, signer)
				break
			}
		}
	}
	k.signers = append(certified, k.signers...)
}

func suffixed(files []string) []string {
	var out []string
	for _, f := range files {
		out = append(out, f+"-cert.pub")
	}
	return out
}

func (k *keyring) addMatching(from []ssh.Signer, pub ssh.PublicKey) {
	for _, s := range from {
		if pub != nil && same(s.PublicKey(), pub) {
			k.add(s)
		}
	}
}

func (k *keyring) add(s ssh.Signer) {
	id := string(s.PublicKey().Marshal())
	if !k.seen[id] {
		k.seen[id] = true
		k.signers = append(k.signers, s)
	}
}

func same(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

func (k *keyring) close() {
	if k.agent != nil {
		k.agent.Close()
	}
}
