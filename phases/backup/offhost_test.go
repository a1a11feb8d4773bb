package backup

import (
	"testing"
	"time"

	"github.com/hbohlen/deployer/phases/agent"
)

func copyOf(source, uuid string, hour int, problem string) agent.Copy {
	at := time.Date(2026, 1, 2, hour, 0, 0, 0, time.UTC)
	return agent.Copy{Snapshot: agent.Snapshot{Source: source, UUID: uuid, Created: at, Path: "/s/" + at.Format("20060102T150405Z") + "-backup-x"}, Problem: problem}
}

func TestTheNewestCopyIsOneWithAllThatIsNestedInIt(t *testing.T) {
	c := Chain{Parents: []string{"1", "3"}, Copies: []agent.Copy{
		copyOf("/data", "1", 1, ""), copyOf("/data/in", "2", 1, ""), copyOf("/database", "3", 2, "changed"),
		copyOf("/data", "4", 2, ""), copyOf("/data", "5", 3, ""), copyOf("/data/in", "6", 3, "changed"),
	}}
	for subvolume, want := range map[string]string{"/data": "4", "/data/in": "2", "/database": "", "/": ""} {
		got := ""
		if last := c.newest(subvolume); last != nil {
			got = last.UUID
		}
		if got != want {
			t.Errorf("%s: %q, want %q", subvolume, got, want)
		}
	}
	if p := c.parent(agent.Snapshot{Source: "/data"}); p.UUID != "1" {
		t.Errorf("the parent is %q: both ends have 1 alone", p.UUID)
	}
	if p := c.parent(agent.Snapshot{Source: "/data", FSID: "another disk"}); p.UUID != "" {
		t.Errorf("a parent on another file system: %q", p.UUID)
	}
}
