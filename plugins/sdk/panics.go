package sdk

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func unaryPanics(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer recovered(info.FullMethod, &err)
	return next(ctx, req)
}

func streamPanics(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer recovered(info.FullMethod, &err)
	return next(srv, stream)
}

// recovered turns a panic into the call's error and logs where it came from.
func recovered(method string, err *error) {
	value := recover()
	if value == nil {
		return
	}
	hclog.Default().Error("panic", "method", method, "value", fmt.Sprint(value), "stack", string(debug.Stack()))
	*err = status.Errorf(codes.Internal, "panic: %v", value)
}
