// SPDX-License-Identifier: Apache-2.0
//! Where the reports about the node come from: the kubelet plugin or a file.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::Source;
use crate::node_report::NodeReport;

pub mod file;

pub mod stream;

/// Sends the reports of the source until `stop`.
pub async fn follow(source: Source, report: watch::Sender<NodeReport>, stop: CancellationToken) {
    match source {
        Source::Socket(socket) => stream::follow(socket, report, stop).await,
        Source::File(path) => file::follow(path, report, stop).await,
    }
}
