// SPDX-License-Identifier: Apache-2.0
//! Addresses, links and routes.
//!
//! ```text
//! host  gd-<name> .2 --- host0 \
//!                               br0 .1  control plane
//! node-1  eth0 .11 ---- node-1 /
//! node-2  eth0 .12 ---- node-2 /
//! ```
//!
//! All in 10.199.<x>.0/24, with x of its own for each cluster. Pods of node n
//! have 10.244.<n>.0/24, which only the nodes and the control plane know. Link
//! addresses are fixed, as on a real machine, so that ARP entries stay valid after
//! a reboot of a node or a new port of the bridge.

use crate::{
    command,
    error::{ClusterError, Result},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt::Write, process::Command};

/// The first service address, which the API server assigns to itself.
pub(crate) const API_SERVICE_ADDRESS: &str = "10.96.0.1";
/// Addresses of services.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Addresses of pods of all nodes.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";

/// The third byte of a cluster's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Subnet(u8);

impl Subnet {
    /// The lowest subnet that no cluster and no route of the host uses.
    pub(crate) fn free(taken: &BTreeSet<Self>) -> Result<Self> {
        let routes = command::output(Command::new("ip").args(["-4", "route", "show", "table", "all"]))?;
        (0..=255)
            .map(Self)
            .find(|subnet| !taken.contains(subnet) && !routes.contains(&subnet.prefix()))
            .ok_or(ClusterError::NoSubnet)
    }

    pub(crate) fn control_plane(self) -> String {
        format!("{}1", self.prefix())
    }

    /// Nodes are counted from 1.
    pub(crate) fn node(self, number: usize) -> String {
        format!("{}{}", self.prefix(), 10 + number)
    }

    fn host(self) -> String {
        format!("{}2", self.prefix())
    }

    fn prefix(self) -> String {
        format!("10.199.{}.", self.0)
    }
}

/// The pod addresses of a node.
pub(crate) fn pod_subnet(number: usize) -> String {
    format!("10.244.{number}.0/24")
}

/// Creates the bridge of the control plane and connects the host to it.
pub(crate) fn connect_control_plane(name: &str, subnet: Subnet, control_plane_pid: u32) -> Result<()> {
    let address = subnet.control_plane();
    in_network_of(
        control_plane_pid,
        &format!(
            "ip link set lo up
             ip link add br0 address 02:67:70:75:00:01 type bridge
             ip addr add {address}/24 dev br0
             ip link set br0 up
             echo 1 >/proc/sys/net/ipv4/ip_forward"
        ),
    )?;
    let host = subnet.host();
    shell(&format!(
        "ip link add gd-{name} type veth peer name host0 netns {control_plane_pid}
         ip addr add {host}/24 dev gd-{name}
         ip link set gd-{name} up"
    ))?;
    in_network_of(control_plane_pid, "ip link set host0 master br0 up")
}

/// Connects a node to the bridge and adds the routes to the pods.
pub(crate) fn connect_node(
    subnet: Subnet,
    control_plane_pid: u32,
    node: (&str, usize, u32),
    node_count: usize,
) -> Result<()> {
    let (name, number, pid) = node;
    let (address, pods) = (subnet.node(number), pod_subnet(number));
    let mac = 10 + number;
    in_network_of(
        control_plane_pid,
        // After a node's reboot its old link may still exist.
        &format!(
            "ip link del {name} 2>/dev/null || :
             ip link add {name} type veth peer name eth0 address 02:67:70:75:00:{mac:02x} netns {pid}
             ip link set {name} master br0 up
             ip route replace {pods} via {address}"
        ),
    )?;
    let mut script = format!(
        "ip link set lo up
         ip addr add {address}/24 dev eth0
         ip link set eth0 up
         ip route add default via {}
         echo 1 >/proc/sys/net/ipv4/ip_forward\n",
        subnet.control_plane()
    );
    for other in (1..=node_count).filter(|other| *other != number) {
        let (pods, address) = (pod_subnet(other), subnet.node(other));
        writeln!(script, "ip route add {pods} via {address}").ok(); // a string takes every write
    }
    in_network_of(pid, &script)
}

fn in_network_of(pid: u32, script: &str) -> Result<()> {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net=/proc/{pid}/ns/net"));
    command::output(nsenter.args(["sh", "-ec", script])).map(drop)
}

fn shell(script: &str) -> Result<()> {
    command::output(Command::new("sh").args(["-ec", script])).map(drop)
}
