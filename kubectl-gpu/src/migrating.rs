// SPDX-License-Identifier: Apache-2.0
//! `migrate`: reads the cluster, prints the plan, or moves one node: print, ask, label, wait.

mod importing;

mod reading;

use std::borrow::Cow;
use std::time::Duration;

use dra_explain::access::Access;
use dra_explain::request::{ReadError, Resource, answered};
use dra_model::Advice;
use http::Request;
use kube::client::Body;
use serde_json::json;
use tokio::time::{Instant, Interval};

use crate::access::{AccessError, connect};
use crate::args::migrate::Migrate;
use crate::args::{Connection, Form};
use crate::migrate::moving::{Direction, Labels, Step, step};
use crate::migrate::{self, Cluster, Node};
use crate::output::{self, OutputError};

use self::importing::ConvertError;

/// Time between two looks at the cluster.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long programs may take to end and to start.
const PROGRAMS_TIMEOUT: Duration = Duration::from_mins(5);

/// There is no plan, or the node is not moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("the cluster has no node {node}")]
    NoNode { node: String },
    #[error("failed to convert the configurations of NVIDIA's components")]
    Convert(#[source] ConvertError),
    #[error("failed to label node {node}")]
    Label { node: String, source: ReadError },
    #[error("no confirmation was given, so nothing is changed")]
    NotConfirmed,
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
}

impl Advice for MigrateError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Read(source) => source.advice(),
            Self::Convert(source) => source.advice(),
            Self::NoNode { .. } => Some("`kubectl get nodes` lists the nodes".into()),
            Self::Label { source, .. } => {
                let cause = source.advice().map(|advice| format!("{advice}, then ")).unwrap_or_default();
                Some(format!("{cause}run the command again: it goes on from where it is").into())
            }
            Self::NotConfirmed => Some("run it again with --yes".into()),
            Self::Output(_) => None,
        }
    }
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Pods still use GPUs of the side that leaves, or programs are slow.
    Waits,
    /// Something must be changed first.
    Refused,
}

/// Prints the plan, or moves a node.
pub(crate) async fn migrate(connection: &Connection, args: &Migrate) -> Result<Outcome, MigrateError> {
    let access = connect(connection).await.map_err(MigrateError::Access)?;
    let driver = connection.driver_name.as_str();
    let Some(name) = &args.node else {
        let cluster = reading::cluster(&access.client, driver).await.map_err(MigrateError::Read)?;
        if args.conversion.values || args.conversion.objects {
            let text = importing::converted(&access.client, &cluster, &args.conversion).await;
            print(&text.map_err(MigrateError::Convert)?)?;
            return Ok(Outcome::Done);
        }
        return print_plan(&cluster, args.output);
    };
    let direction = if args.back { Direction::Back } else { Direction::ToUs };
    let timeout = args.wait.unwrap_or(PROGRAMS_TIMEOUT);
    let interval = tokio::time::interval(POLL_INTERVAL);
    let command = Move { access, driver, name, direction, args, deadline: Instant::now() + timeout, interval };
    command.run().await
}

fn print_plan(cluster: &Cluster, form: Form) -> Result<Outcome, MigrateError> {
    let plan = cluster.plan();
    let text = match form {
        Form::Table | Form::Wide => Ok(migrate::table(&plan, output::colours())),
        Form::Json => output::json(&plan),
        Form::Yaml => output::yaml(&plan),
    };
    print(&text.map_err(MigrateError::Output)?)?;
    Ok(Outcome::Done)
}

/// A move of one node.
struct Move<'a> {
    access: Access,
    driver: &'a str,
    name: &'a str,
    direction: Direction,
    args: &'a Migrate,
    deadline: Instant,
    interval: Interval,
}

/// Whether the user agreed already, and what was printed last.
#[derive(Default)]
struct Progress {
    is_confirmed: bool,
    printed: String,
}

