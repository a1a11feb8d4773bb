package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/hbohlen/deployer/plugins/proto"
)

// process is one process of a plugin and the connection to it. It is never
// repaired: after a crash there is a new one.
type process struct {
	broker *plugin.GRPCBroker
	conn   *grpc.ClientConn
	stderr *tail
	end    func(now bool) // returns when it is gone; now does not ask it to leave first
}

func connect(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &process{broker: broker, conn: conn}, nil
}

// start is a process that answered the handshake, or why there is none.
func start(ctx context.Context, spec Spec, logger *zap.Logger) (*process, error) {
	path, err := trusted(spec)
	if err != nil {
		return nil, err
	}
	spec.Path = path
	dir, err := socketDir(spec.RunDir)
	if err != nil {
		return nil, err
	}
	life, kill := context.WithCancel(context.Background())
	defer context.AfterFunc(ctx, kill)()
	words := &tail{}
	client := plugin.NewClient(clientConfig(life, spec, dir, words, logger))
	end := func(now bool) {
		if now {
			kill()
		}
		defer time.AfterFunc(4*time.Second, kill).Stop() // a stopped process answers nothing, not even this
		client.Kill()
		kill()
		_ = os.RemoveAll(dir)
	}
	proc, err := dispensed(client)
	if err != nil {
		end(true)
		return nil, notStarted(ctx, spec, err, words)
	}
	proc.stderr, proc.end = words, end
	return proc, nil
}

func dispensed(client *plugin.Client) (*process, error) {
	connection, err := client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := connection.Dispense(proto.Set)
	if err != nil {
		return nil, err
	}
	return raw.(*process), nil
}

func clientConfig(life context.Context, spec Spec, dir string, words *tail, logger *zap.Logger) *plugin.ClientConfig {
	sum, _ := hex.DecodeString(spec.SHA256) // an invalid one matches nothing
	return &plugin.ClientConfig{
		HandshakeConfig:     proto.Handshake,
		VersionedPlugins:    map[int]plugin.PluginSet{proto.Version: {proto.Set: &proto.Entry{Connect: connect}}},
		Cmd:                 command(life, spec, dir),
		SecureConfig:        &plugin.SecureConfig{Checksum: sum, Hash: sha256.New()}, // Check does not reset the hash: a new one each time
		AllowedProtocols:    []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:            true,
		SkipHostEnv:         true, // else all of ours is added to Cmd.Env, tokens too
		GRPCBrokerMultiplex: true, // what makes a quiet plugin notice that we are gone
		StartTimeout:        limits.start,
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

func notStarted(ctx context.Context, spec Spec, err error, words *tail) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e := unpinned(spec); e != nil {
		return e
	}
	e := &Error{Plugin: spec.Name, Code: "start"}
	first, _, _ := strings.Cut(err.Error(), "\n")
	if strings.HasPrefix(first, "Unrecognized remote plugin message") || strings.Contains(first, "exited before") {
		first = "it does not speak deployer's plugin protocol, or ended at once"
		e.Hint = []string{"is it a plugin for deployer, built for this machine? file " + spec.Path}
	}
	e.Message = "cannot start " + spec.Path + ": " + first + words.lastWords()
	return e
}

// socketDir is a private folder for one process's sockets.
func socketDir(runDir string) (string, error) {
	const longest = 107 - len("/p-0000000000/plugin0000000000") // sun_path, less its end
	if len(runDir) > longest {
		runDir = ""
	}
	return os.MkdirTemp(runDir, "p-")
}
