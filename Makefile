# SPDX-License-Identifier: Apache-2.0
# Every command of this project. All but `help` install what is missing on a bare Debian machine (as root).

NODES ?= h100:8 a100-40:2,t4:2
CLUSTER := target/release/gpu-cluster
PROGRAMS := -p dra-kubelet-plugin -p dra-controller -p dra-sim -p dra-sim-library -p dra-cluster -p dra-demo

.PHONY: help setup build demo test up down env bench check deny

help:
	@echo 'make demo    watch a real Kubernetes schedule pods onto simulated GPUs through this driver'
	@echo 'make test    all tests, the end-to-end ones on a real cluster included'
	@echo 'make up      leave such a cluster running; NODES="h100:8 a100-40:2,t4:2" is one GPU list per node'
	@echo 'make env     what a shell needs to use it: eval "$$(make -s env)"'
	@echo 'make down    remove it without a trace'
	@echo 'make bench   the promises of SPECIFICATION.md as a table of figures'
	@echo 'make check   formatting and lints'
	@echo 'make deny    licences, sources, versions and known faults of the dependencies'

setup:
	@tests/cluster/setup.sh

build: setup
	@cargo build --release --locked $(PROGRAMS)
	@$(CLUSTER) build

demo: build
	@target/release/gpu-demo run

test: build
	cargo test --locked --workspace

up: build
	@target/release/gpu-demo up --nodes '$(NODES)'

env:
	@$(CLUSTER) env

down:
	@$(CLUSTER) down

bench: build
	cargo bench --locked -p dra-tests

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

deny: setup
	@tests/supply-chain/deny.sh
