// SPDX-License-Identifier: Apache-2.0
//! A machine whose GPUs may hang without blocking the caller indefinitely.
//!
//! A call of NVML can stay in the kernel for good after a GPU fell off the bus, and nothing can end it. So every query of a GPU
//! runs on another thread than its caller. A query without result in time fails with a timeout, and until its thread returns
//! the same query fails at once. A hanging GPU therefore costs one thread for each kind of query. Queries of the driver itself have no
//! timeout, because loading may take long without persistence mode. A machine that is queried on behalf of a call also stops
//! at the deadline of the call, for queries of the driver too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use dra_model::{ComputeMode, GpuUuid, Interval, MigIdentity, MigIds};
use parking_lot::Mutex;

use crate::deadline::Deadline;
use crate::gpu_error::{GpuError, MachineError, NvmlCode};
use crate::health::{GpuCondition, GpuEvents, HealthMachine};
use crate::machine::{DriverVersions, GpuFacts, GpuProcess, GpuSelector, GpuShape, Machine, MigMachine, MigState};
use crate::measurements::Measurements;
use crate::query_threads::QueryThreads;

/// Far longer than a working GPU needs, and below the 45 s that the kubelet waits for a prepare.
pub(crate) const GPU_TIMEOUT: Duration = Duration::from_secs(30);

/// For the shape and the measurements of a GPU. Shapes are queried every second, one GPU after the other, so a hanging GPU must not delay the others
/// for long. A GPU that does not respond has changed its shape and is then read with the long timeout.
const SHAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// For settings that need nvidia-smi: two runs, each of which is killed at its own timeout.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(150);

/// The call in errors about a timeout.
const GIVEN_UP: &str = "waiting for NVML";

/// `NVML_ERROR_TIMEOUT`.
const NVML_TIMEOUT: NvmlCode = NvmlCode(10);

#[derive(Debug, Clone)]
pub(crate) struct TimeoutMachine {
    machine: Arc<dyn Machine>,
    timeout: Duration,
    deadline: Deadline,
    /// Queries that timed out and have not returned yet.
    hanging: Arc<Mutex<BTreeSet<Question>>>,
    threads: Arc<QueryThreads>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Driver,
    Count,
    Shape(u32),
    Index(u32),
    Uuid(GpuUuid),
    /// Queries and changes of settings and instances: while one of them hangs, no other one is started. So nothing is undone
    /// while it may still be made.
    Settings(GpuUuid),
    Health(GpuUuid),
    Measurements(GpuUuid),
}

/// The interface to a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nvml,
    Program,
}

impl TimeoutMachine {
    pub(crate) fn new(machine: Arc<dyn Machine>, timeout: Duration) -> Self {
        Self { machine, timeout, deadline: Deadline::none(), hanging: Arc::default(), threads: Arc::default() }
    }

    /// The same machine, queried on behalf of a call.
    pub(crate) fn until(&self, deadline: &Deadline) -> Self {
        Self { deadline: deadline.clone(), ..self.clone() }
    }

