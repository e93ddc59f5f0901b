#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Uploads the image and the charts of a release to PUSH=REGISTRY/PREFIX.
# Without it the commands are printed.
#
# Usage: push.sh RELEASE_DIRECTORY VERSION
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=deploy/release/addresses.sh
. deploy/release/addresses.sh
release=$1
version=$2
to=${PUSH:-$REGISTRY/gpu-dra-driver}
# A registry on this machine has no certificate.
tls=()
[[ $to != 127.0.0.1:* ]] || tls=(--dest-tls-verify=false)

# upload COMMAND...: runs a command of the push, or prints it.
upload() {
    if [ -n "${PUSH:-}" ]; then "$@"; else echo "  $*"; fi
}

[ -n "${PUSH:-}" ] || echo "nothing was uploaded; PUSH=$to runs:"
upload skopeo copy --quiet --all "${tls[@]}" "oci-archive:$release/gpu-dra-driver-$version-image.tar" "docker://$to/gpu-dra-driver:$version"
for chart in gpu-dra-driver gpu-tenants; do
    upload skopeo copy --quiet "${tls[@]}" "oci-archive:$release/$chart-$version-chart.tar" "docker://$to/charts/$chart:$version"
done
