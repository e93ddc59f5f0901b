#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Packs the charts into DIRECTORY: NAME-VERSION.tgz for `helm install`, and
# NAME-VERSION-chart.tar, the same as an OCI artefact. VERSION and
# SOURCE_DATE_EPOCH are set by release.sh.
#
# Usage: charts.sh DIRECTORY
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

helm=$(echo "${XDG_CACHE_HOME:-$HOME/.cache}"/gpu-dra-cluster/programs/helm-*/helm)
helm=${helm##* }
[ -x "$helm" ] || helm=helm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack SOURCE NAME DIRECTORY: helm checks and completes the chart, but writes the time of the day.
pack() {
    local archive=$3/$2-$VERSION.tgz
    "$helm" package "$1" -d "$work" >/dev/null
    [ -f "$work/$2-$VERSION.tgz" ] || { echo "charts.sh: $1/Chart.yaml has another version than $VERSION" >&2 && exit 1; }
    mkdir "$work/$2"
    tar -xzf "$work/$2-$VERSION.tgz" -C "$work/$2"
    tar --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        -C "$work/$2" -c "$2" | gzip -n9 >"$archive"
    "$helm" show chart "$archive" >"$work/$2.yaml"
    deploy/release/chart-layout.py "$work/$2.yaml" "$archive" "$work/$2-layout"
    deploy/release/pack-layout.sh "$work/$2-layout" "$3/$2-$VERSION-chart.tar"
}

pack deploy/chart gpu-dra-driver "$1"
pack deploy/tenants-chart gpu-tenants "$1"
