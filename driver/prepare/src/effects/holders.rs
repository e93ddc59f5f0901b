// SPDX-License-Identifier: Apache-2.0
//! The processes that hold a GPU or an instance, as the users of a claim may read them: with pods of their own namespace only. The
//! log has the others.

use std::fmt;

use dra_hardware::Process;
use tracing::warn;

use crate::effects::tools::Tools;
use crate::state::references::Caller;

/// A process in an error text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    Process(Process),
    /// Its pod is in another namespace.
    Unnamed {
        id: u32,
    },
    /// The number of those that are not named.
    More(usize),
}

/// The length of an Event is limited.
const MAX_NAMED: usize = 8;

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => process.fmt(f),
            Self::Unnamed { id } => write!(f, "{id} (of a pod of another namespace)"),
            Self::More(count) => write!(f, "{count} more"),
        }
    }
}

/// For the error of a call.
pub(super) fn for_caller(processes: Vec<Process>, tools: &Tools<'_>) -> Vec<Holding> {
    let namespace = match tools.references.caller {
        Caller::Preparing(claim) | Caller::Unpreparing(claim) => Some(claim.namespace.as_str()),
        Caller::None => None,
    };
    listed(processes, namespace)
}

fn listed(processes: Vec<Process>, namespace: Option<&str>) -> Vec<Holding> {
    let more = processes.len().saturating_sub(MAX_NAMED);
    let named = processes.into_iter().take(MAX_NAMED).map(|process| holding(process, namespace));
    named.chain((more > 0).then_some(Holding::More(more))).collect()
}

fn holding(process: Process, namespace: Option<&str>) -> Holding {
    let is_foreign = |pod: &dra_hardware::Pod| namespace.is_some_and(|own| own != pod.namespace);
    if process.pod.as_ref().is_some_and(is_foreign) {
        warn!(%process, "the process holds a GPU that a claim of another namespace waits for");
        Holding::Unnamed { id: process.id }
    } else {
        Holding::Process(process)
    }
}

#[cfg(test)]
mod tests {
    use dra_hardware::Pod;

    use super::*;

    #[test]
    fn a_pod_is_named_to_its_own_namespace_and_to_the_log() {
        let pod = Pod { namespace: "team-a".to_owned(), name: "train-0".to_owned() };
        let process = Process { id: 7, command: Some("python3".to_owned()), pod: Some(pod) };
        let text = |namespace| holding(process.clone(), namespace).to_string();
        assert_eq!(text(Some("team-a")), "7 (python3 of pod team-a/train-0)");
        assert_eq!(text(None), "7 (python3 of pod team-a/train-0)");
        assert_eq!(text(Some("team-b")), "7 (of a pod of another namespace)");
        let many = listed(vec![process.clone(); 400], None);
        assert_eq!((many.len(), many[8].to_string().as_str()), (9, "392 more"));
        let without_pod = Process { pod: None, ..process };
        assert_eq!(holding(without_pod, Some("team-b")).to_string(), "7 (python3)");
    }
}