impl Move<'_> {
    async fn run(mut self) -> Result<Outcome, MigrateError> {
        let mut progress = Progress::default();
        loop {
            self.interval.tick().await;
            let cluster = self.read().await?;
            let Some(node) = cluster.node(self.name) else {
                return Err(MigrateError::NoNode { node: self.name.to_owned() });
            };
            let (text, labels) = match step(&cluster, node, self.direction) {
                Step::Done => return self.done(&cluster, node),
                Step::Refused(reasons) => {
                    print(&migrate::refusal(node, &reasons, output::colours()))?;
                    return Ok(Outcome::Refused);
                }
                Step::InUse { users, closing } => {
                    let text = migrate::users(node, &users, output::colours());
                    if self.args.wait.is_none() {
                        print(&format!("{text}{}", self.in_use()))?;
                        return Ok(Outcome::Waits);
                    }
                    (text, closing)
                }
                Step::Change(labels) => (String::new(), labels),
                Step::Wait(what) => (format!("Waits for {what}.\n"), Labels::new()),
            };
            progress.print(&text)?;
            if !labels.is_empty() {
                if !self.confirm(&mut progress, node, &labels)? {
                    return Ok(Outcome::Done);
                }
                self.label(&labels).await?;
            } else if self.args.consent.dry_run {
                return Ok(Outcome::Done);
            } else if Instant::now() >= self.deadline {
                print("It takes longer; run the command again: it goes on from where it is.\n")?;
                return Ok(Outcome::Waits);
            }
        }
    }

    async fn read(&self) -> Result<Cluster, MigrateError> {
        let read = reading::whole(&self.access.client, self.driver).await;
        read.map_err(MigrateError::Read)
    }

    fn in_use(&self) -> String {
        let name = self.name;
        let (back, close) = match self.direction {
            Direction::ToUs => ("", String::new()),
            Direction::Back => {
                (" --back", format!("; `kubectl gpu drain --node {name} --all --no-evict` first keeps new claims away"))
            }
        };
        format!(
            "Nothing is changed. End these pods, or run `kubectl gpu migrate {name}{back} --wait`, which waits until they end{close}.\n"
        )
    }

    fn done(&self, cluster: &Cluster, node: &Node) -> Result<Outcome, MigrateError> {
        let text = match self.direction {
            Direction::ToUs => {
                format!("Node {} is of this driver. `kubectl gpu migrate {0} --back` returns it.\n", self.name)
            }
            Direction::Back if cluster.components_on(node).next().is_none() => {
                format!("Node {} is free of this driver; no component of NVIDIA selects it.\n", self.name)
            }
            Direction::Back => format!("Node {} is of NVIDIA's components.\n", self.name),
        };
        print(&text)?;
        Ok(Outcome::Done)
    }

    /// Before the first change. A dry run ends here.
    fn confirm(&self, progress: &mut Progress, node: &Node, labels: &Labels) -> Result<bool, MigrateError> {
        if progress.is_confirmed {
            return Ok(true);
        }
        print(&migrate::announcement(node, self.direction, labels))?;
        if self.args.consent.dry_run {
            return Ok(false);
        }
        if !self.args.consent.yes && !output::confirmed().map_err(MigrateError::Output)? {
            return Err(MigrateError::NotConfirmed);
        }
        progress.is_confirmed = true;
        Ok(true)
    }

    async fn label(&self, labels: &Labels) -> Result<(), MigrateError> {
        let nodes = Resource::core("nodes", None);
        let patch = json!({"metadata": {"labels": labels}});
        let request = Request::patch(nodes.path_of(self.name)).header("content-type", "application/merge-patch+json");
        let request = request.body(Body::from(patch.to_string().into_bytes()));
        let answer = answered(&self.access.client, request, &nodes, "patch").await;
        answer.map(|_body| ()).map_err(|source| MigrateError::Label { node: self.name.to_owned(), source })
    }
}

impl Progress {
    /// Only what is new.
    fn print(&mut self, text: &str) -> Result<(), MigrateError> {
        if !text.is_empty() && self.printed != text {
            print(text)?;
            text.clone_into(&mut self.printed);
        }
        Ok(())
    }
}

fn print(text: &str) -> Result<(), MigrateError> {
    output::print(text).map_err(MigrateError::Output)
}
