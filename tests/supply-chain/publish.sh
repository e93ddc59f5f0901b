#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Uploads what `make release` made to a registry on this machine, with the
# commands that the release prints, and reads it back: the image for each
# platform, the charts with helm, which must give the bytes of the release.
#
# Usage: publish.sh RELEASE_DIRECTORY OS/ARCH...
set -euo pipefail
cd "$(dirname "$0")/../.."

release=$1
shift
version=${release##*release-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpu-dra-cluster
helm=$(echo "$cache"/programs/helm-*/helm)
helm=${helm##* }
work=$(mktemp -d)
registry=
trap '[ -z "$registry" ] || { kill "$registry"; wait "$registry"; } 2>/dev/null || true; rm -rf "$work"' EXIT

address=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/registry.yaml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $work/storage}}
http: {addr: $address}
log: {level: error}
END
"$cache/registry/usr/bin/docker-registry" serve "$work/registry.yaml" >"$work/registry.log" 2>&1 &
registry=$!
curl --silent --fail --retry 50 --retry-connrefused --retry-delay 1 "http://$address/v2/" >/dev/null

PUSH=$address/gpu-dra-driver deploy/release/push.sh "$release" "$version"
for platform in "$@"; do
    skopeo inspect --tls-verify=false --override-os "${platform%/*}" --override-arch "${platform#*/}" \
        "docker://$address/gpu-dra-driver/gpu-dra-driver:$version" >"$work/image.json"
    python3 - "$work/image.json" "${platform#*/}" "$version" <<'END'
import json, sys
image = json.load(open(sys.argv[1]))
assert image["Architecture"] == sys.argv[2], image["Architecture"]
assert image["Labels"]["org.opencontainers.image.version"] == sys.argv[3], image["Labels"]
END
    echo "image $platform: as uploaded"
done
for chart in gpu-dra-driver gpu-tenants; do
    "$helm" pull --plain-http "oci://$address/gpu-dra-driver/charts/$chart" --version "$version" -d "$work" >/dev/null
    cmp "$work/$chart-$version.tgz" "$release/$chart-$version.tgz"
    echo "chart $chart: as uploaded"
done
