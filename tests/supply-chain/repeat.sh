#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs of the last commit once more, in another directory, and
# compares them with those in target/image and target/kubectl, which
# `make programs` made.
# DIRECTORY, if given, is used and stays, for the next run.
#
# Usage: repeat.sh [DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/../.."

git diff --quiet HEAD || {
    echo "repeat.sh: commit your changes first: the last commit is what is built again" >&2
    exit 1
}
dir=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"
git archive HEAD | tar -x -C "$dir"
CARGO_TARGET_DIR=$dir/target make -C "$dir" programs kubectl-gpu
for program in target/image/* target/kubectl/*; do
    cmp "$program" "$dir/$program"
    sha256sum "$program"
done
