#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a release in target/release-VERSION: the image as an OCI index of all
# platforms, the charts as archives and OCI artefacts, kubectl-gpu with one
# manifest for krew, lists of components, notes and SHA256SUMS. The same commit
# gives the same bytes.
#
# Variables: PLATFORMS, such as `linux/amd64 darwin/arm64`, restricts it. BUILT
# is a directory with programs of linux/amd64 that are taken as they are, for a
# rehearsal. BASE is the base image with its digest; without it the base is the
# C library of Debian, which setup.sh unpacks. PUSH=REGISTRY/PREFIX uploads the
# image and the charts; without it the commands that would do so are printed.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

fail() {
    echo "release.sh: $*" >&2
    exit 1
}

here=deploy/release
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
REVISION=${REVISION:-$(git rev-parse HEAD)}
export SOURCE_DATE_EPOCH REVISION VERSION=$version
read -ra platforms <<<"$(tr , ' ' <<<"${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}")"
out=target/release-$version
programs=target/release-programs

check() {
    local platform
    [ -n "$version" ] || fail "Cargo.toml names no version below [workspace.package]: add it"
    [ "$(uname -m)" = x86_64 ] || fail "programs for all platforms are built on x86_64 only: run this on such a machine"
    for platform in "${platforms[@]}"; do
        case $platform in
        linux/amd64 | linux/arm64 | darwin/amd64 | darwin/arm64) ;;
        *) fail "PLATFORMS: $platform is unknown: use linux/amd64, linux/arm64, darwin/amd64 and darwin/arm64" ;;
        esac
    done
    [[ " ${platforms[*]}" = *" linux/"* ]] || fail "PLATFORMS: the image needs a platform of Linux: add linux/amd64"
    [ -z "${BASE:-}" ] || [[ $BASE = *@sha256:* ]] || fail "BASE: $BASE is a tag, which moves: name the image by its digest (…@sha256:…)"
    [ -z "${PUSH:-}" ] || [ -z "${BUILT:-}" ] || fail "PUSH: programs of BUILT are for a rehearsal: leave one of both out"
}

# notes: the section of the version in CHANGELOG.md.
notes() {
    awk -v heading="## [$version]" 'index($0, "## ") == 1 { on = index($0, heading) == 1; next } on' CHANGELOG.md >"$out/NOTES.md"
    grep -q '[^[:space:]]' "$out/NOTES.md" || fail "CHANGELOG.md has no section \"## [$version]\": write it"
}

check
# A rehearsal for the machine itself needs nothing that the tests do not need.
[ "${platforms[*]}${PUSH:-}" = linux/amd64 ] || tests/cluster/setup.sh release
rm -rf "$out" "$programs"
mkdir -p "$out"
notes
for platform in "${platforms[@]}"; do
    $here/build.sh "$platform" "$programs/${platform/\//-}"
done
$here/image.sh "$programs" "$out/gpu-dra-driver-$version-image.tar"
$here/charts.sh "$out"
kubectl-gpu/krew/pack.sh "$out" "$programs"
tests/supply-chain/sbom.sh
cp target/sbom/*.cdx.json "$out"
(cd "$out" && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS .)
echo "$out:"
cat "$out/SHA256SUMS"
$here/push.sh "$out" "$version"
