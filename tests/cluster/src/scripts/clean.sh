# SPDX-License-Identifier: Apache-2.0
# clean.sh RUN_DIR: removes what remains after the processes of a cluster: its
# link to the host, its control groups and its directory.
set -u
run_dir=$1 name=$(basename "$1")
! ip link show "gd-$name" >/dev/null 2>&1 || ip link del "gd-$name" 2>/dev/null
tries=0
while [ "$tries" -lt 100 ]; do
    find /sys/fs/cgroup -depth -type d -path "*/gpu-dra-$name*" -exec rmdir {} + 2>/dev/null
    find /sys/fs/cgroup -depth -type d -path "*/gpu-dra-$name*" 2>/dev/null | grep -q . || break
    tries=$((tries + 1))
    sleep 0.05
done
# GPU_CLUSTER_KEEP_LOGS was set.
[ ! -s "$run_dir/keep-logs" ] || cp -r "$run_dir/logs" "$(cat "$run_dir/keep-logs")/$name"
rm -rf --one-file-system "$run_dir"
