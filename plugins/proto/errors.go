package proto

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const domain = "deployer"

// Error is a failure that keeps its code and hints on its way through gRPC.
// Return it, or wrap it, from any method that is served.
type Error struct {
	Code    string   // for callers that branch: not-found, invalid, refused, failed, …
	Message string   // what could not be done
	Hint    []string // what to do next, one line each
}

func (e *Error) Error() string { return e.Message }

// GRPCStatus is how gRPC asks an error for its status.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(codes.FailedPrecondition, e.Message)
	info := &errdetails.ErrorInfo{Reason: e.Code, Domain: domain, Metadata: map[string]string{"hint": strings.Join(e.Hint, "\n")}}
	if with, err := st.WithDetails(info); err == nil {
		return with
	}
	return st
}

// ErrorOf is the failure that a call came back with, whoever wrote it.
func ErrorOf(err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: "failed", Message: st.Message()}
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != domain {
			continue
		}
		e.Code = info.GetReason()
		if hint := info.GetMetadata()["hint"]; hint != "" {
			e.Hint = strings.Split(hint, "\n")
		}
	}
	return e
}
