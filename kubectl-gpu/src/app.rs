// SPDX-License-Identifier: Apache-2.0
//! Runs a subcommand: reads what it needs at once, decides, prints.

use std::borrow::Cow;
use std::io;
use std::process::ExitCode;

use clap::CommandFactory as _;
use dra_model::Advice;

use crate::access::{Access, AccessError};
use crate::args::{self, Args, Command, Connection, Form};
use crate::output::{self, OutputError};
use crate::reading::{self, ReadError, Right};
use crate::status::{self, Listed, Seen, Status, View};

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The question is answered, or what was asked about fits.
    Yes,
    Waits,
    Never,
    None,
}

impl Answer {
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Yes => ExitCode::SUCCESS,
            Self::Waits => ExitCode::from(1),
            Self::Never => ExitCode::from(2),
            Self::None => ExitCode::from(3),
        }
    }
}

/// The question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("failed to start")]
    Runtime(#[source] io::Error),
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
    #[error("node {node} has no ResourceSlice of the driver {driver}")]
    NoNode { node: String, driver: String },
}

impl Advice for AppError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Read(source) => source.advice(),
            Self::NoNode { .. } => Some("`kubectl gpu status` lists the nodes with GPUs".into()),
            Self::Runtime(_) | Self::Output(_) => None,
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Answer, AppError> {
    match &args.command {
        Command::Status(status) => connected(async || print_status(&args.connection, status).await),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "kubectl-gpu", &mut script);
            output::print(&String::from_utf8_lossy(&script)).map_err(AppError::Output)?;
            Ok(Answer::Yes)
        }
    }
}

fn connected(command: impl AsyncFnOnce() -> Result<Answer, AppError>) -> Result<Answer, AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(command())
}

async fn print_status(connection: &Connection, args: &args::Status) -> Result<Answer, AppError> {
    let access = Access::new(connection).await.map_err(AppError::Access)?;
    let status = read_status(&access, connection, args).await?;
    let text = match args.output {
        Form::Table => Ok(status::table(&status, View::Short, output::colours())),
        Form::Wide => Ok(status::table(&status, View::Wide, output::colours())),
        Form::Json => output::json(&status),
        Form::Yaml => output::yaml(&status),
    };
    output::print(&text.map_err(AppError::Output)?).map_err(AppError::Output)?;
    Ok(Answer::Yes)
}

/// Reads what `status` shows.
pub async fn read_status(access: &Access, connection: &Connection, args: &args::Status) -> Result<Status, AppError> {
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
        && !pools.iter().any(|pool| *pool.driver == *connection.driver_name)
    {
        return Err(AppError::NoNode { node: node.to_owned(), driver: connection.driver_name.clone() });
    }
    let listed = match node {
        Some(_) if !args.all_namespaces => Listed::OnNodes,
        _ if args.all_namespaces => Listed::All,
        _ => Listed::Namespace(access.namespace.clone()),
    };
    let unread = |right: &Right, hidden: &str| format!("{right} is missing: {hidden}");
    let claims = usage.missing.iter().map(|right| unread(right, "GPUs that claims there hold are shown as free"));
    let pods = waiting.missing.iter().map(|right| unread(right, "pods that wait for devices are not counted"));
    let seen = Seen {
        pools: &pools,
        usage: &usage.found,
        waiting: &waiting.found,
        driver: &connection.driver_name,
        // Every user may read the version; a proxy before the API server may hide it.
        server_version: version.map_or_else(|_| "of an unknown version".to_owned(), |info| info.git_version),
        incomplete: claims.chain(pods).collect(),
    };
    Ok(status::status(seen, &listed))
}
