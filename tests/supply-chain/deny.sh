#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Asks cargo-deny whether the dependencies are as deny.toml wants them.
#
# Known faults are looked up in the RustSec database, which is fetched with git
# from github.com. Where that cannot be reached, this says that nothing was
# looked up, and fails if ADVISORIES=required is set, as a release must. A
# mirror serves as well: git config --global url.MIRROR.insteadOf \
# https://github.com/RustSec/advisory-db
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo_deny=${XDG_CACHE_HOME:-$HOME/.cache}/gpu-dra-cluster/cargo-deny/bin/cargo-deny

"$cargo_deny" --locked check --hide-inclusion-graph bans licenses sources
if reason=$("$cargo_deny" fetch db 2>&1); then
    "$cargo_deny" --locked check --hide-inclusion-graph advisories
else
    cat >&2 <<END
================================================================================
WARNING: KNOWN FAULTS OF DEPENDENCIES WERE NOT LOOKED UP.
The RustSec database cannot be fetched:
$reason
Run this again where github.com or a mirror can be reached, before a release
with ADVISORIES=required. What else deny.toml asks for was checked.
================================================================================
END
    [ "${ADVISORIES:-}" != required ]
fi
