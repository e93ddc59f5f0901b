// SPDX-License-Identifier: Apache-2.0
//! The system calls that a daemon and its servers may not make.
//!
//! They serve containers, some of them as root, and need none of these: calls that change the machine or its namespaces, that
//! trace processes, or that reach parts of the kernel with many vulnerabilities. A container runtime sets no filter for a
//! privileged container such as the MPS host. Calls that are not listed stay allowed, because the calls of NVIDIA's programs
//! differ by version. The server of root can still reach the memory of other processes, for which it has
//! CAP_SYS_PTRACE.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// Denied with any arguments.
const DENIED: [i64; 45] = [
    // Settings of the machine: clock, kernel, modules, quotas.
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
    // Parts of the kernel with many vulnerabilities.
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

/// Denies these calls to this thread and all that it starts, irrevocably. The thread must have set `no_new_privs`.
pub fn apply_filters() -> io::Result<()> {
    for filter in filters().map_err(io::Error::other)? {
        match seccompiler::apply_filter(&filter) {
            Err(Error::Prctl(error) | Error::Seccomp(error)) => return Err(error),
            applied => applied.map_err(io::Error::other)?,
        }
    }
    Ok(())
}

fn filters() -> Result<[BpfProgram; 3], BackendError> {
    let denied =
        DENIED.map(|call| (call, Vec::new())).into_iter().chain([(libc::SYS_clone, vec![creates_user_namespace()?])]);
    // The flags of clone3 are in memory, which a filter cannot read. glibc falls back to `clone` on ENOSYS.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([filter(denied.collect(), libc::EPERM)?, filter(unknown, libc::ENOSYS)?, deny_x32()])
}

/// A process in a new user namespace has all capabilities there.
fn creates_user_namespace() -> Result<SeccompRule, BackendError> {
    let flag = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let is_asked_for = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
    SeccompRule::new(vec![is_asked_for])
}

fn filter(calls: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), arch)?.try_into()
}

/// On x86-64 some kernels have every call twice, the second time with this bit in its number (x32). No other architecture has it.
const X32_BIT: u32 = 0x4000_0000;

fn deny_x32() -> BpfProgram {
    let step = |code: u32, jf: u8, k: u32| sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf, k };
    vec![
        // The number of the call is the first field of the input of a filter.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32_BIT),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::thread::set_no_new_privs;

    use super::*;

    /// Makes a call by its number.
    #[expect(unsafe_code, reason = "no library makes these calls")]
    fn call(number: i64, argument: i64) -> io::Result<i64> {
        // SAFETY: none of the calls below reads or writes memory: every pointer argument is null and every length is 0.
        match unsafe { libc::syscall(number, argument, 0, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            reply => Ok(reply),
        }
    }

    #[test]
    fn needed_calls_are_allowed_and_others_are_denied() {
        let limited = || {
            set_no_new_privs(true).unwrap();
            apply_filters().unwrap();
            let error = |number, argument| call(number, argument).unwrap_err().raw_os_error();
            assert_eq!(error(libc::SYS_unshare, -1), Some(libc::EPERM));
            assert_eq!(error(libc::SYS_clone3, 0), Some(libc::ENOSYS));
            // The second flag is invalid with it, so that no process is created in any case.
            let flags = i64::from(libc::CLONE_NEWUSER | libc::CLONE_FS);
            assert_eq!(error(libc::SYS_clone, flags), Some(libc::EPERM));
            assert_eq!(error(i64::from(X32_BIT) | libc::SYS_getpid, 0), Some(libc::EPERM));
            call(libc::SYS_getpid, 0).unwrap();
            let ran = Command::new("true").status().unwrap();
            let thread = std::thread::spawn(|| std::fs::read("/proc/self/status").unwrap().len());
            assert!(ran.success() && thread.join().unwrap() > 0);
        };
        // A filter applies to one thread and those that it starts.
        std::thread::spawn(limited).join().unwrap();
        let flags = i64::from(libc::CLONE_NEWUSER | libc::CLONE_FS);
        let unlimited = [call(libc::SYS_clone3, 0), call(libc::SYS_clone, flags), call(libc::SYS_unshare, -1)];
        assert_eq!(unlimited.map(|result| result.unwrap_err().raw_os_error()), [Some(libc::EINVAL); 3]);
    }

    #[test]
    fn no_call_is_listed_twice() {
        let calls: std::collections::BTreeSet<i64> = DENIED.into_iter().collect();
        assert_eq!(calls.len(), DENIED.len());
    }
}
