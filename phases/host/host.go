package host

import (
	"context"
	"io"
)

// Command is one command on a host. Its arguments reach the program as they
// are written here: no shell splits, expands or glues them.
type Command struct {
	Args       []string
	Env        []string  // KEY=VALUE, added to what the login has
	Dir        string    // working directory; empty: the login's
	Stdin      io.Reader // nil: empty
	Stderr     io.Writer // nil: collected in Result.Stderr
	Privileged bool      // run as root: through `sudo -n` unless the login is root
}

// Result is how a command ended. A command that ran and failed is a Result
// with a Code, not an error.
type Result struct {
	Code   int    // exit status; 128+n when a signal ended it
	Signal string // name without SIG, empty when it exited by itself
	Stdout []byte // what was printed, cut to the last 1 MiB
	Stderr []byte
}

// Runner runs commands to their end. An error means that the command could not
// be started, or that nobody knows how it ended (see Error).
type Runner interface {
	Run(ctx context.Context, cmd Command) (Result, error)
}

// Process is a command that was started with its streams left open. The end of
// its context ends it, with what it started.
type Process interface {
	io.Writer              // its standard input
	CloseWrite() error     // end of its standard input
	io.Reader              // its standard output
	Wait() (Result, error) // until it ends; Result.Stderr holds the last lines
}

// Host is one machine, reached by one connection.
type Host interface {
	Runner
	// Name is the host's name in deployer.yaml.
	Name() string
	// Start begins a command and returns at once.
	Start(ctx context.Context, cmd Command) (Process, error)
	// Fresh reaches the same host again over a new connection and a new login.
	Fresh(ctx context.Context) (Host, error)
	// Lost is closed when the connection is gone, for whatever reason.
	Lost() <-chan struct{}
	// Login tells who is logged in: the user's name, and whether that is root.
	Login() (user string, root bool)
	Close() error
}

// Kind says why a host could not be reached, or a command's end not be learned.
// They call for different answers, so callers branch on them.
type Kind string

// The outcomes of trying to reach a host.
const (
	Refused Kind = "refused"  // something answered: no
	Timeout Kind = "timeout"  // nothing answered
	Denied  Kind = "denied"   // reached, but the login was not accepted (OpenSSH punishes repeats: do not try again)
	HostKey Kind = "host-key" // reached, but it is not the host that known_hosts knows
	Lost    Kind = "lost"     // the connection went away in the middle: the command's outcome is not known
	NoSudo  Kind = "no-sudo"  // sudo wants a password or does not allow the command
	Unknown Kind = "unknown"  // the name does not resolve, the configuration is wrong, …
)

// Error is the one error type that connections and commands return.
type Error struct {
	Kind Kind
	Host string   // name in deployer.yaml
	Addr string   // address:port that was tried
	Err  error    // cause
	Hint []string // commands that mend it or facts, one a line
}

func (e *Error) Error() string {
	where := e.Host
	if e.Addr != "" && e.Addr != e.Host {
		where += " (" + e.Addr + ")"
	}
	why := string(e.Kind)
	if e.Err != nil {
		why = e.Err.Error()
	}
	return e.Kind.what() + " " + where + ": " + why
}

// what could not be done; the name of the host follows.
func (k Kind) what() string {
	switch k {
	case Lost:
		return "lost contact with"
	case NoSudo:
		return "cannot become root on"
	}
	return "cannot reach"
}

func (e *Error) Unwrap() error { return e.Err }