    fn timeout_for(&self, question: &Question) -> Duration {
        match question {
            Question::Driver | Question::Count => Duration::MAX,
            Question::Shape(_) | Question::Measurements(_) => self.timeout.min(SHAPE_TIMEOUT),
            Question::Index(_) | Question::Uuid(_) | Question::Settings(_) | Question::Health(_) => self.timeout,
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        question: &Question,
        ask: impl FnOnce(&dyn Machine) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        self.ask_for(self.timeout_for(question), question, ask)
    }

    fn ask_for<T: Send + 'static>(
        &self,
        own: Duration,
        question: &Question,
        ask: impl FnOnce(&dyn Machine) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        if self.hanging.lock().contains(question) {
            return Err(NoAnswer::GivenUp);
        }
        if self.deadline.is_over() {
            return Err(NoAnswer::OutOfTime);
        }
        let (sender, receiver) = sync_channel(1);
        let (machine, hanging, asked) = (Arc::clone(&self.machine), Arc::clone(&self.hanging), question.clone());
        let work = move || {
            let answer = ask(machine.as_ref());
            // Under the lock: a caller that times out either receives the answer or registers before it arrives.
            let mut hanging = hanging.lock();
            sender.send(answer).ok();
            hanging.remove(&asked);
        };
        if self.threads.run(work).is_err() {
            return Err(NoAnswer::GivenUp);
        }
        let limit = self.deadline.limit(own);
        match receiver.recv_timeout(limit) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::GivenUp),
            Err(RecvTimeoutError::Timeout) => {
                let mut hanging = self.hanging.lock();
                receiver.try_recv().map_err(|_still_none| {
                    tracing::warn!(?question, seconds = limit.as_secs(), "NVML does not respond");
                    hanging.insert(question.clone());
                    if limit < own { NoAnswer::OutOfTime } else { NoAnswer::GivenUp }
                })
            }
        }
    }

    /// A query of the driver itself, which has no limit but the deadline of the call.
    fn ask_driver<T: Send + 'static>(
        &self,
        question: &Question,
        ask: impl FnOnce(&dyn Machine) -> Result<T, MachineError> + Send + 'static,
    ) -> Result<T, MachineError> {
        if !self.deadline.is_set() {
            return ask(self.machine.as_ref());
        }
        let answer = self.ask(question, ask);
        answer.unwrap_or(Err(MachineError::NotAnswering { call: GIVEN_UP, code: NVML_TIMEOUT }))
    }
}

impl TimeoutMachine {
    fn ask_settings<T: Send + 'static>(
        &self,
        by: By,
        gpu: &GpuUuid,
        ask: impl FnOnce(&dyn Machine, &GpuUuid) -> Result<T, GpuError> + Send + 'static,
    ) -> Result<T, GpuError> {
        let asked = gpu.clone();
        let own = match by {
            By::Nvml => self.timeout,
            By::Program => PROGRAM_TIMEOUT,
        };
        let answer = self.ask_for(own, &Question::Settings(gpu.clone()), move |machine| ask(machine, &asked));
        answer.unwrap_or_else(|why| Err(why.about(GpuSelector::Uuid(gpu))))
    }
}

impl TimeoutMachine {
    fn ask_about<T: Send + 'static>(
        &self,
        question: &Question,
        gpu: &GpuUuid,
        ask: impl FnOnce(&dyn Machine, &GpuUuid) -> Result<T, GpuError> + Send + 'static,
    ) -> Result<T, GpuError> {
        let asked = gpu.clone();
        let answer = self.ask(question, move |machine| ask(machine, &asked));
        answer.unwrap_or_else(|why| Err(why.about(GpuSelector::Uuid(gpu))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoAnswer {
    /// The timeout of the query.
    GivenUp,
    /// The deadline of the call.
    OutOfTime,
}

impl NoAnswer {
    fn about(self, which: GpuSelector<'_>) -> GpuError {
        match self {
            Self::GivenUp => given_up(which),
            Self::OutOfTime => GpuError::OutOfTime { which: which.to_string() },
        }
    }
}

impl Machine for TimeoutMachine {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        self.ask_driver(&Question::Driver, |machine| machine.driver())
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        self.ask_driver(&Question::Count, |machine| machine.gpu_count())
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        let answer = match which {
            GpuSelector::Index(index) => {
                self.ask(&Question::Index(index), move |machine| machine.gpu(GpuSelector::Index(index)))
            }
            GpuSelector::Uuid(uuid) => {
                let asked = uuid.clone();
                self.ask(&Question::Uuid(uuid.clone()), move |machine| machine.gpu(GpuSelector::Uuid(&asked)))
            }
        };
        answer.unwrap_or_else(|why| Err(why.about(which)))
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        let answer = self.ask(&Question::Shape(index), move |machine| machine.shape(index));
        answer.unwrap_or_else(|_hangs| Ok(GpuShape::silent()))
    }

    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        self.ask_settings(By::Nvml, gpu, |machine, gpu| machine.compute_mode(gpu))
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        self.ask_settings(By::Nvml, gpu, move |machine, gpu| machine.set_compute_mode(gpu, mode))
    }

    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        self.ask_settings(By::Program, gpu, |machine, gpu| machine.interval(gpu))
    }

    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        self.ask_settings(By::Program, gpu, move |machine, gpu| machine.set_interval(gpu, interval))
    }
}

