#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Renders the dashboards of the chart to docs/pictures in Chromium, with the components of @grafana/ui over the series of a
# running Prometheus:
#
#   tests/dashboards/pictures.sh                     uses the cluster of `make up MONITORING=1` for 15 minutes before
#   tests/dashboards/pictures.sh http://ADDRESS:9090 takes what is there
#
# Fails if a panel has no data or an error, and names it. Run as root: what is missing is installed from Debian.
set -euo pipefail
cd "$(dirname "$0")/../.."

prometheus=${1:-}
minutes=15
# Where `make up` has built gpu-cluster and gpu-sim.
programs=$(realpath "${PROGRAMS:-target/debug}")
out=$PWD/docs/pictures
# Beside the sources, the checks of this repository would read the packages.
build=$PWD/target/dashboards
max_bytes=$((300 * 1024))

install_missing() {
    local missing=()
    command -v chromium >/dev/null || missing+=(chromium)
    command -v npm >/dev/null || missing+=(npm)
    command -v pngquant >/dev/null || missing+=(pngquant)
    # The font of Grafana.
    dpkg-query -W fonts-inter >/dev/null 2>&1 || missing+=(fonts-inter)
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing ${missing[*]}" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_packages() {
    cmp -s "$build/package-lock.json" "$build/node_modules/.installed" && return
    npm ci --silent
    cp package-lock.json node_modules/.installed
}

# compress PICTURE: with as many colours as a small file has room for.
compress() {
    local colours
    for colours in 256 128 96 80 64; do
        pngquant --nofs --force --strip --speed 1 --output "$out/$1" "$colours" "$build/$1"
        [ "$(stat -c %s "$out/$1")" -gt "$max_bytes" ] || return 0
    done
    echo "pictures.sh: $out/$1 is larger than $max_bytes bytes" >&2
    return 1
}

# use_cluster: lets its GPUs work, and finds its Prometheus beside the API server.
use_cluster() {
    local environment server
    environment=$("$programs/gpu-cluster" env)
    eval "$environment"
    server=$(kubectl config view --output jsonpath='{.clusters[0].cluster.server}')
    prometheus=$(sed 's|^https|http|; s|:[0-9]*$|:9090|' <<<"$server")
    echo "using the cluster for $minutes minutes" >&2
    node activity.mjs "$prometheus" "$minutes" "$programs" ../../demo/workloads
}

install_missing
mkdir -p "$build" "$out"
cp -r tests/dashboards/. "$build"
cd "$build"
install_packages
node licences.mjs
node_modules/.bin/tsc
node build.mjs
[ -n "$prometheus" ] || use_cluster
node take.mjs "$prometheus" "$minutes" "$build"
for picture in dashboard-*.png; do
    compress "$picture"
done
