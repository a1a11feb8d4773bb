package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/proto"
	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

// link is one process and the connection to it. It is never repaired: after a
// crash there is a new one.
type link struct {
	broker *plugin.GRPCBroker
	conn   *grpc.ClientConn
	stderr *tail
	end    func() // asks it to leave, then ends it; returns when it is gone
	kill   func() // ends it and what it started, at once
}

// entry is this side of go-plugin's plugin set: it only picks up the connection.
type entry struct{ plugin.NetRPCUnsupportedPlugin }

func (entry) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("internal error: core serves no plugins")
}

func (entry) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &link{broker: broker, conn: conn}, nil
}

// started is a process that answered the handshake, or why there is none.
func started(ctx context.Context, spec Spec, logger *zap.Logger, limit time.Duration) (*link, error) {
	dir, err := socketDir(spec.RunDir)
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for its sockets: %w", err)
	}
	life, kill := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, kill)
	defer stop()
	words := &tail{}
	client := plugin.NewClient(clientConfig(life, spec, dir, words, logger, limit))
	l, err := dispensed(client)
	if err != nil {
		kill()
		client.Kill()
		os.RemoveAll(dir)
		return nil, notStarted(ctx, spec, err, words)
	}
	l.stderr, l.kill = words, kill
	l.end = func() {
		timer := time.AfterFunc(4*time.Second, kill) // a stopped process answers nothing, not even this
		defer timer.Stop()
		client.Kill()
		kill()
		os.RemoveAll(dir)
	}
	return l, nil
}

func dispensed(client *plugin.Client) (*link, error) {
	connection, err := client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := connection.Dispense(proto.Set)
	if err != nil {
		return nil, err
	}
	return raw.(*link), nil
}

func clientConfig(life context.Context, spec Spec, dir string, words *tail, logger *zap.Logger, limit time.Duration) *plugin.ClientConfig {
	sum, _ := hex.DecodeString(spec.SHA256) // an invalid one matches nothing
	return &plugin.ClientConfig{
		HandshakeConfig:     plugin.HandshakeConfig{MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue},
		VersionedPlugins:    map[int]plugin.PluginSet{proto.Version: {proto.Set: entry{}}},
		Cmd:                 command(life, spec, dir),
		SecureConfig:        &plugin.SecureConfig{Checksum: sum, Hash: sha256.New()}, // Check does not reset the hash: a new one each time
		AllowedProtocols:    []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:            true,
		SkipHostEnv:         true, // else all of ours is added to Cmd.Env, tokens too
		GRPCBrokerMultiplex: true, // what makes a quiet plugin notice that we are gone
		StartTimeout:        limit,
		UnixSocketConfig:    &plugin.UnixSocketConfig{TempDir: dir},
		SyncStderr:          words, // what it prints; its log and its panics come by Stderr
		Stderr:              words,
		Logger:              newLogger(logger, spec.Name),
	}
}

// command runs in a process group of its own: Ctrl-C at the terminal is for
// deployer alone, and kill takes along what the plugin started.
func command(life context.Context, spec Spec, dir string) *exec.Cmd {
	cmd := exec.CommandContext(life, spec.Path, spec.Args...)
	cmd.Env = []string{"TMPDIR=" + dir, plugin.EnvUnixSocketDir + "=" + dir}
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// alive tells a process that is gone from one that answered with an error.
func (l *link) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := pluginv1.NewPluginClient(l.conn).Health(ctx, &pluginv1.HealthRequest{})
	return err == nil || !gone(err)
}

func notStarted(ctx context.Context, spec Spec, err error, words *tail) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &Error{Plugin: spec.Name, Code: "start", Err: err}
	first, _, _ := strings.Cut(err.Error(), "\n")
	switch {
	case errors.Is(err, plugin.ErrChecksumsDoNotMatch):
		e.Code, e.Message = "digest", spec.Path+" was changed while it was being started"
	case strings.HasPrefix(first, "Unrecognized remote plugin message"), strings.Contains(first, "exited before"):
		e.Message = spec.Path + " does not speak deployer's plugin protocol, or ended at once" + said(words)
		e.Hint = []string{"is it a plugin for deployer, built for this machine? file " + spec.Path}
	case strings.HasPrefix(first, "timeout"):
		e.Message = spec.Path + " started, but did not answer in time" + said(words)
	default:
		e.Message = fmt.Sprintf("cannot start %s: %s", spec.Path, first)
	}
	return e
}

// said is what a plugin printed last, as the end of a sentence.
func said(words *tail) string {
	if last := words.last(); last != "" {
		return fmt.Sprintf("; its last words: %q", last)
	}
	return ""
}

// socketDir is a private folder for one process's sockets. Its name holds our
// process id: what a killed deployer left is swept by the next one.
func socketDir(runDir string) (string, error) {
	const longest = 107 - len("/p-0000000-0000000000/plugin0000000000") // sun_path, less its end
	if runDir == "" || len(runDir) > longest {
		return os.MkdirTemp("", "deployer-plugin-")
	}
	sweep(runDir)
	return os.MkdirTemp(runDir, fmt.Sprintf("p-%d-", os.Getpid()))
}

func sweep(runDir string) {
	left, _ := filepath.Glob(filepath.Join(runDir, "p-*-*"))
	for _, dir := range left {
		var pid int
		if n, _ := fmt.Sscanf(filepath.Base(dir), "p-%d-", &pid); n != 1 {
			continue
		}
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			os.RemoveAll(dir)
		}
	}
}
