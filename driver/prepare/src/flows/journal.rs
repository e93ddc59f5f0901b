// SPDX-License-Identifier: Apache-2.0
//! Runs the effects of a new record: the record is durable before the first effect, and what an effect learned before the next
//! one. A record that is not ready names every effect that may be there, because progress alone is not written.
//!
//! The mark of a ready claim is appended without fsync; see `dra_checkpoint`.

use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore, Step, StoreError};

use crate::effects::error::EffectError;

/// Where the run stopped.
#[derive(Debug)]
pub(super) enum RunError {
    Record(StoreError),
    Effect(EffectError),
}

/// Applies every effect. After a failure the effects so far are still there, and so is their record if it could be written.
pub(super) fn run(
    record: &mut ClaimRecord,
    records: &RecordStore,
    apply: impl Fn(&Step, &mut ClaimRecord) -> Result<(), EffectError>,
) -> Result<(), RunError> {
    records.put(record).map_err(RunError::Record)?;
    while let ClaimState::Preparing { done, next } = record.state.clone() {
        let Some((first, rest)) = next.split_first() else { break };
        let (planned, state) = (record.devices.clone(), record.state.clone());
        if let Err(error) = apply(first, record) {
            // An effect that certainly did nothing is not undone, also not after a crash.
            if record.state != state {
                records.put(record).map_err(RunError::Record)?;
            }
            return Err(RunError::Effect(error));
        }
        let done = done.into_iter().chain([first.clone()]).collect();
        if rest.is_empty() {
            records.mark_ready(&record.claim.uid).map_err(RunError::Record)?;
            record.state = ClaimState::Ready { done };
        } else {
            record.state = ClaimState::Preparing { done, next: rest.to_vec() };
            if record.devices != planned {
                records.put(record).map_err(RunError::Record)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dra_checkpoint::store::Found;
    use dra_checkpoint::{RecordedDevice, RecordedHardware, RecordedSharing, Unknown};
    use dra_files::HostFiles;
    use dra_model::{ClaimRef, ComputeShare, GpuUuid, MigIdentity, MigIds, Placement};

    use super::*;

    fn record() -> ClaimRecord {
        let gpu: GpuUuid = "GPU-00000000-1111-2222-3333-444444444444".parse().unwrap();
        let identity = MigIdentity {
            parent: gpu,
            profile_id: 19,
            placement: Placement { start: 4, size: 1 },
            share: ComputeShare { start: 0, slices: 1, of: 1 },
        };
        let device = RecordedDevice {
            request: "mig".to_owned(),
            pool: "node-a".to_owned(),
            device: "gpu-00000000-mig-19-4".parse().unwrap(),
            admin_access: false,
            share_id: None,
            hardware: RecordedHardware::Partition {
                identity: identity.clone(),
                profile: "1g.10gb".to_owned(),
                created: None,
            },
            sharing: RecordedSharing::Plain,
            cdi_ids: Vec::new(),
            unknown: Unknown::new(),
        };
        let next = vec![Step::Partition { identity }, Step::ClaimSpec];
        ClaimRecord {
            claim: ClaimRef { namespace: "ns".to_owned(), name: "a".to_owned(), uid: "uid-a".parse().unwrap() },
            boot_id: "boot".to_owned(),
            base: "550.54.15".to_owned(),
            devices: vec![device],
            state: ClaimState::Preparing { done: Vec::new(), next },
            unknown: Unknown::new(),
        }
    }

    fn partition(record: &ClaimRecord) -> MigIdentity {
        record
            .effects()
            .into_iter()
            .find_map(|step| match step {
                Step::Partition { identity } => Some(identity),
                Step::ClaimSpec | Step::GpuSettings { .. } | Step::MpsDaemon { .. } => None,
            })
            .unwrap()
    }

    fn instance(record: &ClaimRecord) -> Option<u32> {
        record.created(&partition(record)).map(|ids| ids.gpu_instance)
    }

    fn on_disk(records: &RecordStore) -> ClaimRecord {
        match records.load(&"uid-a".parse().unwrap()).unwrap() {
            Found::Record(record) => *record,
            missing @ (Found::Nothing | Found::Quarantined(_)) => panic!("{missing:?}"),
        }
    }

    #[test]
    fn what_an_effect_learns_is_durable_before_the_next_effect_and_reaches_the_spec() {
        let dir = tempfile::tempdir().unwrap();
        let records = RecordStore::open(Arc::new(HostFiles), dir.path()).unwrap();
        let mut work = record();
        run(&mut work, &records, |step, record| {
            match step {
                Step::Partition { identity } => {
                    assert_eq!(instance(&on_disk(&records)), None, "the intent is durable before the effect");
                    let uuid = "MIG-00000000-0000-0000-0000-000000000000".parse().unwrap();
                    record.learn(identity, &MigIds { uuid, gpu_instance: 9, compute_instance: 0 });
                }
                Step::ClaimSpec => assert_eq!((instance(record), instance(&on_disk(&records))), (Some(9), Some(9))),
                Step::GpuSettings { .. } | Step::MpsDaemon { .. } => panic!("not in the record"),
            }
            Ok(())
        })
        .unwrap();
        assert!(work.is_ready());
        assert_eq!(on_disk(&records), work);
    }

    #[test]
    fn an_effect_that_certainly_did_nothing_is_on_disk_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let records = RecordStore::open(Arc::new(HostFiles), dir.path()).unwrap();
        let mut work = record();
        let outcome = run(&mut work, &records, |step, record| {
            let Step::Partition { identity } = step else { panic!("it goes on after a failure") };
            record.forget(identity);
            Err(EffectError::UnreadPartition { gpu: identity.parent.clone() })
        });
        assert!(matches!(outcome, Err(RunError::Effect(_))));
        assert_eq!((work.effects(), on_disk(&records)), (vec![Step::ClaimSpec], work.clone()));
    }
}
