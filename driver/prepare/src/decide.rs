// SPDX-License-Identifier: Apache-2.0
//! Decides from values alone: which hardware, which sharing, whether another claim is in conflict. No I/O, no clock.
//!
//! Reading order: [`target`], [`form`], [`holder`], [`refusal`], [`resolve`], [`configuration`], [`conflicts`], [`shares`],
//! [`sharing`], [`limits`], [`plan`], [`prepared_device`].

pub mod target;

pub mod form;

pub mod holder;

pub mod refusal;

pub mod resolve;

pub mod configuration;

pub mod conflicts;

pub mod shares;

pub mod sharing;

pub mod limits;

pub mod plan;

pub mod static_mig;

pub mod prepared_device;
