// SPDX-License-Identifier: Apache-2.0
//! Containers of images of several distributions, which podman and runc start with the specs of the plugin: a program finds the
//! libraries of the driver by plain `dlopen`. Needs root, as container runtimes do.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod image;

mod podman;

mod distributions;

mod drivers;

mod compat;
