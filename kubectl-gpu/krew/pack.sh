#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Packs kubectl-gpu for krew: an archive of the same bytes for the same program
# for each directory PROGRAMS/OS-ARCH/kubectl, and one manifest with their
# checksums in DIRECTORY. Without arguments it packs target/kubectl, which
# `make kubectl-gpu` made, into target/krew. The result is installed with
#
#   kubectl krew install --manifest=target/krew/gpu.yaml --archive=target/krew/ARCHIVE
#
# Usage: pack.sh [DIRECTORY PROGRAMS]
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

# shellcheck source=deploy/release/addresses.sh
. deploy/release/addresses.sh
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
out=${1:-target/krew}
template=kubectl-gpu/krew/gpu.yaml
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fill NAME=VALUE...: the text with what stands between @ filled in.
fill() {
    local pair arguments=()
    for pair in "$@"; do arguments+=(-e "s|@${pair%%=*}@|${pair#*=}|"); done
    sed "${arguments[@]}"
}

# pack PROGRAM OS ARCH: prints the platform's part of the manifest.
pack() {
    local archive=kubectl-gpu-v$version-$2-$3.tar.gz sum
    install "$1" "$work/kubectl-gpu"
    install -m 644 LICENSE "$work/LICENSE"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" -c kubectl-gpu LICENSE | gzip -n9 >"$out/$archive"
    sum=$(sha256sum "$out/$archive" | cut -d' ' -f1)
    sed '1,/^  platforms:/d' $template | fill "OS=$2" "ARCH=$3" "URI=$DOWNLOADS/v$version/$archive" "SHA256=$sum"
}

# host: the programs of `make kubectl-gpu`, as OS-ARCH.
host() {
    case $(uname -m) in
    x86_64) echo linux-amd64 ;;
    aarch64) echo linux-arm64 ;;
    *) echo "pack.sh: krew has no name for the machine $(uname -m)" >&2 && exit 1 ;;
    esac
}

programs=${2:-$work/programs}
[ $# -gt 0 ] || { mkdir -p "$programs/$(host)" && cp -r target/kubectl "$programs/$(host)"; }
{
    sed '/^  platforms:/q' $template | fill "VERSION=$version" "HOMEPAGE=$HOMEPAGE"
    for dir in "$programs"/*; do
        platform=${dir##*/}
        pack "$dir/kubectl/kubectl-gpu" "${platform%-*}" "${platform#*-}"
    done
} >"$out/gpu.yaml"
[ $# -gt 0 ] || echo "kubectl krew install --manifest=$out/gpu.yaml --archive=$out/kubectl-gpu-v$version-$(host).tar.gz"