impl HealthMachine for TimeoutMachine {
    fn condition(&self, gpu: &GpuUuid) -> Result<GpuCondition, GpuError> {
        self.ask_about(&Question::Health(gpu.clone()), gpu, |machine, gpu| machine.condition(gpu))
    }

    fn events(&self, gpu: &GpuUuid) -> Result<Box<dyn GpuEvents>, GpuError> {
        self.ask_about(&Question::Health(gpu.clone()), gpu, |machine, gpu| machine.events(gpu))
    }

    fn measurements(&self, gpu: &GpuUuid) -> Result<Measurements, GpuError> {
        self.ask_about(&Question::Measurements(gpu.clone()), gpu, |machine, gpu| machine.measurements(gpu))
    }
}

impl MigMachine for TimeoutMachine {
    fn mig_state(&self, gpu: &GpuUuid) -> Result<MigState, GpuError> {
        self.ask_settings(By::Nvml, gpu, |machine, gpu| machine.mig_state(gpu))
    }

    fn set_mig_mode(&self, gpu: &GpuUuid, on: bool) -> Result<(), GpuError> {
        self.ask_settings(By::Nvml, gpu, move |machine, gpu| machine.set_mig_mode(gpu, on))
    }

    fn create_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let asked = mig.clone();
        self.ask_settings(By::Nvml, &mig.parent, move |machine, _| machine.create_gpu_instance(&asked))
    }

    fn create_compute_instance(&self, mig: &MigIdentity) -> Result<MigIds, GpuError> {
        let asked = mig.clone();
        self.ask_settings(By::Nvml, &mig.parent, move |machine, _| machine.create_compute_instance(&asked))
    }

    fn destroy_compute_instances(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let asked = mig.clone();
        self.ask_settings(By::Nvml, &mig.parent, move |machine, _| machine.destroy_compute_instances(&asked))
    }

    fn destroy_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let asked = mig.clone();
        self.ask_settings(By::Nvml, &mig.parent, move |machine, _| machine.destroy_gpu_instance(&asked))
    }

    fn processes(&self, gpu: &GpuUuid) -> Result<Vec<GpuProcess>, GpuError> {
        self.ask_settings(By::Nvml, gpu, |machine, gpu| machine.processes(gpu))
    }
}

