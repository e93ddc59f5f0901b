// SPDX-License-Identifier: Apache-2.0
//! The CDI hook that completes the root filesystem of a container.
//!
//! A CDI spec mounts the libraries of the driver into directories that the loaders of most images trust. The hook adds what
//! a mount cannot do: programs that ask the loader's cache find the libraries, links have their names, and NVIDIA's libraries
//! create no device nodes. Without it, or if it does nothing, containers work as without these.
//!
//! ```text
//! command line of the spec -> arguments      invalid: nothing is changed
//! restrict                                   capabilities, system calls
//! state on standard input  -> container      root directory of the container
//! params                                     covers /proc/driver/nvidia/params, then mounts are denied
//! second thread, 500 ms: libraries -> symlinks -> cache_file
//! ```
//!
//! ```text
//! gpu-cdi-hook [--library-dir=DIR]… [--library=SONAME]… [--symlink=TARGET::LINK]… [--mask-params=/proc/driver/nvidia/params]
//! ```
//!
//! It runs as `createContainer` hook: in the mount namespace of the container, after its mounts and before the change to its
//! root, so that files of the image and of the host are both in reach (`config.md`, POSIX-platform Hooks, of the OCI runtime
//! specification). Three rules follow:
//!
//! * A path of the container is resolved by the kernel below its root ([`resolve`]), and only files of the root filesystem are
//!   changed: a volume is the property of others, even where the image has a link to it.
//! * It executes nothing, is linked statically and reads no variable of the environment. The spec must give the hook a variable
//!   all the same: with an empty list some runtimes pass on those of the image, which the C library reads before `main`.
//! * What the image contains is bounded before it is read, and a cache is parsed without trust ([`ld_cache`]).
//!
//! Reading order: [`hook`], [`arguments`], [`restrict`], [`system_calls`], [`container`], [`resolve`], [`params`],
//! [`libraries`], [`symlinks`], [`cache_file`], [`replace`], [`ld_cache`].

pub mod hook;

pub mod arguments;

pub mod restrict;

pub mod system_calls;

pub mod container;

pub mod resolve;

pub mod params;

pub mod libraries;

pub mod symlinks;

pub mod cache_file;

pub mod replace;

pub mod ld_cache;
