# dst: build, test and install.  "make help" lists the targets.

SHELL   := /bin/bash
PREFIX  ?= /usr/local
DESTDIR ?=
SBINDIR ?= $(PREFIX)/sbin
MANDIR  ?= $(PREFIX)/share/man
UNITDIR ?= /etc/systemd/system
UDEVDIR ?= /etc/udev/rules.d
CONFDIR ?= /etc/dst
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions

GO       ?= go
# The version is given by -ldflags: no need to ask git, which refuses a tree that belongs to somebody else.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
FUZZTIME ?= 10s
PKGS     ?= ./...
REVISION := $(shell git -c safe.directory='*' describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
VERSION  ?= 0.1.0$(if $(REVISION),+g$(REVISION))
LDFLAGS  := -s -w -X main.version=$(VERSION)
GOBUILD  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
MANPAGES  = $(wildcard tools/man/*.[1-8])

.PHONY: help build test setup unit race cover fuzz lint fmt vet layers generate bench demo selftest vmtest vm cross install clean
.DEFAULT_GOAL := build

build: ## bin/dstd and bin/dstctl, static
	@mkdir -p bin
	$(GOBUILD) -o bin/ ./cmd/dstd ./cmd/dstctl

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

test: ## all of it, as CI runs it (root; installs what the tests need)
	@GO='$(GO)' tools/test

setup: ## install the packages that tests and demo need (root, Debian)
	@tools/setup

unit: ## tables, virtual time, models
	$(GO) test -count=1 $(PKGS)

race: ## the same under the race detector
	CGO_ENABLED=1 $(GO) test -race -count=1 $(PKGS)

cover: ## coverage of each package
	$(GO) test -count=1 -cover $(PKGS)

fuzz: ## every native fuzz target for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) tools/fuzz $(PKGS)

fmt: ## rewrite what gofmt would
	"$$($(GO) env GOROOT)/bin/gofmt" -l -s -w $$(tools/files go)

vet:
	$(GO) vet $(PKGS)

layers: ## who may import whom, and the other house rules
	$(GO) test -count=1 ./tools

lint: vet layers ## gofmt, vet, staticcheck, errcheck, ineffassign, misspell, layers
	@tools/lint $(PKGS)

generate: ## write generated files again
	$(GO) generate $(PKGS)

bench: build ## figures beside nbdkit's
	$(GO) run ./tools/bench

selftest: build ## whole-system tests in TAP (root); RUN=pattern picks some
	@selftests/run $(RUN)

vmtest: ## bin/vmtest, which runs tests in a virtual machine; see selftests/README.md
	@mkdir -p bin
	$(GOBUILD) -o bin/ ./tools/vmtest

vm: ## the packages' tests that need a kernel with modules, in virtual machines (root)
	@GO='$(GO)' tools/test setup vm

demo: setup build vmtest ## two hosts in one, a cut cable, no byte lost (root)
	@tools/demo

cross: ## amd64 and arm64 build; 386 and s390x compile, tests too
	@mkdir -p bin/cross
	@for arch in amd64 arm64; do \
	  echo "build linux/$$arch"; \
	  GOOS=linux GOARCH=$$arch CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/cross/$$arch/ ./cmd/... || exit 1; \
	done
	@for arch in 386 s390x; do \
	  echo "vet linux/$$arch"; \
	  GOOS=linux GOARCH=$$arch CGO_ENABLED=0 $(GO) build ./... && \
	  GOOS=linux GOARCH=$$arch CGO_ENABLED=0 $(GO) vet ./... || exit 1; \
	done

install: build ## binaries, systemd units, udev rule, manual pages and completion below $(DESTDIR)$(PREFIX)
	install -d '$(DESTDIR)$(SBINDIR)' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(UDEVDIR)'
	install -d -m 700 '$(DESTDIR)$(CONFDIR)'
	install -m 755 bin/dstd bin/dstctl '$(DESTDIR)$(SBINDIR)/'
	@for unit in dstd dst-nodes dstd-shutdown; do \
	  sed 's|@SBINDIR@|$(SBINDIR)|g' tools/packaging/$$unit.service > '$(DESTDIR)$(UNITDIR)'/$$unit.service && \
	  chmod 644 '$(DESTDIR)$(UNITDIR)'/$$unit.service || exit 1; \
	done
	install -m 644 tools/packaging/60-dst.rules '$(DESTDIR)$(UDEVDIR)/'
	install -d '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)'
	install -m 644 tools/completion/dstctl.bash '$(DESTDIR)$(BASHDIR)/dstctl'
	install -m 644 tools/completion/_dstctl '$(DESTDIR)$(ZSHDIR)/_dstctl'
	@for page in $(MANPAGES); do \
	  dir='$(DESTDIR)$(MANDIR)'/man$${page##*.}; \
	  install -d "$$dir" && install -m 644 "$$page" "$$dir/" || exit 1; \
	done

clean: ## remove what was built
	rm -rf bin
