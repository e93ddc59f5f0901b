#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Writes what a linker needs of Apple's frameworks Security and CoreFoundation
# into SDK: where a Mac has each, and the names in it that the crates declare.
#
# Usage: apple-stubs.sh SDK
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

# names CRATE: the functions and variables that it declares, as symbols.
names() {
    local source
    source=$(cargo metadata --locked --format-version 1 --filter-platform aarch64-apple-darwin |
        python3 -c 'import json, os, sys
print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == sys.argv[1]))' "$1")
    grep -rhoE 'pub (fn|static( mut)?) k?[A-Z][A-Za-z0-9_]*' "$source/src" | sed 's/.* /_/' | sort -u | paste -sd,
}

# stub SDK FRAMEWORK CRATE
stub() {
    local dir=$1/System/Library/Frameworks/$2.framework
    mkdir -p "$dir"
    cat >"$dir/$2.tbd" <<END
--- !tapi-tbd
tbd-version: 4
targets: [ x86_64-macos, arm64-macos ]
install-name: '/System/Library/Frameworks/$2.framework/Versions/A/$2'
exports:
  - targets: [ x86_64-macos, arm64-macos ]
    symbols: [ $(names "$3") ]
...
END
}

stub "$1" Security security-framework-sys
stub "$1" CoreFoundation core-foundation-sys
