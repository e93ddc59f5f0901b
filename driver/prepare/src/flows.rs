// SPDX-License-Identifier: Apache-2.0
//! What the engine does, one function a flow: decide, make durable, act.
//!
//! Reading order: [`undo`], [`restore`], [`unprepare`], [`journal`], [`repair`], [`ensure`], [`end`], [`make_way`],
//! [`prepare`], [`report`], [`reconcile`], [`retire`], [`inspect`].

pub(crate) mod undo;

pub mod restore;

pub mod static_mig;

pub(crate) mod unprepare;

mod journal;

mod repair;

mod ensure;

mod end;

mod make_way;

pub(crate) mod prepare;

pub mod report;

pub(crate) mod reconcile;

pub(crate) mod retire;

pub mod inspect;
