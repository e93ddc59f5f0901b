# SPDX-License-Identifier: Apache-2.0
# node-init.sh NODE_DIR PROGRAMS_DIR NODE_NAME GROUP: first process of a node.
#
# Bind-mounts the node's own directories over those of Kubernetes, containerd,
# CNI and CDI, makes its control group the root, writes its PID in the namespace
# of the host, then reaps orphaned processes. Sources are relative to the node's
# directory, which stays reachable when its path is mounted over.
set -eu
read -r pid _ </proc/self/stat
cd "$1"
hostname "$3"
mount --bind "$2" "$1/bin"
mount -t proc proc /proc
for root in $(findmnt -rn -t cgroup,cgroup2 -o TARGET); do
    mount --bind "$root/$4" "$root"
    [ -f "$root/cgroup.controllers" ] || continue
    mkdir "$root/machine"
    echo 0 >"$root/machine/cgroup.procs"
    for controller in $(cat "$root/cgroup.controllers"); do
        echo "+$controller" >"$root/cgroup.subtree_control" || echo "no limits by $controller in $root"
    done
done
# A /dev of its own, in which the driver creates device files.
mount -t tmpfs -o mode=755 tmpfs ./dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx ./dev
for name in kmsg fuse net fd stdin stdout stderr; do
    [ ! -e "/dev/$name" ] || cp -a "/dev/$name" ./dev
done
mkdir ./dev/pts ./dev/shm ./dev/mqueue
mount --bind /dev/pts ./dev/pts
mount --rbind ./dev /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -c --bind ./etc /etc
mount -c --bind ./var-lib /var/lib
mount -c --bind ./var-log /var/log
mount -c --bind ./opt /opt
# Volumes that the kubelet mounts must be seen by containerd and by pods with mount propagation.
mount --bind /var/lib/kubelet /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/cluster/bin /run/nvidia/driver
mount -c --bind ./bin /run/cluster/bin
[ ! -d gpu ] || mount -c --bind ./gpu /run/nvidia/driver
# As where systemd boots a node: pods may follow what is mounted below it later.
mount --make-rshared /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
echo "$pid" >init.pid.new
mv init.pid.new init.pid
cd /
while :; do
    sleep infinity &
    wait $! || :
done
