# Everything here runs as it is on a fresh Debian 12 with Go, as root: what is
# missing is installed by `make tools`, which says so.
SHELL    := /bin/bash
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
AGENTS   := cmd/internal/agents/bin
LDFLAGS  := -s -w -X github.com/hbohlen/deployer/cmd/internal/cli.Version=$(VERSION)
GOBIN    := $(shell go env GOPATH)/bin
LINT     := v2.15.0

.PHONY: all bin/deployer bin/lab agents tools lint unit race cli btrfs lab vm test demo bench soak clean

all: bin/deployer bin/lab

bin/deployer: agents
	CGO_ENABLED=0 go build -trimpath -tags embedagents -ldflags '$(LDFLAGS)' -o $@ ./cmd/deployer

bin/lab:
	CGO_ENABLED=0 go build -trimpath -o $@ ./cmd/lab

# The small static agent for both machines, compressed, with its digest.
agents:
	@mkdir -p $(AGENTS)
	@for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOARCH=$$arch go build -trimpath -buildvcs=false -ldflags '-s -w' -o $(AGENTS)/agent-$$arch ./cmd/deployer-agent && \
	  sha256sum < $(AGENTS)/agent-$$arch | cut -d' ' -f1 > $(AGENTS)/agent-$$arch.sha256 && \
	  gzip -9nf $(AGENTS)/agent-$$arch || exit 1; \
	done

# What the lab and the tests need from Debian, and the linter.
PACKAGES := systemd-container mmdebstrap btrfs-progs patchelf nftables iproute2 openssh-client openssh-server sudo procps dosfstools git
tools:
	@missing=$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing:" $$missing; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

$(GOBIN)/golangci-lint:
	@echo "installing golangci-lint $(LINT)"
	go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT)

lint: $(GOBIN)/golangci-lint
	$(GOBIN)/golangci-lint run ./...

unit:
	go test ./...

# The simulation's worlds have one processor each: there is nothing to race in them.
race:
	go test -race $$(go list ./phases/... ./state/... ./plugins/... | grep -v /simulation)

# The layers that need root, without a skip: Btrfs on a loop device, a real sshd.
btrfs: tools
	DEPLOYER_NO_SKIP=1 go test ./phases/agent/... ./phases/host/... ./state/...

# The whole on real hosts: systemd, sshd, Nix, Btrfs.
lab: tools bin/lab bin/deployer
	.ci/lab

# What only a machine of its own shows; it wants this one for itself.
vm: tools bin/lab bin/deployer
	.ci/lab vm

test: tools lint unit race btrfs lab vm

demo: tools bin/lab bin/deployer
	.ci/demo

bench: tools bin/lab bin/deployer
	.ci/bench

# Controllers killed at random, round after round: ROUNDS=500 SEED=… repeats one.
ROUNDS ?= 100
soak: tools bin/lab bin/deployer
	ROUNDS=$(ROUNDS) SEED=$(SEED) .ci/soak

clean:
	rm -rf bin $(AGENTS)
