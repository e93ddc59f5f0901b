# SPDX-License-Identifier: Apache-2.0
# Where a release is published. Both are placeholders: a publisher sets them here or as variables.
: "${HOMEPAGE:=https://example.com/gpu-dra-driver}"
: "${DOWNLOADS:=$HOMEPAGE/releases}"
: "${REGISTRY:=registry.example.com}"
