// SPDX-License-Identifier: Apache-2.0
//! The subcommands that ask the cluster: each reads what it needs at once, decides, and prints.

use std::io::{self, Read as _};
use std::path::Path;

use dra_explain::access::Access;
use dra_explain::cluster::{Cluster, NO_RULES, unread};
use dra_explain::reading;
use dra_explain::request::Resource;
use dra_explain::subject_reading::subject;
use dra_explain::why::{Verdict, Why};

use crate::access::connect;
use crate::age::Clock;
use crate::args::{self, Connection, Form};
use crate::error::AppError;
use crate::fit::{self, Fit};
use crate::manifest::Manifest;
use crate::output;
use crate::status::{self, Listed, Seen, Status, View};
use crate::watch::{self, Repeat};
use crate::why_table;

/// Shows the GPUs.
pub(crate) async fn print_status(connection: &Connection, args: &args::Status) -> Result<(), AppError> {
    let access = connect(connection).await.map_err(AppError::Access)?;
    let answer = async || {
        let status = read_status(&access, connection, args).await?;
        let text = match args.output {
            Form::Table => Ok(status::table(&status, View::Short, output::colours())),
            Form::Wide => Ok(status::table(&status, View::Wide, output::colours())),
            Form::Json => output::json(&status),
            Form::Yaml => output::yaml(&status),
        };
        text.map_err(AppError::Output)
    };
    watch::print(Repeat::of_flag(args.watch), args.output, answer).await
}

/// Reads what `status` shows.
async fn read_status(access: &Access, connection: &Connection, args: &args::Status) -> Result<Status, AppError> {
    let node = args.node.as_deref();
    let (pools, usage, waiting, version) = futures::join!(
        reading::pools(&access.client, node),
        reading::usage(access),
        reading::waiting_pods(access, args.all_namespaces),
        access.client.apiserver_version(),
    );
    let (pools, usage, waiting) =
        (pools.map_err(AppError::Read)?, usage.map_err(AppError::Read)?, waiting.map_err(AppError::Read)?);
    if let Some(node) = node
        && !pools.found.iter().any(|pool| *pool.driver == *connection.driver_name)
    {
        return Err(AppError::NoNode { node: node.to_owned(), driver: connection.driver_name.clone() });
    }
    let listed = match node {
        Some(_) if !args.all_namespaces => Listed::OnNodes,
        _ if args.all_namespaces => Listed::All,
        _ => Listed::Namespace(access.namespace.clone()),
    };
    let claims = usage.missing.iter().map(|right| unread(right, "GPUs that claims there hold are shown as free"));
    let pods = waiting.missing.iter().map(|right| unread(right, "pods that wait for devices are not counted"));
    let taints = pools.missing.iter().map(|right| unread(right, NO_RULES));
    let seen = Seen {
        pools: &pools.found,
        usage: &usage.found,
        waiting: &waiting.found,
        driver: &connection.driver_name,
        // Every user may read the version; a proxy before the API server may hide it.
        server_version: version.map_or_else(|_| "of an unknown version".to_owned(), |info| info.git_version),
        incomplete: claims.chain(pods).chain(taints).collect(),
    };
    Ok(status::status(seen, &listed))
}

/// Explains one subject.
pub(crate) async fn print_why(connection: &Connection, args: &args::Why) -> Result<Verdict, AppError> {
    let access = connect(connection).await.map_err(AppError::Access)?;
    let why = read_why(&access, args).await?;
    let text = match args.output {
        Form::Table | Form::Wide => Ok(why_table::table(&why, Clock::now(), output::colours())),
        Form::Json => output::json(&why),
        Form::Yaml => output::yaml(&why),
    };
    output::print(&text.map_err(AppError::Output)?).map_err(AppError::Output)?;
    Ok(why.verdict)
}

/// Reads what `why` needs, first the subject: the cluster is read only for claims that are not allocated.
async fn read_why(access: &Access, args: &args::Why) -> Result<Why, AppError> {
    let classes = reading::classes(&access.client).await.map_err(AppError::Read)?;
    let (subject, missing) = subject(access, &args.name, &classes).await.map_err(AppError::Subject)?;
    let incomplete = missing.iter().map(|right| unread(right, "Events are not considered")).collect();
    let is_needed = !subject.unallocated().is_empty();
    let cluster = if is_needed { Cluster::read(access).await.map_err(AppError::Read)? } else { Cluster::default() };
    Ok(cluster.why(&classes, &subject, incomplete))
}

/// Judges the workloads of a file.
pub(crate) async fn print_fit(connection: &Connection, args: &args::Fit) -> Result<Vec<Verdict>, AppError> {
    let objects = read_objects(&args.file)?;
    let access = connect(connection).await.map_err(AppError::Access)?;
    let unusable = |source| AppError::Manifest { path: args.file.clone(), source };
    let mut manifest = Manifest::read(&objects, &access.namespace).map_err(unusable)?;
    for reference in manifest.references() {
        let resource = Resource::dra(reference.plural, Some(&reference.namespace));
        let found = reading::json(&access.client, &resource, &reference.name).await.map_err(AppError::Read)?;
        if let Some(object) = found {
            manifest.resolve(&reference, object);
        }
    }
    let classes = reading::classes(&access.client).await.map_err(AppError::Read)?;
    let workloads = manifest.workloads(&classes).map_err(unusable)?;
    let cluster = Cluster::read(&access).await.map_err(AppError::Read)?;
    let fits: Vec<Fit> = workloads.iter().map(|workload| fit::fit(workload, cluster.seen(&classes))).collect();
    let text = match args.output {
        Form::Table | Form::Wide => Ok(fit::table(&fits, &cluster.notes, Clock::now(), output::colours())),
        Form::Json => output::json(&fits),
        Form::Yaml => output::yaml(&fits),
    };
    output::print(&text.map_err(AppError::Output)?).map_err(AppError::Output)?;
    Ok(fits.iter().map(|fit| fit.verdict).collect())
}

/// The objects of a file, or of standard input.
fn read_objects(path: &Path) -> Result<Vec<serde_json::Value>, AppError> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = read.map_err(|source| AppError::File { path: path.to_owned(), source })?;
    let parsed = serde_saphyr::from_multiple(&text);
    parsed.map_err(|source| AppError::Yaml { path: path.to_owned(), source: Box::new(source) })
}
