package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/hbohlen/deployer/cmd/internal/agents"
	"github.com/hbohlen/deployer/phases"
	"github.com/hbohlen/deployer/phases/host"
	"github.com/hbohlen/deployer/phases/host/local"
	"github.com/hbohlen/deployer/phases/host/ssh"
	"github.com/hbohlen/deployer/phases/nix"
	"github.com/hbohlen/deployer/runbooks"
	"github.com/hbohlen/deployer/state"
)

// tools wires the real world.
func (a *app) tools(ctx context.Context, p *runbooks.Project) (phases.Tools, error) {
	controller, err := local.New(ctx, "controller")
	if err != nil {
		return phases.Tools{}, err
	}
	return phases.Tools{
		Dial:       a.dial,
		Controller: controller,
		Nix:        &nix.Nix{Host: controller, Dir: p.Dir, Log: a.nixLog()},
		Agents:     agents.Embedded{},
		Log:        zap.NewNop(),
		Now:        time.Now,
		Owner:      owner(),
		Version:    Version,
	}, nil
}

// nixLog shows Nix's own output with -v.
func (a *app) nixLog() io.Writer {
	if a.verbose > 0 {
		return a.Err
	}
	return nil
}

// dial reaches a host; "local" is this machine.
func (a *app) dial(ctx context.Context, h *runbooks.Host) (host.Host, error) {
	if h.Address == "local" {
		return local.New(ctx, h.Name)
	}
	return ssh.Dial(ctx, ssh.Config{Name: h.Name, Address: h.Address, User: h.User, Port: h.Port, Key: h.Key, AcceptNew: a.acceptNew})
}

// logger writes everything to the run's log as JSON, and to stderr with -v.
func (a *app) logger(dir *state.RunDir) (*zap.Logger, func(), error) {
	f, err := os.OpenFile(dir.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the run's log: %w", err)
	}
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cores := []zapcore.Core{zapcore.NewCore(zapcore.NewJSONEncoder(conf), zapcore.AddSync(f), zapcore.DebugLevel)}
	if a.verbose > 0 {
		level := zapcore.InfoLevel
		if a.verbose > 1 {
			level = zapcore.DebugLevel
		}
		cores = append(cores, zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.Lock(zapcore.AddSync(os.Stderr)), level))
	}
	log := zap.New(zapcore.NewTee(cores...))
	return log, func() { _ = log.Sync(); _ = f.Close() }, nil
}

// logSink puts every event into the log too.
type logSink struct{ log *zap.Logger }

// Event implements phases.Sink.
func (l logSink) Event(rec state.Record) {
	fields := []zap.Field{zap.String("run", rec.Run), zap.String("host", rec.Host), zap.String("step", rec.Step), zap.String("reason", rec.Reason)}
	if rec.Kind == state.StepProgress {
		l.log.Debug(string(rec.Kind), append(fields, zap.String("text", rec.Text))...)
		return
	}
	l.log.Info(string(rec.Kind), append(fields, zap.String("text", rec.Text), zap.Float64("elapsed", rec.Elapsed))...)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return b
}
