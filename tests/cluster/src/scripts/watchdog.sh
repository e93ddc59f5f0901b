# SPDX-License-Identifier: Apache-2.0
# watchdog.sh RUN_DIR
#
# Holds one cluster and removes it at SIGTERM, or when the pipe on standard
# input is closed, which happens however the owner terminates. The word "stay"
# on the pipe lets the cluster outlive the owner. Every program of the cluster
# is in the PID namespace created here, so that the kernel kills all of them
# with its first process.
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

# The first process terminates after all others of its namespace; its parent reaps it.
if [ -s "$run_dir/init.pid" ]; then
    kill -KILL "$(cat "$run_dir/init.pid")"
else
    kill -KILL "$held"
fi
wait
sh "$run_dir/clean.sh" "$run_dir"
