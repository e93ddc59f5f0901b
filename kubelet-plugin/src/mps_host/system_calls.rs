// SPDX-License-Identifier: Apache-2.0
//! The system calls that a daemon and its servers may not make.
//!
//! They take requests from containers, as root in part, and need none of these: calls that change the machine or its
//! namespaces, that look into other processes, or that open parts of the kernel where faults are found every year. Container
//! runtimes deny the same in their default profiles, but run the MPS host without one, since it is privileged. What is not
//! named here stays allowed: what a version of NVIDIA's programs calls is not known.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Denied whatever their arguments are.
const DENIED: [i64; 45] = [
    // The machine.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Mounts and namespaces.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Files and processes past their permissions.
    libc::SYS_fanotify_init,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_ptrace,
    // Parts of the kernel that are attacked.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
];

/// Gives up these calls for good, for this thread and whatever it runs. It must have given up getting new rights before.
pub fn reduce() -> io::Result<()> {
    for filter in filters().map_err(io::Error::other)? {
        match seccompiler::apply_filter(&filter) {
            Err(Error::Prctl(error) | Error::Seccomp(error)) => return Err(error),
            applied => applied.map_err(io::Error::other)?,
        }
    }
    Ok(())
}

fn filters() -> Result<[BpfProgram; 2], BackendError> {
    let denied = DENIED.map(|call| (call, Vec::new())).into_iter().chain([(libc::SYS_clone, vec![makes_a_user()?])]);
    // Its flags lie in memory, where no filter looks. glibc goes on with `clone` where the kernel does not know this call.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([filter(denied.collect(), libc::EPERM)?, filter(unknown, libc::ENOSYS)?])
}

/// A process in a user namespace of its own has all rights there.
fn makes_a_user() -> Result<SeccompRule, BackendError> {
    let flag = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let is_asked_for = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
    SeccompRule::new(vec![is_asked_for])
}

fn filter(calls: BTreeMap<i64, Vec<SeccompRule>>, answer: i32) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(answer.unsigned_abs()), arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::mount::{MountFlags, mount};
    use rustix::thread::set_no_new_privs;

    use super::*;

    #[test]
    fn what_a_daemon_does_works_and_what_it_has_no_use_for_does_not() {
        let limited = || {
            set_no_new_privs(true).unwrap();
            reduce().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let mounted = mount("none", dir.path(), "tmpfs", MountFlags::empty(), None);
            // With a thread and a process, in other words with `clone`.
            let ran = Command::new("unshare").args(["--user", "true"]).status().unwrap();
            let thread = std::thread::spawn(|| std::fs::read("/proc/self/status").unwrap().len());
            (mounted, ran.code(), thread.join().unwrap() > 0)
        };
        // A filter is for one thread and those that it starts.
        let found = std::thread::spawn(limited).join().unwrap();
        assert_eq!(found, (Err(Errno::PERM), Some(1), true));
    }

    #[test]
    fn nothing_is_named_twice() {
        let calls: std::collections::BTreeSet<i64> = DENIED.into_iter().collect();
        assert_eq!(calls.len(), DENIED.len());
    }
}
