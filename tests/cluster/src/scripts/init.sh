# SPDX-License-Identifier: Apache-2.0
# init.sh RUN_DIR: first process of the control plane's namespaces.
#
# It says under which process id the host knows it (/proc is still the host's),
# then only collects children whose parents are gone.
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
