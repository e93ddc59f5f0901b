#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Packs target/kubectl/kubectl-gpu, which `make programs` made, for krew:
# an archive of the same bytes for the same program, and the manifest with its
# checksum. The result is installed with
#
#   kubectl krew install --manifest=target/krew/gpu.yaml --archive=target/krew/ARCHIVE
#
# A release sets URI to the address that the archive is served from.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) echo "pack.sh: krew has no name for the machine $(uname -m)" >&2 && exit 1 ;;
esac
archive=kubectl-gpu-v$version-linux-$arch.tar.gz
uri=${URI:-https://example.com/$archive}

out=target/krew
mkdir -p "$out"
install target/kubectl/kubectl-gpu "$out/kubectl-gpu"
install -m 644 LICENSE "$out/LICENSE"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$out" -c kubectl-gpu LICENSE | gzip -n9 >"$out/$archive"
rm "$out/kubectl-gpu" "$out/LICENSE"
sum=$(sha256sum "$out/$archive" | cut -d' ' -f1)
sed -e "s|@VERSION@|$version|" -e "s|@ARCH@|$arch|" -e "s|@URI@|$uri|" -e "s|@SHA256@|$sum|" \
    kubectl-gpu/krew/gpu.yaml >"$out/gpu.yaml"
echo "kubectl krew install --manifest=$out/gpu.yaml --archive=$out/$archive"
