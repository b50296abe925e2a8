# Each target installs what it needs and this machine lacks.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ARGS ?=

.PHONY: help demo up test check bench fuzz setup claude build

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Install what is missing (Debian packages, the Claude Code CLI)
	@scripts/setup run

claude: setup ## The same; named by tests that miss the CLI

build: setup ## Build everything
	@cargo build --workspace

demo: ## One task from a sentence to a pull request that is ready for review; ARGS=--yes answers everything itself
	@scripts/demo $(ARGS)

up: build ## The plane for real use, with your credentials
	@target/debug/mainloop up $(ARGS)

test: build ## All tests; as root the sandbox and the happy path run again as a plain user
	@scripts/test

check: ## Formatting, lints, the contract
	@scripts/check

bench: setup ## Sizes and ratios
	@scripts/bench $(ARGS)

fuzz: ## Fuzz what reads bytes of others, 60 s a target; ARGS="--seconds 600 git_push"
	@scripts/fuzz $(ARGS)
