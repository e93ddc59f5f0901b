// SPDX-License-Identifier: Apache-2.0
//! The system calls that this program may make, as a filter of seccomp.
//!
//! Every other call fails with EPERM and the process goes on: a call that a later C library makes must not fail a container.
//! No path is opened but by `openat2`, no program is executed, no process or namespace is created, no memory becomes executable.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// What the process still has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Cover files of the container's procfs, then the other one.
    Mounts,
    /// Find the container and change its files.
    Files,
}

/// Files, and what the C library and the standard library need for memory, threads and the end of the process.
const FILES: [i64; 42] = [
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fchown,
    libc::SYS_fchmod,
    libc::SYS_getrandom,
    libc::SYS_ppoll,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_getpid,
    // To abort: the C library of GNU makes the first call, musl the second.
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Allowed by this filter, and denied with another error by the other one.
    libc::SYS_clone3,
    libc::SYS_umask,
];

/// In addition as long as there is something to mount or to limit.
const MOUNTS: [i64; 11] = [
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_umount2,
    libc::SYS_fchdir,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// Applies the filters to this thread and all that it starts, irrevocably. The thread must have set `no_new_privs`.
pub fn limit(phase: Phase) -> io::Result<()> {
    for filter in filters(phase).map_err(io::Error::other)? {
        match seccompiler::apply_filter(&filter) {
            Err(Error::Prctl(error) | Error::Seccomp(error)) => return Err(error),
            applied => applied.map_err(io::Error::other)?,
        }
    }
    Ok(())
}

fn filters(phase: Phase) -> Result<[BpfProgram; 2], BackendError> {
    let mounts = match phase {
        Phase::Mounts => MOUNTS.as_slice(),
        Phase::Files => &[],
    };
    let plain = FILES.iter().chain(mounts).map(|call| (*call, Vec::new()));
    let not_executable = |call| Ok((call, vec![has_bits(2, libc::PROT_EXEC, 0)?]));
    let limited = [
        not_executable(libc::SYS_mmap),
        not_executable(libc::SYS_mprotect),
        Ok((libc::SYS_clone, vec![has_bits(0, libc::CLONE_THREAD | NAMESPACES, libc::CLONE_THREAD)?])),
    ];
    let allowed = limited.into_iter().collect::<Result<Vec<_>, BackendError>>()?.into_iter().chain(plain).collect();
    let only_these = filter(allowed, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)?;
    // The flags of clone3 are in memory, which a filter cannot read. glibc falls back to `clone` on ENOSYS.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = filter(unknown, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))?;
    Ok([no_clone3, only_these])
}

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Whether the bits of `mask` of an argument have a value.
fn has_bits(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, BackendError> {
    let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?])
}

fn filter(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(calls, others, these, arch)?.try_into()
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::Errno;
    use rustix::thread::set_no_new_privs;

    use super::*;

    #[test]
    fn no_call_is_listed_twice() {
        let calls: BTreeSet<i64> = FILES.into_iter().chain(MOUNTS).collect();
        assert_eq!(calls.len(), FILES.len() + MOUNTS.len());
    }

    #[test]
    fn a_thread_starts_and_calls_that_are_not_listed_fail() {
        let limited = || {
            set_no_new_privs(true).unwrap();
            for phase in [Phase::Mounts, Phase::Files] {
                limit(phase).unwrap();
                assert_eq!(open("/", OFlags::RDONLY, Mode::empty()).unwrap_err(), Errno::PERM);
                assert!(std::process::Command::new("true").status().is_err());
                assert_eq!(std::thread::spawn(|| 5).join().unwrap(), 5);
            }
            assert_eq!(rustix::process::fchdir(rustix::fs::CWD).unwrap_err(), Errno::PERM);
            assert!(limit(Phase::Files).is_err());
        };
        // A filter applies to one thread and those that it starts.
        std::thread::spawn(limited).join().unwrap();
    }
}
