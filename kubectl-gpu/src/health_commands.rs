// SPDX-License-Identifier: Apache-2.0
//! The subcommands about health and use of GPUs: each reads, decides and prints, once or until it is stopped.

use dra_allocation::Pools;

use crate::access::connect;
use crate::age::Clock;
use crate::args::{Connection, Form, service};
use crate::error::AppError;
use crate::faults::{self, Faults, Seen};
use crate::holders::{EmptyEffect, Holder};
use crate::output;
use crate::service_reading::{self, if_permitted};
use crate::status::View;
use crate::top::{self, Top};
use crate::top_reading;
use crate::watch::{self, Repeat};
use dra_explain::access::Access;
use dra_explain::reading::{self, Read};
use dra_explain::request::{ReadError, Right};

/// Explains the faults.
pub(crate) async fn print_faults(connection: &Connection, args: &service::Faults) -> Result<(), AppError> {
    let access = connect(connection).await.map_err(AppError::Access)?;
    let answer = async || {
        let faults = read_faults(&access, connection, args.node.as_deref()).await?;
        let (clock, colours) = (Clock::now(), output::colours());
        let text = match args.output {
            Form::Table => Ok(faults::table(&faults, View::Short, clock, colours)),
            Form::Wide => Ok(faults::table(&faults, View::Wide, clock, colours)),
            Form::Json => output::json(&faults),
            Form::Yaml => output::yaml(&faults),
        };
        text.map_err(AppError::Output)
    };
    watch::print(Repeat::of_flag(args.watch), args.output, answer).await
}

async fn read_faults(access: &Access, connection: &Connection, node: Option<&str>) -> Result<Faults, AppError> {
    let (client, driver) = (&access.client, connection.driver_name.as_str());
    let (pools, rules, holders, events, version) = futures::join!(
        reading::published(client, node),
        service_reading::rules(client),
        holders(access, driver),
        service_reading::node_events(client, driver, node),
        client.apiserver_version(),
    );
    let pools = pools.map_err(AppError::Read)?;
    has_node(&pools, connection, node)?;
    let rules = if_permitted(rules).map_err(AppError::Read)?;
    let events = if_permitted(events).map_err(AppError::Read)?;
    let holders = holders.map_err(AppError::Read)?;
    let unread = |rights: &[Right], hidden: &str| -> Vec<String> {
        rights.iter().map(|right| format!("{right} is missing: {hidden}")).collect()
    };
    let seen = Seen {
        pools: &pools,
        driver,
        incomplete: [
            unread(&rules.missing, "taints by administrators and drained GPUs are not listed"),
            unread(&holders.missing, "claims there are not listed"),
            unread(&events.missing, "Events of the driver are not listed"),
        ]
        .concat(),
        rules: &rules.found.map(|rules| rules.found).unwrap_or_default(),
        holders: &holders.found,
        events: &events.found,
        empty_effect: EmptyEffect::in_version(&version.map(|info| info.minor).unwrap_or_default()),
    };
    Ok(faults::faults(seen))
}

/// Shows what is used.
pub(crate) async fn print_top(connection: &Connection, args: &service::Top) -> Result<(), AppError> {
    let access = connect(connection).await.map_err(AppError::Access)?;
    let answer = async || {
        let top = read_top(&access, connection, args).await?;
        let text = match args.output {
            Form::Table | Form::Wide => Ok(top::table(&top, output::colours())),
            Form::Json => output::json(&top),
            Form::Yaml => output::yaml(&top),
        };
        text.map_err(AppError::Output)
    };
    watch::print(Repeat::of_flag(args.watch), args.output, answer).await
}

async fn read_top(access: &Access, connection: &Connection, args: &service::Top) -> Result<Top, AppError> {
    let (client, driver, node) = (&access.client, connection.driver_name.as_str(), args.node.as_deref());
    let (pools, holders, measured) = futures::join!(
        reading::published(client, node),
        holders(access, driver),
        top_reading::measured(client, &args.driver_namespace, node),
    );
    let pools = pools.map_err(AppError::Read)?;
    has_node(&pools, connection, node)?;
    let (holders, measured) = (holders.map_err(AppError::Read)?, measured.map_err(AppError::Read)?);
    let unread = holders.missing.iter().map(|right| format!("{right} is missing: claims there are not listed"));
    let is_of_namespace = !args.all_namespaces && node.is_none();
    Ok(top::top(top::Seen {
        pools: &pools,
        driver,
        holders: &holders.found,
        measured: &measured.by_node,
        namespace: is_of_namespace.then_some(access.namespace.as_str()),
        incomplete: unread.chain(measured.incomplete).collect(),
    }))
}

fn has_node(pools: &Pools, connection: &Connection, node: Option<&str>) -> Result<(), AppError> {
    let driver = &connection.driver_name;
    match node {
        Some(node) if !pools.iter().any(|pool| *pool.driver == **driver) => {
            Err(AppError::NoNode { node: node.to_owned(), driver: driver.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

/// The claims of the cluster; where they are not readable, those of the namespace.
async fn holders(access: &Access, driver: &str) -> Result<Read<Vec<Holder>>, ReadError> {
    let mut all = if_permitted(service_reading::holders(&access.client, None, driver).await)?;
    if !all.missing.is_empty() {
        let own = if_permitted(service_reading::holders(&access.client, Some(&access.namespace), driver).await)?;
        all.found = own.found;
        all.missing.extend(own.missing);
    }
    Ok(all)
}
