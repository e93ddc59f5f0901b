// SPDX-License-Identifier: Apache-2.0
//! One NVML call: initialised or not, delays, fault rules, which devices this process may see, and who may change things.
//!
//! In: the function's name and body. Out: the return code. Every exported function goes through [`guard`].

use std::ffi::c_uint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dra_sim::engine::{ComputeRef, InstanceRef};
use dra_sim::store::StoreError;
use dra_sim::tree::instances::{MINOR_MIG_CONFIG, capability_minor};
use dra_sim::{Code, State};

use crate::handle::{Handle, Named};
use crate::session::Session;

/// `nvmlReturn_t`.
pub(crate) type Return = c_uint;

/// Exports functions under their C names: `names: (arguments) |call| body;`. Older names of the same function stand together.
macro_rules! exports {
    ($( $first:ident $(+ $alias:ident)*: $arguments:tt |$call:ident| $body:expr; )*) => { $(
        exports!(@define $first $arguments |$call| $body);
        $( exports!(@forward $alias $first $arguments); )*
    )* };
    (@define $name:ident ($($argument:ident : $kind:ty),* $(,)?) |$call:ident| $body:expr) => {
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $name($($argument: $kind),*) -> crate::call::Return {
            crate::call::guard(stringify!($name), |$call| $body)
        }
    };
    (@forward $alias:ident $name:ident ($($argument:ident : $kind:ty),* $(,)?)) => {
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $alias($($argument: $kind),*) -> crate::call::Return {
            $name($($argument),*)
        }
    };
}
pub(crate) use exports;

/// A call in progress, with the state of the machine at its start.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) state: Arc<State>,
    pub(crate) session: &'static Session,
}

/// A device handle, resolved.
#[derive(Clone, Copy)]
pub(crate) enum Device {
    Gpu(usize),
    Mig(ComputeRef),
}

impl Device {
    /// The physical GPU.
    pub(crate) const fn gpu(self) -> usize {
        match self {
            Self::Gpu(gpu) => gpu,
            Self::Mig(target) => target.instance.gpu,
        }
    }
}

/// Runs the body of an initialised call.
pub(crate) fn guard(name: &'static str, body: impl FnOnce(&Call) -> Result<(), Code>) -> Return {
    contain(|| {
        let session = Session::current();
        if !session.is_initialised() {
            return Err(Code::UNINITIALIZED);
        }
        let call = Call::begin(name, session)?;
        body(&call)
    })
}

/// Catches a panic and converts the result into a number.
pub(crate) fn contain(body: impl FnOnce() -> Result<(), Code>) -> Return {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_panic) => Code::UNKNOWN.0,
    }
}

impl Call {
    /// Reads the machine, spends the call's delay and applies the rules that concern no particular GPU.
    pub(crate) fn begin(name: &'static str, session: &'static Session) -> Result<Self, Code> {
        let state = wait(session, name, None)?;
        state.driver_loaded()?;
        let call = Self { name, state, session };
        call.strike(None)?;
        Ok(call)
    }

    /// A device handle of either kind that is alive, visible and not struck by a rule.
    pub(crate) fn device(&self, handle: Handle) -> Result<Device, Code> {
        let device = match handle.named()? {
            Named::Gpu(gpu) => Device::Gpu(gpu),
            Named::MigDevice(target) | Named::MigDeviceOf(target) => Device::Mig(self.whole(target)?),
            Named::Instance(_) | Named::Compute(_) | Named::EventSet(_) => return Err(Code::INVALID_ARGUMENT),
        };
        self.touch(device.gpu())?;
        Ok(device)
    }

