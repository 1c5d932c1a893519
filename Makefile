# Everything that a developer runs. `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu.

CARGO ?= cargo
CACHE ?= $(or $(TWINSPAN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/twinspan)
DENY_VERSION := 0.20.2
# The Dockerfile has it too.
AUDITABLE_VERSION := 0.7.7
# Those of dev/parts/build: with other flags the Go build cache starts from nothing.
GO_FLAGS := CGO_ENABLED=0 GOFLAGS='-mod=readonly -trimpath -buildvcs=false'
# Recipes and tests look for programs in target/.
unexport CARGO_TARGET_DIR

.PHONY: help help-texts setup setup-image setup-node setup-chaos setup-browser setup-release testbed parts parts-release auditable build crds manifests docs image release release-build release-push release-check demo bench soak-churn chaos journeys node rollouts compat test stories test-long test-node sim soak mutants lint cargo-deny deny advisories clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install what a fresh Debian or Ubuntu lacks, or name it
	@dev/setup

setup-image: ## The same without Go, which no image needs
	@dev/setup image

setup-node: ## The same, with what a real node runs: containerd, runc, nftables, CNI plugins
	@dev/setup node

setup-chaos: ## The same, with what breaks networks and clocks: nftables, libfaketime
	@dev/setup chaos

setup-browser: ## The same, with what looks at the status page: Chromium, and a font with Chinese characters
	@dev/setup browser

setup-release: ## The same, with what compiles and runs programs of the other architecture
	@dev/setup release

testbed: setup
	@dev/parts/build controlplane >/dev/null
	@dev/parts/build coredns >/dev/null
	@dev/parts/build interop >/dev/null

parts: testbed ## Build etcd, the control plane, CoreDNS, the Kitex programs, the oracle, Helm and Prometheus' rules; once
	@dev/parts/build oracle >/dev/null
	@dev/parts/build helm >/dev/null
	@dev/parts/build prometheus >/dev/null

parts-release: setup
	@dev/parts/build registry >/dev/null
	@dev/parts/build cosign >/dev/null

# The tool that lists the crates in a program; dev/image looks for it here.
auditable: setup-image
	@test -x $(CACHE)/tools/bin/cargo-auditable || $(CARGO) install --quiet cargo-auditable --locked --version $(AUDITABLE_VERSION) --root $(CACHE)/tools

build: setup ## Build the operator
	$(CARGO) build

crds: setup ## Write the CustomResourceDefinitions of the Rust types into crds/, and everything that follows from them
	$(CARGO) run --quiet -- crds --write crds
	@$(MAKE) --no-print-directory manifests

manifests: setup ## Write deploy/twinspan.yaml and what is generated of the chart
	$(CARGO) run --quiet -p twinspan-chart

help-texts: ## Record the help of every command anew, under tests/help
	SNAPSHOTS=overwrite $(CARGO) test --quiet -p twinspan --lib cli::help_tests

docs: setup ## Write the API reference of the Rust types into docs/api.md
	$(CARGO) run --quiet -- crds --reference docs/api.md

image: auditable ## Write Twinspan's image to target/image/twinspan.tar, without a daemon
	@$(CARGO) run --quiet -p twinspan-image -- archive

# An index of one architecture is asked for on the command line, not by a variable that the shell happens to have.
RELEASE_ARCHES := $(if $(filter command,$(origin ARCHES)),$(ARCHES),amd64 arm64)
CHECK_ARCHES := $(or $(ARCHES),amd64 arm64)
# Programs of another architecture than this machine's need a compiler.
HOST_ARCH := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
cross = $(if $(filter-out $(HOST_ARCH),$(1)),setup-release)
RELEASE_INPUT = --registry $(REGISTRY) --arches $(RELEASE_ARCHES) $(if $(KEY),--key $(KEY)) $(if $(URL),--url $(URL))
RELEASE_PROGRAM = $(CARGO) build --quiet --workspace --exclude twinspan-sim --bin release

release: release-build ## Build, verify and push a release: REGISTRY=host/path; options: ARCHES=amd64 KEY=cosign.key URL=https://… PLAIN_HTTP=1
	@$(MAKE) --no-print-directory release-push

release-build: auditable $(call cross,$(RELEASE_ARCHES)) ## The first half, which pushes nothing but two bytes without a name; the same options
	@test -n "$(REGISTRY)" || { echo "say where to: make release REGISTRY=registry.example.com/team" >&2; exit 2; }
	@$(if $(filter environment,$(origin ARCHES)),echo "release: ARCHES of the environment is ignored; say make release ARCHES=…" >&2)
	@$(RELEASE_PROGRAM)
	@target/debug/release prepare $(RELEASE_INPUT) $(if $(PLAIN_HTTP),--plain-http)
	@target/debug/release build $(RELEASE_INPUT)
	@target/debug/release verify

release-push: setup-image ## The second half, from target/release-VERSION, as often as need be; option: PLAIN_HTTP=1
	@$(RELEASE_PROGRAM)
	@target/debug/release push $(if $(PLAIN_HTTP),--plain-http)
	@target/debug/release check $(if $(PLAIN_HTTP),--plain-http)

release-check: setup-node auditable parts-release $(call cross,$(CHECK_ARCHES)) ## Release into a real registry, and install from there on one real node; needs root; option: ARCHES=amd64
	ARCHES="$(CHECK_ARCHES)" $(CARGO) test --workspace --exclude twinspan-sim --test release -- --ignored

# A person who looks around needs kubectl and etcdctl, which come with the real servers.
demo: setup ## Tell the story of one service; REAL=1 with kube-apiserver and etcd, KEEP=1 the same and leaves it running
	@dev/demo/prepare $(if $(REAL)$(KEEP),real)
	@TWINSPAN_INTEROP=$$(dev/parts/build kitex) target/debug/demo $(if $(REAL),--real) $(if $(KEEP),--keep)

bench: testbed ## Measure Twinspan beside an ideal bridge of raw clients; options: QUICK=1 ONLY=name SEED=n
	@$(CARGO) build --quiet --release -p twinspan -p twinspan-bench
	@target/release/bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED))

