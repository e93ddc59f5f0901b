#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Writes what each shipped program is made of to target/sbom, one CycloneDX file
# a program: every crate with version, licence, sum and origin, those that only
# build it included. The same sources give the same bytes for the same target.
#
# cargo-cyclonedx is built into the cache at the first run.
set -euo pipefail
# Sorted as python3 sorts.
export LC_ALL=C
cd "$(dirname "$0")/../.."

version=0.5.9
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gpu-dra-cluster/cargo-cyclonedx-$version
target=$(rustc -vV | sed -n 's/^host: //p')
root=$PWD
out=$root/target/sbom

# tree PACKAGE: the crates that are linked into its programs, as `name version`.
tree() {
    cargo tree --locked -p "$1" -e normal --target "$target" --prefix none --format '{p}' |
        sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1 \2/p' | sort -u
}

# write PACKAGE DIRECTORY PROGRAM...
write() {
    local package=$1 dir=$2 program written linked missing
    shift 2
    linked=$(tree "$package")
    [ -n "$linked" ]
    for program in "$@"; do
        written=$dir/${program}_bin.cdx.json
        # The tool names crates of this workspace by where they lie.
        sed "s|path+file://$root/|path+file:///|g" "$written" >"$out/$program.cdx.json"
        missing=$(comm -23 <(echo "$linked") <(components "$out/$program.cdx.json" "$package"))
        if [ -n "$missing" ] || grep -qF -e "$root" -e "$HOME" "$out/$program.cdx.json"; then
            echo "sbom.sh: $out/$program.cdx.json names a path of this machine, or lacks: $missing" >&2
            exit 1
        fi
    done
}

# components FILE PACKAGE: the crates a list names, the package itself with them, as `tree` prints them.
components() {
    python3 - "$@" <<'END'
import json, sys
bom = json.load(open(sys.argv[1]))
found = {(c["name"], c["version"]) for c in bom["components"]}
found.add((sys.argv[2], bom["metadata"]["component"]["version"]))
print("\n".join(sorted(f"{name} {version}" for name, version in found)))
END
}

[ -x "$tools/bin/cargo-cyclonedx" ] || cargo install --quiet --locked --root "$tools" "cargo-cyclonedx@$version"
mkdir -p "$out"
# It writes beside every manifest of the workspace.
trap 'find . -name target -prune -o -name "*_bin.cdx.json" -exec rm {} + -o -name "*_cdylib.cdx.json" -exec rm {} +' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0) "$tools/bin/cargo-cyclonedx" cyclonedx \
    --quiet --format json --spec-version 1.5 --describe binaries --target "$target"
write dra-kubelet-plugin kubelet-plugin gpu-kubelet-plugin
write dra-mps-host kubelet-plugin/mps-host gpu-mps-host
write dra-cdi-hook driver/cdi-hook gpu-cdi-hook
write dra-controller controller gpu-controller gpu-explain gpu-import
write dra-kubectl-gpu kubectl-gpu kubectl-gpu
