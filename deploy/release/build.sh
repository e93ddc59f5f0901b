#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs of one platform, and runs those of Linux once: those of
# the image into DIRECTORY/image, for Linux only, and kubectl-gpu into
# DIRECTORY/kubectl. Cross compilers are from `setup.sh release`.
#
# Usage: build.sh OS/ARCH DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/../.."

platform=$1
dir=$2
image_programs=(gpu-kubelet-plugin gpu-mps-host gpu-controller gpu-explain gpu-import gpu-cdi-hook)
zig=${XDG_CACHE_HOME:-$HOME/.cache}/gpu-dra-cluster/ziglang/ziglang/zig

# build TARGET CRATE...
build() {
    local target=$1 crate args=()
    shift
    for crate in "$@"; do args+=(-p "$crate"); done
    [ -d "$(rustc --print target-libdir --target "$target")" ] || rustup target add "$target"
    cargo build --release --locked --target "$target" "${args[@]}"
}

# build_linux CPU
build_linux() {
    local musl=$1-unknown-linux-musl gnu=$1-unknown-linux-gnu
    build "$gnu" dra-kubelet-plugin dra-mps-host dra-controller
    build "$musl" dra-cdi-hook
    build "$musl" dra-kubectl-gpu
    (cd "target/$gnu/release" && install "${image_programs[@]:0:5}" "$OLDPWD/$dir/image")
    install "target/$musl/release/gpu-cdi-hook" "$dir/image"
    install "target/$musl/release/kubectl-gpu" "$dir/kubectl"
    if readelf --program-headers "$dir/kubectl/kubectl-gpu" "$dir/image/gpu-cdi-hook" | grep -q INTERP; then
        echo "build.sh: gpu-cdi-hook and kubectl-gpu of $platform must be static, but one of them needs a loader" >&2
        exit 1
    fi
}

# build_macos CPU: without Apple's SDK. Zig has the names of the C library, and
# the crates that call Apple's frameworks declare the names they need.
build_macos() {
    local target=$1-apple-darwin
    export ZIG=$zig ZIG_TARGET=$1-macos SDKROOT=$PWD/target/release-sdk
    deploy/release/apple-stubs.sh "$SDKROOT"
    export "CC_${target//-/_}=$PWD/deploy/release/zig-cc" "AR_${target//-/_}=ar"
    local linker=CARGO_TARGET_${target//-/_}_LINKER
    export "${linker^^}=$PWD/deploy/release/zig-cc"
    build "$target" dra-kubectl-gpu
    install "target/$target/release/kubectl-gpu" "$dir/kubectl"
}

# check_runs COMMAND...: each program of Linux starts, under an emulator where one is given.
check_runs() {
    local program
    for program in "$dir"/image/gpu-[!c]* "$dir/image/gpu-controller" "$dir/kubectl/kubectl-gpu"; do
        "$@" "$program" --help >/dev/null
    done
    # The hook has no help: without the state of a container it says what it did not do.
    "$@" "$dir/image/gpu-cdi-hook" </dev/null 2>&1 | grep -q '^gpu-cdi-hook: '
}

mkdir -p "$dir/kubectl"
[[ $platform != linux/* ]] || mkdir -p "$dir/image"
case $platform in
linux/amd64)
    if [ -n "${BUILT:-}" ]; then
        (cd "$BUILT" && install "${image_programs[@]}" "$OLDPWD/$dir/image" && install kubectl-gpu "$OLDPWD/$dir/kubectl")
    else
        export CC_x86_64_unknown_linux_musl=cc
        build_linux x86_64
    fi
    check_runs env
    ;;
linux/arm64)
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
    build_linux aarch64
    check_runs qemu-aarch64-static -L /usr/aarch64-linux-gnu
    ;;
darwin/amd64) build_macos x86_64 ;;
darwin/arm64) build_macos aarch64 ;;
esac
