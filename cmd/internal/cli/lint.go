package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hbohlen/deployer/phases/agent"
	"github.com/hbohlen/deployer/runbooks"
)

func (a *app) lintCmd() *cobra.Command {
	var set []string
	c := &cobra.Command{
		Use: "lint [RUNBOOK]", Short: "Check deployer.yaml and a runbook; contacts nothing", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeRunbooks,
		RunE: func(_ *cobra.Command, args []string) error {
			given, err := vars(set)
			if err != nil {
				return err
			}
			name := arg(args)
			if name == "" {
				name = "production"
			}
			p, rb, err := a.load(name, given)
			if err != nil {
				return err
			}
			if a.json {
				notes := []string{}
				for _, m := range p.Unbuilt(rb) {
					notes = append(notes, m.String())
				}
				a.JSONDoc(map[string]any{"project": p.File, "runbook": rb.File, "mistakes": []string{}, "notes": notes})
				return nil
			}
			for _, m := range p.Unbuilt(rb) {
				a.Printf("note: %s\n", m)
			}
			a.Printf("%s and %s: no mistakes\n", p.File, rb.File)
			return nil
		},
	}
	c.Flags().StringArrayVar(&set, "var", nil, "set a variable of the runbook, NAME=VALUE")
	return c
}

const starter = `# deployer.yaml: the hosts, and what all runbooks share. The field reference: deployer schema project
version: 1
flake: .                        # or a store path, or any command that prints one

hosts:
  staging:
    address: staging.example.net   # an ssh_config alias works too
    user: deploy                   # root-equivalent through one sudo rule
    system: staging                # nixosConfigurations.<system>
  production:
    address: production.example.net
    user: deploy
    system: production

# snapshots:                     # taken read-only before every switch; needs Btrfs
#   subvolumes:
#     /persist: keep

checks:
  disk: {disk: /, when: "used_percent < 90"}

# notify:
#   ops:
#     kind: webhook
#     url: {env: OPS_WEBHOOK}
#     sign: {env: OPS_KEY}
#     events: [run, rollback, alert]
`

func (a *app) initCmd() *cobra.Command {
	var runbook string
	var module bool
	c := &cobra.Command{
		Use: "init", Short: "Write a deployer.yaml to start from; overwrites nothing", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case module:
				return a.copyModule()
			case runbook != "":
				return a.copyRunbook(runbook)
			}
			if filepath.Ext(a.project) == ".yaml" {
				return a.create(filepath.Base(a.project), []byte(starter))
			}
			return a.create("deployer.yaml", []byte(starter))
		},
	}
	c.Flags().BoolVar(&module, "module", false, "write the NixOS module for hosts, "+runbooks.HostModuleFile+", and what it reads")
	c.Flags().StringVar(&runbook, "runbook", "", "write this shipped runbook to runbooks/, to change it")
	_ = c.RegisterFlagCompletionFunc("runbook", completeRunbooks)
	return c
}

func (a *app) copyModule() error {
	if err := a.create(runbooks.HostModuleFile, runbooks.HostModule); err != nil {
		return err
	}
	return a.create(runbooks.LauncherFile, []byte(agent.Launcher))
}

func (a *app) copyRunbook(name string) error {
	b, err := runbooks.ShippedFile(name)
	if err != nil {
		return usage(err)
	}
	return a.create(filepath.Join("runbooks", name+".yaml"), b)
}

// folder is the project's, which may not be there yet.
func (a *app) folder() string {
	if filepath.Ext(a.project) == ".yaml" {
		return filepath.Dir(a.project)
	}
	return a.project
}

func (a *app) create(name string, content []byte) error {
	path := filepath.Join(a.folder(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return usage(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return usage(fmt.Errorf("cannot write %s: %w", path, err))
	}
	if _, err := f.Write(content); err != nil {
		_ = f.Close()
		return err
	}
	a.Printf("wrote %s\n", path)
	return f.Close()
}

func (a *app) schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use: "schema project|runbook", Short: "Print the JSON Schema of deployer.yaml or of runbooks, for editors",
		Args: cobra.ExactArgs(1), ValidArgs: []string{"project", "runbook"},
		RunE: func(_ *cobra.Command, args []string) error {
			b := runbooks.Schema(args[0])
			if b == nil {
				return usage(fmt.Errorf("there is no schema %q: it is project or runbook", args[0]))
			}
			a.Verbatim(b)
			return nil
		},
	}
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				a.JSONDoc(map[string]string{"version": Version})
				return nil
			}
			a.Printf("deployer %s\n", Version)
			return nil
		},
	}
}

func (a *app) debugCmd() *cobra.Command {
	c := &cobra.Command{Use: "debug", Short: "Print parts that deployer puts on hosts"}
	c.AddCommand(&cobra.Command{
		Use: "launcher", Short: "Print the launcher that the deploy user's sudo rule names", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { a.Verbatim([]byte(agent.Launcher)); return nil },
	})
	return c
}

// agentCmd is the hidden verb under which this program is the agent on hosts.
func agentCmd() *cobra.Command {
	return &cobra.Command{
		Use: "agent", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := agent.Main(args); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}
