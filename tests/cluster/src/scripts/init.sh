# SPDX-License-Identifier: Apache-2.0
# init.sh RUN_DIR: first process of the control plane's namespaces.
#
# It writes its PID in the namespace of the host, where /proc still belongs to
# the host, then reaps orphaned processes.
set -eu
read -r pid _ </proc/self/stat
hostname control-plane
mount -t proc proc /proc
echo "$pid" >"$1/init.pid.new"
mv "$1/init.pid.new" "$1/init.pid"
while :; do
    sleep infinity &
    wait $! || :
done
