# SPDX-License-Identifier: Apache-2.0
# kubelet.sh: starts the kubelet in a mount namespace below the node's.
#
# The kubelet sets kernel values of the whole machine unless they are set
# already. It is shown files that hold the values it wants, so that the machine
# stays as it is.
set -eu
show() {
    file=/run/cluster/sysctl/$(echo "$1" | tr / .)
    mkdir -p /run/cluster/sysctl
    echo "$2" >"$file"
    mount --bind "$file" "/proc/sys/$1"
}
show vm/overcommit_memory 1
show vm/panic_on_oom 0
show kernel/panic 10
show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000
show kernel/keys/root_maxbytes 25000000
exec /run/cluster/bin/kubelet "$@"
