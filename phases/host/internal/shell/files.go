package shell

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"

	"github.com/hbohlen/deployer/phases/host"
)

//go:embed put.sh
var putScript string

// missing is the exit code by which a download tells that there is no file.
const missing = 66

// Upload streams a file to the host; see put.sh for what happens there.
func (m *Machine) Upload(ctx context.Context, from io.Reader, path string, mode fs.FileMode) error {
	res, err := m.Run(ctx, host.Command{
		Args:  []string{"/bin/sh", "-c", putScript, "put", safe(path), fmt.Sprintf("%04o", mode.Perm())},
		Stdin: &summed{from: from, hash: sha256.New()},
	})
	return m.judge("write", path, res, err)
}

// Download streams a file from the host.
func (m *Machine) Download(ctx context.Context, path string, w io.Writer) error {
	const get = `[ -e "$1" ] || exit 66; exec cat "$1"`
	res, err := m.Run(ctx, host.Command{Args: []string{"/bin/sh", "-c", get, "get", safe(path)}, Stdout: w})
	return m.judge("read", path, res, err)
}

func (m *Machine) judge(verb, path string, res host.Result, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("cannot %s %s: %w", verb, path, err)
	case res.Code == missing:
		return fmt.Errorf("cannot %s %s on %s: %w", verb, path, m.name, fs.ErrNotExist)
	case res.Code != 0:
		return fmt.Errorf("cannot %s %s on %s: %s", verb, path, m.name, lastLine(res))
	}
	return nil
}

// safe keeps programs from reading a path as an option.
func safe(path string) string {
	if strings.HasPrefix(path, "-") {
		return "./" + path
	}
	return path
}

func lastLine(res host.Result) string {
	lines := bytes.Split(bytes.TrimSpace(res.Stderr), []byte("\n"))
	if last := string(lines[len(lines)-1]); last != "" {
		return last
	}
	return fmt.Sprintf("exit status %d", res.Code)
}

// summed is a reader that ends with the sha256 of what it read. If reading
// fails there is no sum, and so the host keeps the old file.
type summed struct {
	from io.Reader
	hash hash.Hash
	tail *strings.Reader
}

func (s *summed) Read(p []byte) (int, error) {
	if s.tail != nil {
		return s.tail.Read(p)
	}
	n, err := s.from.Read(p)
	s.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		s.tail = strings.NewReader(fmt.Sprintf("%x", s.hash.Sum(nil)))
		return n, nil
	}
	return n, err
}
