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
}

// gather collects in the order in which ssh tries: what the user named, the
// agent's, then the other files. A server gives up after about six.
func gather(t *target, c Config) *keyring {
	k := &keyring{}
	held := k.dialAgent(t.agent)
	files, public := k.files(t, held)
	if c.Key != "" {
		if named := publicOf(c.Key); named != nil {
			k.add(append(slices.Clone(held), files...), []ssh.PublicKey{named})
		}
	}
	if !t.identitiesOnly {
		public = nil
	} else if public == nil {
		held = nil
	}
	k.add(held, public)
	k.add(files, nil)
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
func (k *keyring) files(t *target, held []ssh.Signer) (signers []ssh.Signer, public []ssh.PublicKey) {
	for _, file := range t.identities {
		pub := publicOf(file)
		if pub != nil {
			public = append(public, pub)
		}
		if pub != nil && slices.ContainsFunc(held, func(s ssh.Signer) bool { return same(pub)(s.PublicKey()) }) {
			continue
		}
		signer, err := goph.GetSigner(file, "")
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
	files := slices.Clone(t.certificates)
	for _, f := range t.identities {
		files = append(files, f+"-cert.pub")
	}
	for _, file := range files {
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

// add takes each key once, and if only is given no others.
func (k *keyring) add(from []ssh.Signer, only []ssh.PublicKey) {
	for _, s := range from {
		has := slices.ContainsFunc(k.signers, func(o ssh.Signer) bool { return same(s.PublicKey())(o.PublicKey()) })
		if !has && (only == nil || slices.ContainsFunc(only, same(s.PublicKey()))) {
			k.signers = append(k.signers, s)
		}
	}
}

func same(a ssh.PublicKey) func(ssh.PublicKey) bool {
	return func(b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
}

func (k *keyring) close() {
	if k.agent != nil {
		k.agent.Close()
	}
}
