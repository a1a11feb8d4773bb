package proto_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/hbohlen/deployer/plugins/proto"
)

func TestAnErrorKeepsCodeAndHints(t *testing.T) {
	inner := &proto.Error{Code: "no-space", Message: "no space left", Hint: []string{"one", "two"}}
	for _, err := range []error{inner, fmt.Errorf("cannot: %w", inner)} {
		got := proto.ErrorOf(status.Convert(err).Err())
		if got.Code != inner.Code || !slices.Equal(got.Hint, inner.Hint) || got.Message != err.Error() {
			t.Errorf("%#v", got)
		}
	}
	if got := proto.ErrorOf(errors.New("plain")); got.Code != "failed" || got.Message != "plain" || got.Hint != nil {
		t.Errorf("%#v", got)
	}
}