soak-churn: testbed ## Change instances at 50 a second for an hour, and compare both sides; options: MINUTES=60 SEED=n
	@$(CARGO) build --quiet --release -p twinspan -p twinspan-bench
	@target/release/bench --soak $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

chaos: setup-chaos testbed ## Break several parts at once, under churn; options: MINUTES=10 SEED=n REST=60 SECOND=1 KEEP=1 WRITE=1
	@dev/parts/build etcdutl >/dev/null
	@$(CARGO) build --quiet -p twinspan -p twinspan-chaos
	@target/debug/chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(REST),--rest $(REST)) \
		$(if $(SECOND),--second) $(if $(KEEP),--keep) $(if $(WRITE),--write)

node: setup-node auditable ## Run the image and the chart on one real node until Ctrl-C; needs root
	@$(CARGO) build --quiet --workspace --bin node
	@target/debug/node

journeys: parts ## Tell the journeys of docs/migration.md with every framework
	$(CARGO) test --workspace --exclude twinspan-sim --test e2e -- --ignored journeys::

rollouts: setup-node auditable ## Roll a Deployment of six under calls, in three ways, and once while etcd is frozen; needs root; option: ROUNDS=5
	@$(CARGO) build --quiet --workspace --bin rollouts
	@target/debug/rollouts

# Beside test-long: the oldest API server alone takes minutes to build, once.
compat: parts ## Run a smoke suite with the oldest and the newest Kubernetes and etcd; WRITE=1 writes the table of the docs
	$(if $(WRITE),TWINSPAN_WRITE=1) $(CARGO) test --workspace --exclude twinspan-sim --test e2e -- --ignored compat::

test: setup ## Every test but the stories: units, chart, documents, the simulation of the whole operator
	@dev/parts/build helm >/dev/null
	@dev/parts/build prometheus >/dev/null
	$(CARGO) test --workspace --exclude twinspan-sim
	$(CARGO) test --profile sim -p twinspan-sim

stories: parts setup-browser ## The user stories on real parts but those that take minutes by their nature
	$(CARGO) test --workspace --exclude twinspan-sim --test e2e

test-long: parts setup-chaos ## The stories that take minutes by their nature
	$(CARGO) test --workspace --exclude twinspan-sim --test e2e -- --ignored
	$(CARGO) test --workspace --exclude twinspan-sim --test minute -- --ignored
	TWINSPAN_IMAGE_PROFILE=node $(MAKE) test-node

test-node: setup-node auditable parts-release ## The stories of the image, the chart and a release on one real node; needs root
	$(CARGO) test --workspace --exclude twinspan-sim --test story --test release -- --ignored

sim: setup ## Run one seed of the simulation: SEED=n, TRACE=1 for every message, SHRINK=1 for a story
	$(CARGO) run --quiet --profile sim -p twinspan-sim

soak: setup ## Run many seeds of the simulation: SEED=first, SEEDS=number
	SEEDS=$(or $(SEEDS),100000) $(CARGO) run --quiet --profile soak -p twinspan-sim

mutants: setup ## Ask which of 25 deliberate faults the simulation notices: SEEDS=number
	@dev/mutants

lint: setup ## Formatting, width of comments, clippy, Go vet, the patch of the mutants
	$(CARGO) fmt --all --check
	dev/comment-width
	git apply --check sim/mutants.patch
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --no-default-features --lib --bins -- -D warnings
	for part in dev/parts/*/; do (cd $$part && test -z "$$(gofmt -l .)") || exit 1; done
	for part in interop oracle; do (cd dev/parts/$$part && $(GO_FLAGS) go vet ./...) || exit 1; done

cargo-deny: setup
	@test -x $(CACHE)/tools/bin/cargo-deny || $(CARGO) install cargo-deny --locked --version $(DENY_VERSION) --root $(CACHE)/tools

deny: cargo-deny ## Bans, licences and sources of dependencies
	$(CACHE)/tools/bin/cargo-deny --workspace --all-features check bans licenses sources

advisories: cargo-deny ## Known vulnerabilities of dependencies; needs the internet, and runs on a schedule, not on a change
	$(CACHE)/tools/bin/cargo-deny --workspace --all-features check advisories

clean: ## Remove what was built here; the real parts stay in the cache
	$(CARGO) clean
