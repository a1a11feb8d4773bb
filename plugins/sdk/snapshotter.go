package sdk

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

type snapshotter struct {
	pluginv1.UnsafeSnapshotterServer
	Snapshotter
}

type progress func(text string)

type progressKey struct{}

// Progress says that a Create is alive and what it does now. deployer ends one
// that is silent for too long while nothing that it asked for is under way.
func Progress(ctx context.Context, text string) {
	if send, ok := ctx.Value(progressKey{}).(progress); ok {
		send(text)
	}
}

func (s *snapshotter) Create(req *pluginv1.CreateRequest, stream grpc.ServerStreamingServer[pluginv1.CreateResponse]) error {
	var mu sync.Mutex // a stream takes one sender at a time
	send := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		message := &pluginv1.CreateResponse_Progress{Progress: &pluginv1.Progress{Text: text}}
		_ = stream.Send(&pluginv1.CreateResponse{Message: message}) // a broken stream ends the context
	}
	ctx := context.WithValue(stream.Context(), progressKey{}, progress(send))
	result, err := s.Snapshotter.Create(ctx, req)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return stream.Send(&pluginv1.CreateResponse{Message: &pluginv1.CreateResponse_Result{Result: result}})
}
