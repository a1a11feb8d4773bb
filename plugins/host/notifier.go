package host

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/hbohlen/deployer/plugins/proto/deployer/plugin/v1"
)

type notifier struct{ p *Plugin }

func (n notifier) Notify(ctx context.Context, event Event) (Delivery, error) {
	var got Delivery
	req := &pluginv1.NotifyRequest{Event: event.wire()}
	err := n.p.call(ctx, "notify", within(n.p.limits.notify, func(ctx context.Context, l *link) error {
		resp, err := pluginv1.NewNotifierClient(l.conn).Notify(ctx, req)
		got = Delivery{Key: resp.GetDelivery().GetKey(), Detail: resp.GetDelivery().GetDetail()}
		return err
	}))
	return got, err
}

func (e Event) wire() *pluginv1.Event {
	to := &pluginv1.Event{
		Id: e.ID, Run: e.Run, Host: e.Host, Runbook: e.Runbook, Phase: e.Phase, Kind: e.Kind, Severity: e.Severity,
		Time: timestamppb.New(e.Time), Title: e.Title, Text: e.Text, Fields: e.Fields,
	}
	for _, link := range e.Links {
		to.Links = append(to.Links, &pluginv1.Link{Title: link.Title, Url: link.URL})
	}
	if e.ExitCode != nil {
		code := int32(*e.ExitCode)
		to.ExitCode = &code
	}
	return to
}
