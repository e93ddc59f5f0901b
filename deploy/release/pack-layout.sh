#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs an OCI layout as an archive: the same bytes for the same files. Usage: pack-layout.sh DIRECTORY ARCHIVE
set -euo pipefail
export LC_ALL=C
tar --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -C "$1" -cf "$2" .
