//! Devices: found without panic, each with its loaded kernels.

use crate::cache::Cache;
use crate::compile::{self, Source};
use crate::error::CudaError;
use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, sys};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A virtual or real GPU architecture: `sm_80`, or with features of one generation only, `sm_90a`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Arch {
    /// Major compute capability.
    pub major: u32,
    /// Minor compute capability.
    pub minor: u32,
    /// Whether code may use what only this architecture has.
    pub specific: bool,
}

impl Arch {
    /// The oldest that kernels are written for: `cp.async` and the fragments of `mma.sync` came with it.
    pub const OLDEST: Arch = Arch::new(8, 0);

    /// An architecture without features of its own.
    pub const fn new(major: u32, minor: u32) -> Arch {
        Arch { major, minor, specific: false }
    }

    /// The number of `sm_NN`.
    pub fn number(self) -> u32 {
        10 * self.major + self.minor
    }

    /// From `sm_80`, `sm_90a`.
    pub fn parse(name: &str) -> Option<Arch> {
        let digits = name.strip_prefix("sm_")?;
        let (digits, specific) = digits.strip_suffix('a').map_or((digits, false), |digits| (digits, true));
        let number: u32 = digits.parse().ok()?;
        Some(Arch { major: number / 10, minor: number % 10, specific })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.number(), if self.specific { "a" } else { "" })
    }
}

/// A kernel: its entry point and the source that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Kernel {
    pub(crate) source: &'static Source,
    pub(crate) name: &'static str,
}

/// A loaded kernel, and the dynamic shared memory that it was allowed so far.
struct Loaded {
    function: CudaFunction,
    shared: u32,
}

struct Inner {
    context: Arc<CudaContext>,
    arch: Arch,
    name: String,
    shared_memory: usize,
    cache: Cache,
    kernels: Mutex<HashMap<&'static str, Loaded>>,
    modules: [OnceModule; compile::SOURCES.len()],
}

/// Locked while it is compiled, so that others who want it wait for it, and nobody else does.
type OnceModule = Mutex<Option<Arc<CudaModule>>>;

/// A CUDA device. Cheap to clone; clones share the kernels that were compiled and loaded.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

/// Shared memory that a block has without asking.
const SHARED_BY_DEFAULT: u32 = 48 << 10;

/// The driver that kernels need at least: CUDA 12.
const OLDEST_DRIVER: (u32, u32) = (12, 0);

