//go:build !embedagents

package agents

import "io"

func embedded(string) (string, func() (io.ReadCloser, error), bool) { return "", nil, false }
