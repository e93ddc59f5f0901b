# SPDX-License-Identifier: Apache-2.0
# Every command of this project. Those that need a cluster install what is missing on a bare Debian machine (as root).

NODES ?= h100:8 a100-40:2,t4:2
SHIPPED := -p dra-kubelet-plugin -p dra-mps-host -p dra-controller
PROGRAMS := $(SHIPPED) -p dra-sim -p dra-sim-library -p dra-cluster -p dra-demo

# No path of the machine is in the programs, so they have the same bytes wherever they are built.
PATHS := --remap-path-prefix=%s=.\037--remap-path-prefix=%s=cargo
REPEATABLE := CARGO_ENCODED_RUSTFLAGS="$$(printf -- '$(PATHS)' '$(CURDIR)' "$${CARGO_HOME:-$$HOME/.cargo}")"
# Programs that run beside other C libraries than that of the build machine: `gpu-cdi-hook` among the files of an image, where it must load no
# library and read no variable before `main`, and `kubectl gpu` on the machines of users. The C library of GNU does both, also in a
# static program. Of the C compiler only ring needs anything.
MUSL := $(shell uname -m)-unknown-linux-musl
ADD_MUSL = [ -d "$$(rustc --print target-libdir --target $(MUSL))" ] || rustup target add $(MUSL)
BUILD_HOOK = $(REPEATABLE) cargo build --locked -p dra-cdi-hook --target $(MUSL)
# For tests and the demo on a machine that cannot get the standard library of musl: the program on the C library of the machine.
STATIC := CARGO_ENCODED_RUSTFLAGS="$$(printf -- '$(PATHS)\037-Ctarget-feature=+crt-static' '$(CURDIR)' "$${CARGO_HOME:-$$HOME/.cargo}")"
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
BUILD_HOOK_HERE = if $(ADD_MUSL); then $(BUILD_HOOK) $(1) && install target/$(MUSL)/$(2)/gpu-cdi-hook target/$(2); \
	else $(STATIC) cargo build --locked -p dra-cdi-hook --target $(HOST) $(1) && install target/$(HOST)/$(2)/gpu-cdi-hook target/$(2); fi

.PHONY: help setup build demo-programs programs kubectl-gpu krew demo test up down env bench check deny sbom repeat release pictures site

help:
	@echo 'make demo    watch a real Kubernetes schedule pods onto simulated GPUs through this driver'
	@echo 'make test    all tests, the end-to-end ones on a real cluster included'
	@echo 'make up      leave such a cluster running; NODES="h100:8 a100-40:2,t4:2" is one GPU list per node'
	@echo '             MONITORING=1 starts a Prometheus with the rules of the chart, too'
	@echo 'make env     what a shell needs to use it: eval "$$(make -s env)"'
	@echo 'make down    remove it'
	@echo 'make bench   the promises of SPECIFICATION.md as a table of figures'
	@echo 'make pictures  the dashboards of the chart, from the Prometheus of make up MONITORING=1, into docs/pictures; takes 20 minutes'
	@echo 'make site    the documents as a site with search, into target/site; fails on a dead link'
	@echo 'make check   formatting and lints'
	@echo 'make deny    licences, sources, versions and known faults of the dependencies'
	@echo 'make programs  the programs of the image, into target/image; needs no root'
	@echo 'make kubectl-gpu  kubectl-gpu as one static program, into target/kubectl; needs rustup'
	@echo 'make krew    kubectl-gpu as an archive with its manifest, into target/krew'
	@echo 'make sbom    what each of them is made of, as CycloneDX, into target/sbom'
	@echo 'make release  all files of a release, into target/release-VERSION; docs/release.md explains PLATFORMS, BUILT, BASE and PUSH'
	@echo 'make repeat  build them again in another directory and compare their bytes'

setup:
	@tests/cluster/setup.sh

build: setup
	@$(REPEATABLE) cargo build --release --locked $(PROGRAMS)
	@$(call BUILD_HOOK_HERE,--release,release)
	@$(REPEATABLE) cargo build --release --locked -p dra-kubectl-gpu
	@target/release/gpu-cluster build

# For the demo: not optimised, which takes half the time. The programs of the cluster are built side by side with ours.
demo-programs:
	@tests/cluster/setup.sh cluster
	@cargo build --locked -p dra-cluster
	@target/debug/gpu-cluster build & cluster=$$!; cargo build --locked $(PROGRAMS) && wait $$cluster
	@$(call BUILD_HOOK_HERE,,debug)

programs:
	@$(REPEATABLE) cargo build --release --locked $(SHIPPED)
	@$(ADD_MUSL)
	@$(BUILD_HOOK) --release
	@mkdir -p target/image
	@cd target/release && install gpu-kubelet-plugin gpu-mps-host gpu-controller gpu-explain gpu-import ../image
	@install target/$(MUSL)/release/gpu-cdi-hook target/image

kubectl-gpu:
	@$(ADD_MUSL)
	@CC_$(subst -,_,$(MUSL))=cc $(REPEATABLE) cargo build --release --locked --target $(MUSL) -p dra-kubectl-gpu
	@mkdir -p target/kubectl
	@install target/$(MUSL)/release/kubectl-gpu target/kubectl

krew: kubectl-gpu
	@kubectl-gpu/krew/pack.sh

demo: demo-programs
	@target/debug/gpu-demo run

test: build
	cargo test --locked --workspace

up: demo-programs
	@target/debug/gpu-demo up --nodes '$(NODES)' $(if $(MONITORING),--monitoring)

env:
	@target/debug/gpu-cluster env

down:
	@target/debug/gpu-cluster down

bench: build
	cargo bench --locked -p dra-tests
	cargo bench --locked -p dra-kubectl-gpu --bench large_cluster

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

deny: setup
	@tests/supply-chain/deny.sh

sbom: setup
	@tests/supply-chain/sbom.sh

repeat: programs kubectl-gpu
	@tests/supply-chain/repeat.sh

release: setup
	@$(REPEATABLE) PLATFORMS='$(PLATFORMS)' BUILT='$(BUILT)' BASE='$(BASE)' PUSH='$(PUSH)' deploy/release/release.sh

pictures:
	@tests/dashboards/pictures.sh

site:
	@tests/site/site.sh