impl Device {
    /// Devices that there are; none without a driver.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::Driver`].
    pub fn count() -> Result<usize, CudaError> {
        // SAFETY: only opens the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        match CudaContext::device_count() {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
            Err(error) => Err(CudaError::driver("counting devices")(error)),
        }
    }

    /// Device number `ordinal`, its primary context, and [`Cache::default`].
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::DriverTooOld`], [`CudaError::Architecture`], [`CudaError::Driver`].
    pub fn new(ordinal: usize) -> Result<Device, CudaError> {
        let count = Device::count()?;
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        check_driver(OLDEST_DRIVER)?;
        let context = CudaContext::new(ordinal).map_err(CudaError::driver("opening the device"))?;
        Device::from_cudarc(context, Cache::default())
    }

    /// The device of a context, candle's for one: modules are cached in `cache`.
    ///
    /// # Errors
    /// [`CudaError::Architecture`], [`CudaError::Driver`].
    pub fn from_cudarc(context: Arc<CudaContext>, cache: Cache) -> Result<Device, CudaError> {
        let error = || CudaError::driver("asking for the device's attributes");
        let name = context.name().map_err(error())?;
        let (major, minor) = context.compute_capability().map_err(error())?;
        let arch = Arch::new(major.unsigned_abs(), minor.unsigned_abs());
        if arch.number() < Arch::OLDEST.number() {
            let (found, needed) = ((arch.major, arch.minor), (Arch::OLDEST.major, Arch::OLDEST.minor));
            return Err(CudaError::Architecture { name, found, needed });
        }
        let shared = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_memory = context.attribute(shared).map_err(error())?.unsigned_abs() as usize;
        let (kernels, modules) = (Mutex::default(), Default::default());
        Ok(Device(Arc::new(Inner { context, arch, name, shared_memory, cache, kernels, modules })))
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.context.ordinal()
    }

    /// Its name, as the driver says it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its architecture.
    pub fn arch(&self) -> Arch {
        self.0.arch
    }

    /// Bytes of shared memory that one block can have.
    pub fn shared_memory(&self) -> usize {
        self.0.shared_memory
    }

    /// Its context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    /// The kernel, compiled (or found in the cache) and loaded when first asked for, allowed `shared` bytes of shared memory.
    pub(crate) fn function(&self, kernel: Kernel, shared: u32) -> Result<sys::CUfunction, CudaError> {
        let kernels = || self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if !kernels().contains_key(kernel.name) {
            // Not under the lock: other kernels can be launched while this one is compiled.
            let module = self.module(kernel.source)?;
            let function = module.load_function(kernel.name).map_err(CudaError::launch(kernel.name))?;
            kernels().entry(kernel.name).or_insert(Loaded { function, shared: SHARED_BY_DEFAULT });
        }
        let mut kernels = kernels();
        let loaded = kernels.get_mut(kernel.name).expect("never removed");
        if shared > loaded.shared {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared).unwrap_or(i32::MAX);
            loaded.function.set_attribute(most, bytes).map_err(CudaError::launch(kernel.name))?;
            loaded.shared = shared;
        }
        Ok(loaded.function.cu_function())
    }

    /// Compiles (or finds in the cache) and loads every kernel, side by side on the host's cores, so that no later call waits for the compiler. Otherwise the
    /// first call of each family does, for some seconds.
    ///
    /// # Errors
    /// [`CudaError::NoCompiler`], [`CudaError::DriverTooOld`], [`CudaError::Compile`], [`CudaError::Driver`].
    pub fn load_all(&self) -> Result<(), CudaError> {
        thread::scope(|scope| {
            let loading = compile::SOURCES.map(|source| scope.spawn(move || self.module(source)));
            loading.into_iter().try_for_each(|thread| match thread.join() {
                Ok(loaded) => loaded.map(drop),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn module(&self, source: &'static Source) -> Result<Arc<CudaModule>, CudaError> {
        let place = compile::SOURCES.iter().position(|other| other.file == source.file).expect("one of the sources");
        let mut once = self.0.modules[place].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = &*once {
            return Ok(module.clone());
        }
        let target = compile::target(self.0.arch)?;
        check_driver((compile::version()?.0, 0))?;
        let image = self.0.cache.get_or(source, target, &self.0.name, || compile::compile(source, target, &[]))?;
        let loading = CudaError::driver("loading a module");
        let module = self.0.context.load_module(Ptx::from_binary(image)).map_err(loading)?;
        Ok(once.insert(module).clone())
    }

    /// The device that the memory at `pointer` is of, if any.
    pub(crate) fn owner_of(&self, pointer: u64) -> Result<Option<usize>, CudaError> {
        let call = || CudaError::driver("asking whose memory a pointer is");
        self.0.context.bind_to_thread().map_err(call())?;
        let mut ordinal = -1i32;
        let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
        // SAFETY: the attribute is one `int`.
        let found = unsafe { sys::cuPointerGetAttribute((&raw mut ordinal).cast(), attribute, pointer) };
        match found.result() {
            Ok(()) => Ok(usize::try_from(ordinal).ok()),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_INVALID_VALUE => Ok(None),
            Err(error) => Err(call()(error)),
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        self.0.context == other.0.context
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {}, {})", self.ordinal(), self.name(), self.arch())
    }
}

/// Whether the driver supports at least that version of CUDA.
fn check_driver(needed: (u32, u32)) -> Result<(), CudaError> {
    let mut version = 0i32;
    // SAFETY: writes one `int`.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    asked.result().map_err(CudaError::driver("asking for the driver's version"))?;
    let version = version.unsigned_abs();
    let found = (version / 1000, version % 1000 / 10);
    if found < needed { Err(CudaError::DriverTooOld { found, needed }) } else { Ok(()) }
}