    /// A handle of a physical GPU; a MIG device is an invalid argument.
    pub(crate) fn gpu(&self, handle: Handle) -> Result<usize, Code> {
        match self.device(handle)? {
            Device::Gpu(gpu) => Ok(gpu),
            Device::Mig(_) => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// A handle of a GPU instance.
    pub(crate) fn instance(&self, handle: Handle) -> Result<InstanceRef, Code> {
        let Named::Instance(target) = handle.named()? else { return Err(Code::INVALID_ARGUMENT) };
        self.touch(target.gpu)?;
        self.state.gpu_instance(target).map(|_| target)
    }

    /// A handle of a compute instance.
    pub(crate) fn compute(&self, handle: Handle) -> Result<ComputeRef, Code> {
        let Named::Compute(target) = handle.named()? else { return Err(Code::INVALID_ARGUMENT) };
        self.touch(target.instance.gpu)?;
        self.whole(target)
    }

    /// The GPUs with an existing device node, in order.
    pub(crate) fn visible_gpus(&self) -> Vec<usize> {
        (0..self.state.gpus.len()).filter(|&gpu| self.is_visible(gpu)).collect()
    }

    pub(crate) fn is_visible(&self, gpu: usize) -> bool {
        self.state.gpus.get(gpu).is_some_and(|gpu| self.session.has_node(&format!("nvidia{}", gpu.minor)))
    }

    /// The MIG devices of a GPU that this process may use: all with the right to configure MIG, else those whose two
    /// capabilities are there.
    pub(crate) fn visible_mig_devices(&self, gpu: usize) -> Result<Vec<ComputeRef>, Code> {
        let minor = self.state.live_gpu(gpu)?.minor;
        let has = |capability: u32| self.session.has_node(&format!("nvidia-caps/nvidia-cap{capability}"));
        let mut devices = self.state.mig_devices(gpu)?;
        if !has(MINOR_MIG_CONFIG) {
            devices.retain(|target| {
                let id = target.instance.id;
                has(capability_minor(minor, id, None)) && has(capability_minor(minor, id, Some(target.id)))
            });
        }
        Ok(devices)
    }

    /// Changes the machine. Only root may, as with NVML.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Code>) -> Result<T, Code> {
        Self::require_root()?;
        self.session.store.update(change).map_err(|error| code_of(&error))?
    }

    /// `NO_PERMISSION` for any user but root.
    pub(crate) fn require_root() -> Result<(), Code> {
        if is_root() { Ok(()) } else { Err(Code::NO_PERMISSION) }
    }

    /// Waits for the delay of a GPU, and fails if the GPU is missing, not visible, lost, or if a rule applies.
    fn touch(&self, gpu: usize) -> Result<(), Code> {
        if !self.is_visible(gpu) {
            return Err(Code::INVALID_ARGUMENT);
        }
        wait(self.session, self.name, Some(gpu))?;
        self.strike(Some(gpu))?;
        self.state.live_gpu(gpu).map(|_| ())
    }

    /// Counts the call if a rule concerns it. Where the state is read-only, a rule strikes without being used up.
    fn strike(&self, gpu: Option<usize>) -> Result<(), Code> {
        if !self.state.concerns(self.name, gpu) {
            return Ok(());
        }
        let struck = match self.session.store.update(|state| state.strike(self.name, gpu)) {
            Ok(struck) => struck,
            Err(_read_only) => State::clone(&self.state).strike(self.name, gpu),
        };
        struck.map_or(Ok(()), Err)
    }

    /// Completes a compute reference from a handle with the incarnation of its GPU instance.
    fn whole(&self, target: ComputeRef) -> Result<ComputeRef, Code> {
        let instance =
            self.state.gpu(target.instance.gpu)?.instances.get(&target.instance.id).ok_or(Code::NOT_FOUND)?;
        let instance = InstanceRef { incarnation: instance.incarnation, ..target.instance };
        let target = ComputeRef { instance, ..target };
        self.state.compute_instance(target).map(|_| target)
    }
}

/// NVML's answer when the shared state cannot be used: no machine is no driver.
pub(crate) fn code_of(error: &StoreError) -> Code {
    if error.is_permission() { Code::NO_PERMISSION } else { Code::DRIVER_NOT_LOADED }
}

fn is_root() -> bool {
    unsafe extern "C" {
        safe fn geteuid() -> u32;
    }
    geteuid() == 0
}

/// The interval at which a delayed call checks whether the rule still exists.
const MOMENT: Duration = Duration::from_millis(10);

/// Waits for the delay of the rules while they exist, and returns the state afterwards.
fn wait(session: &Session, name: &str, gpu: Option<usize>) -> Result<Arc<State>, Code> {
    let began = Instant::now();
    loop {
        let state = session.store.read().map_err(|error| code_of(&error))?;
        match state.delay_of(name, gpu).saturating_sub(began.elapsed()) {
            Duration::ZERO => return Ok(state),
            left => pause(left.min(MOMENT)),
        }
    }
}

fn pause(delay: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the delay is requested: a driver that responds slowly")]
    std::thread::sleep(delay);
}
