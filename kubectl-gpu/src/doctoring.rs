// SPDX-License-Identifier: Apache-2.0
//! `doctor`: asks the API server and the plugins of the nodes, judges, prints, and writes the archive.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dra_model::Advice;
use dra_model::node_check::Severity;

use crate::access::{AccessError, connect};
use crate::args::{Connection, Form, node};
use crate::doctor::{self, Diagnosis, Seen, diagnose};
use crate::doctor_reading as read;
use crate::driver_pods::Found;
use crate::output::{self, OutputError};
use crate::report::{self, ReportError};
use crate::table::Colours;
use dra_explain::access::Access;

/// There is no diagnosis.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to write the archive")]
    Report(#[source] ReportError),
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
}

impl Advice for DoctorError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Report(source) => source.advice(),
            Self::Output(_) => None,
        }
    }
}

/// Prints what was found, and returns the worst of it.
pub(crate) async fn doctor(connection: &Connection, args: &node::Doctor) -> Result<Option<Severity>, DoctorError> {
    let access = connect(connection).await.map_err(DoctorError::Access)?;
    let (diagnosis, pods) = examine(&access, connection, args).await;
    if let Some(path) = &args.archive {
        let text = doctor::table(&diagnosis, Colours::Off);
        let json = output::json(&diagnosis).map_err(DoctorError::Output)?;
        let files = report::files(&access.client, &pods, args.node.as_deref()).await;
        let files = [("diagnosis.txt".to_owned(), text), ("diagnosis.json".to_owned(), json)].into_iter().chain(files);
        report::write(path, &files.collect()).map_err(DoctorError::Report)?;
    }
    let text = match args.output {
        Form::Table | Form::Wide => Ok(doctor::table(&diagnosis, output::colours())),
        Form::Json => output::json(&diagnosis),
        Form::Yaml => output::yaml(&diagnosis),
    };
    output::print(&text.map_err(DoctorError::Output)?).map_err(DoctorError::Output)?;
    Ok(diagnosis.worst())
}

async fn examine(access: &Access, connection: &Connection, args: &node::Doctor) -> (Diagnosis, Found) {
    let (client, driver) = (&access.client, connection.driver_name.as_str());
    let (only, namespace) = (args.node.as_deref(), args.driver.driver_namespace.as_str());
    let (pods, offset_ms) = futures::join!(read::pods(access, driver, namespace), read::clock_offset(client));
    let none = Found::default();
    let known = pods.as_ref().unwrap_or(&none);
    let first = known.pods.first();
    let (server_version, api_versions, gates, classes, pools) = futures::join!(
        read::server_version(client),
        read::api_versions(client),
        read::gates(client),
        read::classes(client),
        read::pools(client),
    );
    let (nodes, daemon_sets, denied, policies, answers, logs) = futures::join!(
        read::nodes(client),
        read::daemon_sets(client, &pods, namespace),
        read::denied(client, first),
        read::policies(client, first),
        read::answers(client, known, driver, only, offset_ms),
        read::logs(client, known),
    );
    let answers: BTreeMap<_, _> = answers;
    let seen = Seen {
        driver,
        server_version,
        api_versions,
        gates,
        classes,
        pools,
        pods,
        daemon_sets,
        denied,
        policies,
        nodes,
        answers,
        logs,
        only,
    };
    let diagnosis = diagnose(&seen);
    (diagnosis, seen.pods.unwrap_or_default())
}
