# SPDX-License-Identifier: Apache-2.0
# watchdog.sh RUN_DIR
#
# Holds one cluster and takes it down when it is no longer wanted: at SIGTERM,
# or when the pipe on standard input closes, which it does however the owner
# ends. The word "stay" on the pipe means that the cluster is to outlive the
# owner. Every program of the cluster lives in the process namespace made here,
# so that the kernel ends them all with its first process.
set -u
run_dir=$1
exec 3<&0 </dev/null 9>"$run_dir/lock"
flock -w 5 9 || exit 3
echo $$ >"$run_dir/watchdog.pid"
waiter=
trap '[ -z "$waiter" ] || kill "$waiter" 2>/dev/null' TERM
trap '' INT HUP

setpriv --pdeathsig KILL unshare --pid --net --mount --ipc --uts --fork --kill-child \
    sh "$run_dir/init.sh" "$run_dir" 3<&- 9>&- &
held=$!

setpriv --pdeathsig KILL sh -c 'read -r word; [ "$word" = stay ] && exec sleep infinity' <&3 3<&- 9>&- &
waiter=$!
wait "$waiter"
kill "$waiter" 2>/dev/null

# The first process is gone only after all others of its namespace; the one that holds it collects it.
if [ -s "$run_dir/init.pid" ]; then
    kill -KILL "$(cat "$run_dir/init.pid")"
else
    kill -KILL "$held"
fi
wait
sh "$run_dir/clean.sh" "$run_dir"
