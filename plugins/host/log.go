package host

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// sink hands to zap what go-plugin and the plugin log through hclog.
type sink struct{ to *zap.SugaredLogger }

func newLogger(to *zap.Logger, name string) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Trace, Output: io.Discard})
	logger.RegisterSink(sink{to.Named(name).Sugar()})
	return logger
}

// Accept is called by hclog with one line. Its name is that of a file, which
// for shipped plugins says nothing.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	s.to.Logw(zapcore.Level(max(level-hclog.Info, hclog.Debug-hclog.Info)), msg, args...)
}

// tail keeps the end of what a plugin printed on its standard error.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-16<<10):]
	return len(p), nil
}

// lastWords is the line that says most, as the end of a sentence: that of a
// panic, else the last one that is no log line.
func (t *tail) lastWords() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(t.data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			last = line
			break
		}
		if line != "" && !strings.HasPrefix(line, "{") {
			last = line
		}
	}
	if last == "" {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", last)
}
