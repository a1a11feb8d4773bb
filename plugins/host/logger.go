package host

import (
	"io"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// sink hands to zap what go-plugin and the plugin log through hclog.
type sink struct{ to *zap.Logger }

func newLogger(to *zap.Logger, name string) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Trace, Output: io.Discard})
	logger.RegisterSink(sink{to.Named(name)})
	return logger
}

// Accept is called by hclog with one line. Its name is that of a file, which
// for shipped plugins says nothing.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	entry := s.to.Check(zapLevel(level), msg)
	if entry == nil {
		return
	}
	fields := make([]zap.Field, 0, len(args)/2+1)
	for ; len(args) >= 2; args = args[2:] {
		key, ok := args[0].(string)
		if !ok {
			key = "extra"
		}
		fields = append(fields, zap.Any(key, args[1]))
	}
	if len(args) == 1 {
		fields = append(fields, zap.Any("extra", args[0]))
	}
	entry.Write(fields...)
}

func zapLevel(level hclog.Level) zapcore.Level {
	switch level {
	case hclog.Info:
		return zapcore.InfoLevel
	case hclog.Warn:
		return zapcore.WarnLevel
	case hclog.Error:
		return zapcore.ErrorLevel
	default:
		return zapcore.DebugLevel
	}
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
	if over := len(t.data) - 16<<10; over > 0 {
		t.data = t.data[over:]
	}
	return len(p), nil
}

// last is the line that says most: that of a panic, else the last one that is
// no log line.
func (t *tail) last() (line string) {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := range strings.Lines(string(t.data)) {
		at = strings.TrimSpace(at)
		if strings.HasPrefix(at, "panic: ") || strings.HasPrefix(at, "fatal error: ") {
			return at
		}
		if at != "" && !strings.HasPrefix(at, "{") {
			line = at
		}
	}
	return line
}
