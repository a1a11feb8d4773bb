package host

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hbohlen/deployer/plugins/proto"
)

// Error is what a plugin could not do, or what was wrong with it.
type Error struct {
	Plugin  string
	Code    string // untrusted, digest, start, protocol, config, crashed, hung, closed; else the plugin's own
	Message string
	Hint    []string // what to do next, one line each
	Err     error    // the cause, may be nil
}

func (e *Error) Error() string { return "plugin " + e.Plugin + ": " + e.Message }

func (e *Error) Unwrap() error { return e.Err }

var (
	errSilent = errors.New("silent for too long")
	errLimit  = errors.New("no answer in time")
)

// failed is the error of a call. What the plugin itself said goes through as
// it is; what happened to the plugin is said here.
func (p *Plugin) failed(ctx context.Context, what string, err error, crashed bool) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	e := &Error{Plugin: p.spec.Name, Err: err}
	switch {
	case errors.Is(err, errLimit), errors.Is(err, errSilent):
		e.Code, e.Message = "hung", fmt.Sprintf("%s: %v; it was ended", what, err)
	case ctx.Err() != nil:
		return ctx.Err()
	case crashed:
		e.Code, e.Message = "crashed", what+": it ended twice in the middle of its work"+p.lastWords()
	case errors.Is(err, io.EOF):
		e.Code, e.Message = "protocol", what+": it ended without a result"
	case status.Code(err) == codes.Unimplemented:
		e.Code, e.Message = "protocol", what+": it advertises what it does not serve"
		e.Hint = []string{"ask its author for a version that speaks protocol 1"}
	default:
		said := proto.ErrorOf(err)
		e.Code, e.Message, e.Hint = said.Code, what+": "+said.Message, said.Hint
	}
	return e
}
