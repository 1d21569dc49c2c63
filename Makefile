# make help   says what there is.

VERSION ?= $(shell git describe --tags --dirty 2>/dev/null)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
DATA    ?= ./data
HTTPS   ?=
GO      ?= go

LDFLAGS = -w $(if $(VERSION),-X berth/appliance/version.Version=$(VERSION)) $(if $(COMMIT),-X berth/appliance/version.Revision=$(COMMIT))

# Two test binaries at a time: most of them start real servers, and the usual machine has two cores.
TEST_PARALLEL ?= 2
TEST_TIMEOUT  ?= 20m
TEST_PACKAGES ?= ./...
FUZZ_TIME     ?= 10s

# What the tests drive or need, as Debian packages.
TEST_PACKAGES_DEBIAN = postgresql docker.io podman skopeo buildah containerd runc \
	iproute2 openssl ca-certificates procps slapd prometheus rsyslog rsyslog-openssl systemd-journal-remote chromium \
	qemu-utils shellcheck packer openssh-client systemd-container nftables dnsmasq-base e2fsprogs xorriso python3-minimal

# What building the image drives (docs/building.md).
IMAGE_PACKAGES_DEBIAN = debootstrap e2fsprogs dosfstools mtools fdisk grub-common grub-pc-bin grub-efi-amd64-bin \
	qemu-system-x86 qemu-utils ovmf seabios xorriso packer openssh-client shellcheck xz-utils util-linux curl
SUDO = $(if $(filter 0,$(shell id -u)),,sudo -E)

.DEFAULT_GOAL := help
.PHONY: help build ova-tool run run-deps tools test-deps test fmt vet staticcheck race check fuzz bench clean \
	image-deps rootfs-base rootfs test-rootfs lock ova packer-check test-ova

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## compile bin/berth and bin/berth-agent
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/berth ./services/cmd/berth
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/berth-agent ./agent/cmd/berth-agent

ova-tool: ## compile bin/ova, which makes and checks OVAs
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/ova ./ova/cmd/ova

image-deps: ## install the Debian packages that building the image drives
	@tests/apt.sh $(IMAGE_PACKAGES_DEBIAN)

rootfs-base: image-deps ## the appliance's Debian as a tree, in ~/.cache/berth-image; prints its path (MIRROR= LOCK=warn)
	@$(SUDO) packer/debian/base.sh

rootfs: build ## the whole appliance as a tree in dist/rootfs, as the tests boot it
	@base=$$($(MAKE) --no-print-directory -s rootfs-base) && $(SUDO) appliance/tree.sh "$$base" bin dist/rootfs

ova: image-deps build ova-tool ## the OVA, with its bill of materials, in dist/: three minutes and more (docs/building.md)
	@$(SUDO) env COMMIT=$(COMMIT) EPOCH=$$(git log -1 --format=%ct) GOMODCACHE=$$($(GO) env GOMODCACHE) GOROOT=$$($(GO) env GOROOT) \
		packer/debian/build.sh dist

test-ova: image-deps test-deps ## import the OVA in dist/ into vCenter's simulator, and boot it in QEMU, from power-on to docker push: fifteen minutes (OVA=file RUN=regexp)
	@mkdir -p dist/test-ova
	@ova=$(abspath $(or $(OVA),$(shell ls -t dist/berth-*.ova 2>/dev/null | head -1))); [ -f "$$ova" ] || { echo "there is no OVA (make ova)"; exit 1; }; \
	BERTH_OVA=$$ova $(GO) test -count=1 -v -run TestImportFinished ./ova && \
	$(SUDO) env BERTH_OVA=$$ova BERTH_OVA_OUT=$(CURDIR)/dist/test-ova $(GO) test -count=1 -v -timeout 60m $(if $(RUN),-run '$(RUN)') ./tests/qemu

packer-check: image-deps ## check the Packer templates, the kickstart file and the scripts without running them
	@$(GO) test -count=1 ./tests/image

lock: image-deps ## make the tree with what the mirror has now, and packer/debian/packages.lock anew
	@$(SUDO) env LOCK=write packer/debian/base.sh

run-deps:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || tests/apt.sh postgresql

run: run-deps build ## run a whole registry here, its data in ./data (DATA=dir HTTPS=addr:port); Ctrl-C ends it
	@exec bin/berth up --data $(DATA) $(if $(HTTPS),--https $(HTTPS))

tools: ## build the programs that the tests drive: crane, helm, cosign, a CNCF registry ...
	@tests/tools/build.sh

test-deps: ## install the Debian packages that the tests drive
	@tests/apt.sh $(TEST_PACKAGES_DEBIAN)

fmt: ## fail if a Go file is not formatted
	@files=$$(gofmt -l $$($(GO) list -e -f '{{.Dir}}' ./...)); \
	if [ -n "$$files" ]; then echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; fi

vet:
	$(GO) vet ./...
	cd tests/goclient && $(GO) vet ./...

staticcheck:
	@$$(tests/tools/build.sh)/staticcheck ./...

test: test-deps tools fmt vet build test-rootfs ## everything, on this machine; ends by naming what was skipped, and why
	@$(GO) build -o bin/testreport ./tests/cmd/testreport
	@set -o pipefail; export BERTH_BIN=$(CURDIR)/bin/berth; { \
		$(GO) test -count=1 -json -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) $(TEST_PACKAGES); failed=$$?; \
		cd tests/goclient && $(GO) test -count=1 -json -timeout $(TEST_TIMEOUT) ./... && exit $$failed; } 2>&1 | bin/testreport

# Without a tree the tests that boot it are skipped, by name: a mirror that cannot be reached fails no other test.
test-rootfs:
	@$(MAKE) --no-print-directory rootfs LOCK=warn || echo "there is no appliance to boot: its tests will be skipped" >&2

race: tools ## everything again with the race detector, in Berth as in the tests, in random order (needs gcc)
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -race -o bin/berth-race ./services/cmd/berth
	@$(GO) build -o bin/testreport ./tests/cmd/testreport
	@set -o pipefail; CGO_ENABLED=1 BERTH_BIN=$(CURDIR)/bin/berth-race \
		$(GO) test -json -race -shuffle=on -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) $(TEST_PACKAGES) 2>&1 | bin/testreport

check: tools staticcheck test race ## what a reviewer wants green: fmt, vet, staticcheck, test, race

fuzz: ## each fuzz target for FUZZ_TIME
	@set -e; for dir in $$(git grep -l --untracked '^func Fuzz' -- '*_test.go' | xargs -r -n 1 dirname | sort -u); do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$dir/*_test.go); do \
			echo "$$dir $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZ_TIME) ./$$dir; \
		done; \
	done

bench: tools build ## measure Berth beside a CNCF registry on this machine (BENCH=-quick)
	BERTH_BIN=$(CURDIR)/bin/berth BERTH_TOOLS_DIR=$$(tests/tools/build.sh) $(GO) run ./tests/cmd/bench $(BENCH)

clean: ## remove what was built (not ./data, not the cached test tools)
	rm -rf bin dist

SHELL := /bin/bash