fn given_up(which: GpuSelector<'_>) -> GpuError {
    let uuid = match which {
        GpuSelector::Index(_) => None,
        GpuSelector::Uuid(uuid) => Some(uuid.clone()),
    };
    GpuError::Failed { call: GIVEN_UP, which: which.to_string(), code: NVML_TIMEOUT, uuid, pci: None }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use dra_model::{MigMode, PciAddress, Version};
    use parking_lot::RwLock;

    use super::*;
    use crate::discover::discover;
    use crate::holders::ProcessRoots;
    use crate::host::{Host, Roots};

    /// Three GPUs. The second one responds only while `works` can be read.
    #[derive(Debug, Default)]
    struct OneHangs {
        works: RwLock<()>,
        counted: AtomicU32,
    }

    impl OneHangs {
        fn facts(&self, number: u32) -> GpuFacts {
            if number == 1 {
                drop(self.works.read());
            }
            GpuFacts {
                uuid: uuid(number),
                minor: number,
                pci: PciAddress { domain: number, bus: 0, device: 0, function: 0 },
                product_name: Some("Tesla T4".to_owned()),
                brand: "Nvidia".to_owned(),
                architecture: "Turing".to_owned(),
                compute_capability: Some(Version { major: 7, minor: 5, patch: 0 }),
                memory: None,
                reserved: None,
                addressing_mode: None,
                mig: MigMode::Unsupported,
            }
        }
    }

    impl MigMachine for OneHangs {}

    impl HealthMachine for OneHangs {}

    impl Machine for OneHangs {
        fn driver(&self) -> Result<DriverVersions, MachineError> {
            let version = Version { major: 1, minor: 0, patch: 0 };
            Ok(DriverVersions { driver: version, cuda: Some(version) })
        }

        fn gpu_count(&self) -> Result<u32, MachineError> {
            self.counted.fetch_add(1, Ordering::Relaxed);
            Ok(3)
        }

        fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
            let index = match which {
                GpuSelector::Index(index) => index,
                GpuSelector::Uuid(wanted) => (0..3).find(|number| uuid(*number) == *wanted).unwrap(),
            };
            Ok(self.facts(index))
        }

        fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
            Ok(GpuShape { uuid: Some(self.facts(index).uuid), answers: true, ..GpuShape::silent() })
        }

        fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
            self.gpu(GpuSelector::Uuid(gpu)).map(|_| Some(ComputeMode::Default))
        }

        fn set_compute_mode(&self, gpu: &GpuUuid, _mode: ComputeMode) -> Result<(), GpuError> {
            self.gpu(GpuSelector::Uuid(gpu)).map(|_| ())
        }

        fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
            self.gpu(GpuSelector::Uuid(gpu)).map(|_| None)
        }

        fn set_interval(&self, gpu: &GpuUuid, _interval: Interval) -> Result<(), GpuError> {
            self.gpu(GpuSelector::Uuid(gpu)).map(|_| ())
        }
    }

    fn uuid(number: u32) -> GpuUuid {
        format!("GPU-00000000-0000-0000-0000-{number:012}").parse().unwrap()
    }

    fn with_timeout(timeout: Duration) -> (Arc<OneHangs>, TimeoutMachine) {
        let machine = Arc::new(OneHangs::default());
        let port: Arc<dyn Machine> = Arc::<OneHangs>::clone(&machine);
        (machine, TimeoutMachine::new(port, timeout))
    }

    #[test]
    fn only_the_gpu_that_hangs_is_broken_and_it_recovers_when_it_responds() {
        let (machine, bounded) = with_timeout(Duration::from_millis(50));
        let hang = machine.works.write();
        let inventory = discover(&bounded, Path::new("/nonexistent"));
        assert_eq!(inventory.usable_gpus().map(|gpu| gpu.minor).collect::<Vec<_>>(), [0, 2]);
        let failure = inventory.gpus[1].failure().unwrap();
        assert_eq!(failure.reason, "waiting for NVML failed on GPU 1: timeout (NVML code 10)");
        for _ in 0..2 {
            assert_eq!(bounded.shape(1), Ok(GpuShape::silent()));
            for healthy in [0, 2] {
                assert_eq!(bounded.shape(healthy), machine.shape(healthy));
            }
        }
        assert!(bounded.gpu(GpuSelector::Uuid(&uuid(1))).is_err());
        assert!(bounded.gpu(GpuSelector::Uuid(&uuid(2))).is_ok());

        drop(hang);
        while !bounded.hanging.lock().is_empty() {
            thread::yield_now();
        }
        assert_eq!(discover(&bounded, Path::new("/nonexistent")).usable_gpus().count(), 3);
        assert!(bounded.shape(1).unwrap().answers);
    }

    /// A query for changes counts the GPUs, and so does each full reading.
    #[test]
    fn everything_is_read_once_when_a_gpu_begins_to_hang() {
        let (machine, bounded) = with_timeout(Duration::from_millis(50));
        let nowhere = PathBuf::from("/nonexistent");
        let (driver, driver_on_host, proc) = (nowhere.clone(), nowhere.clone(), nowhere.clone());
        let host =
            Host::of(bounded, Roots { driver, driver_on_host, proc, sys: nowhere, processes: ProcessRoots::default() });
        let refreshes = |number| {
            machine.counted.store(0, Ordering::Relaxed);
            let changed = (0..number).map(|_| host.refresh_if_changed()).collect::<Vec<_>>();
            (changed, machine.counted.load(Ordering::Relaxed))
        };
        assert_eq!(refreshes(2), (vec![true, false], 3));
        let hang = machine.works.write();
        assert_eq!(refreshes(1), (vec![true], 2));
        assert_eq!(host.latest().usable_gpus().count(), 2);
        assert_eq!(refreshes(3), (vec![false; 3], 3));
        drop(hang);
        while !refreshes(1).0[0] {
            thread::yield_now();
        }
        assert_eq!(host.latest().usable_gpus().count(), 3);
    }

    #[test]
    fn the_timeout_of_a_shape_is_the_shortest() {
        let bounded = with_timeout(GPU_TIMEOUT).1;
        assert_eq!(bounded.timeout_for(&Question::Shape(1)), SHAPE_TIMEOUT);
        assert_eq!(bounded.timeout_for(&Question::Index(1)), GPU_TIMEOUT);
    }

    #[test]
    fn settings_of_a_gpu_that_hangs_time_out_and_no_change_follows() {
        let (machine, bounded) = with_timeout(Duration::from_millis(50));
        let hang = machine.works.write();
        let given_up = given_up(GpuSelector::Uuid(&uuid(1)));
        assert_eq!(bounded.compute_mode(&uuid(1)), Err(given_up.clone()));
        assert_eq!(bounded.set_interval(&uuid(1), Interval::Long), Err(given_up));
        assert_eq!(bounded.compute_mode(&uuid(2)), Ok(Some(ComputeMode::Default)));
        drop(hang);
    }

    /// Each of two questions alone would be waited for longer than the test may take.
    #[test]
    fn what_is_asked_for_a_call_is_given_up_at_its_deadline_and_nothing_is_asked_after_it() {
        let (machine, bounded) = with_timeout(GPU_TIMEOUT * 1000);
        let hang = machine.works.write();
        let asked = bounded.until(&Deadline::after(Duration::from_millis(50)));
        let out_of_time = GpuError::OutOfTime { which: uuid(1).to_string() };
        assert_eq!(asked.compute_mode(&uuid(1)), Err(out_of_time.clone()));
        assert_eq!(asked.gpu(GpuSelector::Uuid(&uuid(1))), Err(out_of_time));
        machine.counted.store(0, Ordering::Relaxed);
        asked.gpu_count().unwrap_err();
        assert_eq!(machine.counted.load(Ordering::Relaxed), 0);
        assert_eq!(bounded.gpu_count(), Ok(3), "a query without call has no deadline");
        drop(hang);
    }

    /// A reading that was cut short would report GPUs as broken that were not queried.
    #[test]
    fn a_reading_that_exceeds_the_deadline_is_discarded() {
        let (machine, bounded) = with_timeout(GPU_TIMEOUT * 1000);
        let nowhere = PathBuf::from("/nonexistent");
        let (driver, driver_on_host, proc) = (nowhere.clone(), nowhere.clone(), nowhere.clone());
        let host =
            Host::of(bounded, Roots { driver, driver_on_host, proc, sys: nowhere, processes: ProcessRoots::default() });
        let before = host.refresh();
        let hang = machine.works.write();
        let refreshed = host.until(&Deadline::after(Duration::from_millis(50))).refresh();
        assert_eq!(refreshed, Err(GpuError::OutOfTime { which: "the GPUs of this node".to_owned() }));
        assert_eq!((host.latest(), before.usable_gpus().count()), (before, 3));
        drop(hang);
    }

    #[test]
    fn a_query_that_hangs_is_started_once() {
        let (machine, bounded) = with_timeout(Duration::ZERO);
        let hang = machine.works.write();
        for _ in 0..100 {
            assert!(bounded.gpu(GpuSelector::Index(1)).is_err());
        }
        // The test, the bounded machine and one thread.
        assert!(Arc::strong_count(&machine) <= 3, "{}", Arc::strong_count(&machine));
        drop(hang);
    }
}
