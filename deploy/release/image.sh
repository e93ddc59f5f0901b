#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes one OCI archive with an index of the image for each directory
# PROGRAMS/linux-ARCH. BASE is explained in release.sh; VERSION, REVISION and
# SOURCE_DATE_EPOCH are set by it.
#
# Usage: image.sh PROGRAMS ARCHIVE
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpu-dra-cluster
name=localhost/gpu-dra-driver-release:$VERSION
work=$(mktemp -d)
store=(--storage-driver vfs --root "$work/root" --runroot "$work/run")
trap 'buildah "${store[@]}" rmi --all --force >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

# build ARCH NAME ARGUMENT...: no step runs a program, so one machine builds for all.
build() {
    local arch=$1 image=$2
    shift 2
    buildah "${store[@]}" bud -q --isolation chroot --layers=false --timestamp "$SOURCE_DATE_EPOCH" \
        --platform "linux/$arch" -t "$image" "$@" >/dev/null
}

# base ARCH: the name of the base image.
base() {
    local arch=$1 root=$cache/rootfs/base
    [ -z "${BASE:-}" ] || { echo "$BASE" && return; }
    [ "$arch" = amd64 ] || root=$root-$arch
    printf 'FROM scratch\nCOPY . /\n' >"$work/base"
    build "$arch" "localhost/base-$arch" -f "$work/base" "$root"
    echo "localhost/base-$arch"
}

buildah "${store[@]}" manifest create "$name" >/dev/null
for programs in "$1"/linux-*; do
    arch=${programs##*-}
    build "$arch" "$name-$arch" --build-arg "BASE=$(base "$arch")" --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" \
        -f deploy/Containerfile "$programs/image"
    buildah "${store[@]}" manifest add "$name" "$name-$arch" >/dev/null
done
buildah "${store[@]}" manifest push -q --all "$name" "oci:$work/layout:$VERSION" >/dev/null
deploy/release/pack-layout.sh "$work/layout" "$2"
