package runbooks_test

import (
	"os"
	"strings"
	"testing"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

// TestModuleReadsTheLauncher: what lies beside the module is the agent's own.
func TestModuleReadsTheLauncher(t *testing.T) {
	is, err := os.ReadFile("modules/" + runbooks.LauncherFile)
	if err != nil || string(is) != agent.Launcher {
		t.Errorf("modules/%s is not phases/agent/launcher.sh: %v", runbooks.LauncherFile, err)
	}
	text := string(runbooks.HostModule)
	for _, want := range []string{"./" + runbooks.LauncherFile, `"` + agent.Dir + `"`, "deployer-resume = {"} {
		if !strings.Contains(text, want) {
			t.Errorf("the module has no %s", want)
		}
	}
}
