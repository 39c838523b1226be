# Chancery. "make demo" runs the main job on a software token, "make test" everything.

SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The same source gives the same binaries: no paths, no build ids.
BUILDFLAGS := -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION)'
RUN := .run
BIN ?= bin

.PHONY: help build demo up down clean-run test bench lint clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build the binaries into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o $(BIN)/ ./cmd/chanceryd ./cmd/chancery ./scripts/demo
	CGO_ENABLED=1 $(GO) build $(BUILDFLAGS) -o $(BIN)/ ./cmd/chancery-signer

demo: packages-demo build ## Issue one credential of every format and stay up (ONCE=1: stop then)
	@exec bin/demo -run $(RUN) $(if $(filter 1,$(ONCE)),once,run)

up: packages-demo build ## Start the demonstration appliance in the background
	@bin/demo -run $(RUN) up

down: ## Stop it; its state stays in .run
	@if [ -x bin/demo ]; then bin/demo -run $(RUN) down; fi

clean-run: down ## Stop it and remove its state
	rm -rf $(RUN) $(RUN).new

test: packages-test build ## Run every test
	scripts/test

bench: packages-demo build ## Measure, as ratios within one run
	scripts/bench

lint: ## gofmt, vet, staticcheck, house rules
	scripts/lint

clean: clean-run ## Remove what was built
	rm -rf bin .cache

.PHONY: packages-demo packages-test
packages-demo packages-test: packages-%:
	@scripts/packages $*
