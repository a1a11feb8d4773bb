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

// Upload streams a file to the host; see put.sh for what happens there.
func (m *Machine) Upload(ctx context.Context, from io.Reader, path string, mode fs.FileMode) error {
	if strings.HasPrefix(path, "-") { // no option
		path = "./" + path
	}
	res, err := m.Run(ctx, host.Command{
		Args:  []string{"/bin/sh", "-c", putScript, "put", path, fmt.Sprintf("%04o", mode.Perm())},
		Stdin: &summed{from: from, hash: sha256.New()},
	})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if res.Code != 0 {
		return fmt.Errorf("cannot write %s on %s: %s", path, m.name, lastLine(res))
	}
	return nil
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
