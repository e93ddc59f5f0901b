// SPDX-License-Identifier: Apache-2.0
//! The memory of a process that works rarely.

/// Returns freed memory to the kernel. The allocator of glibc does so by itself only for the end of its heap, where one small
/// value that is in use retains all that was freed before it (`man 3 malloc_trim`).
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the standard library has no such function")]
pub fn release_freed() {
    // SAFETY: the function takes a number, may be called at any time by any thread and changes no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Lets all threads allocate from two heaps. glibc makes up to eight for each processor core, and each retains memory of its own
/// (`man 3 mallopt`, `M_ARENA_MAX`). For a process of many threads that mostly wait, and only before it starts them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the standard library has no such function")]
pub fn limit_heaps() {
    // SAFETY: the function takes two numbers and changes no memory that is in use.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Other allocators decide by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn release_freed() {}

/// Other allocators decide by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn limit_heaps() {}
