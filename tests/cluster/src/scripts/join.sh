# SPDX-License-Identifier: Apache-2.0
# join.sh GROUP COMMAND...: runs a command in a control group of every
# hierarchy, of cgroup v1 and v2 alike, and makes the groups where they are missing.
set -eu
group=$1
shift
for root in $(findmnt -rn -t cgroup,cgroup2 -o TARGET); do
    path=$root
    if ! [ -d "$root/$group" ]; then
        for part in $(echo "$group" | tr / ' '); do
            parent=$path path=$path/$part
            mkdir -p "$path"
            # In v1 a new group has no processors and no memory nodes.
            for file in cpuset.cpus cpuset.mems; do
                [ ! -f "$path/cgroup.clone_children" ] || [ ! -f "$path/$file" ] || cat "$parent/$file" >"$path/$file"
            done
            # In cgroup v2 a group enables controllers for its child groups.
            for controller in $(cat "$parent/cgroup.controllers" 2>/dev/null); do
                echo "+$controller" >"$parent/cgroup.subtree_control" 2>/dev/null || :
            done
        done
    fi
    path=$root/$group
    # In v2 a group with groups below has no processes of its own; see node-init.sh.
    [ ! -d "$path/machine" ] || path=$path/machine
    echo 0 >"$path/cgroup.procs"
done
exec "$@"
