//! Where foof's CUDA tests run: on the stand-in driver of this folder, which executes the kernels' own source on the CPU, or on a GPU.
//!
//! `FOOF_TEST_DEVICE` is `emulation` or `gpu`; unset, a GPU if there is one. Where the emulation cannot be built for want of a C++ compiler, tests
//! say on standard error that they were skipped, or fail if `FOOF_REQUIRE_EMULATION` is `1`. `FOOF_EMULATION_SANITIZE=1` takes a build with
//! AddressSanitizer, whose library the process must have been started with (`LD_PRELOAD`). `FOOF_EMULATION_KERNELS` and `FOOF_EMULATION_OUT` take kernels
//! from another folder, and put what is built of them there: a kernel with a fault, which must be caught.

use foof_cuda::{Cache, Device, Stream};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, thread};

/// The exit status of `build.sh` where there is no C++ compiler.
const NO_COMPILER: i32 = 3;

/// What runs the kernels.
enum Driver {
    /// The stand-in, with its controls.
    Emulation(Library),
    /// A GPU's.
    Gpu,
}

static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();

fn driver() -> Option<&'static Driver> {
    let choose = || match env::var("FOOF_TEST_DEVICE").as_deref() {
        Ok("gpu") => Some(Driver::Gpu),
        Ok("emulation") => emulation(&LIBRARIES),
        Ok(other) => panic!("FOOF_TEST_DEVICE={other}: expected emulation or gpu"),
        Err(_) if gpus() > 0 => Some(Driver::Gpu),
        Err(_) => emulation(&LIBRARIES),
    };
    DRIVER.get_or_init(choose).as_ref()
}

/// The stand-ins: the compiler, and the driver, which comes last.
const LIBRARIES: [&str; 2] = ["libnvrtc.so", "libcuda.so"];

/// GPUs of this machine, asked for without the library that the tests use: once it has opened a driver, it keeps it.
fn gpus() -> c_int {
    let mut count = 0;
    // SAFETY: the two functions of the driver's interface, with their signatures.
    unsafe {
        let Ok(library) = Library::open(Some("libcuda.so.1"), RTLD_NOW) else { return 0 };
        let init: Result<Symbol<unsafe extern "C" fn(u32) -> c_int>, _> = library.get(b"cuInit");
        let counts: Result<Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>, _> = library.get(b"cuDeviceGetCount");
        if let (Ok(init), Ok(counts)) = (init, counts)
            && init(0) == 0
            && counts(&raw mut count) == 0
        {
            // A driver that was initialised is not to be unloaded.
            std::mem::forget(library);
        }
    }
    count
}

/// Where build products of the running test go: beside those of cargo.
fn out_dir(sanitize: bool) -> PathBuf {
    let exe = env::current_exe().expect("the test's path");
    let target = exe.ancestors().nth(3).expect("target/profile/deps/test");
    target.join(if sanitize { "emulation-sanitize" } else { "emulation" })
}

/// Runs `build.sh` on an output folder with further arguments; false, said visibly, where there is no C++ compiler.
pub fn build<A: AsRef<OsStr>>(out: &Path, arguments: impl IntoIterator<Item = A>) -> bool {
    let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.sh"));
    // The compiler must not start with a sanitizer's library of ours.
    build.arg(out).args(arguments).env_remove("LD_PRELOAD");
    let output = build.output().expect("build.sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => true,
        Some(NO_COMPILER) => {
            skip(said.trim());
            false
        }
        code => panic!("build.sh: {code:?}\n{said}"),
    }
}

/// Builds the stand-ins if they are older than their sources, and opens some of them, of which the last is the driver, before anything looks for one: the
/// loader then finds them by their names.
fn emulation(libraries: &[&str]) -> Option<Driver> {
    let sanitize = env::var("FOOF_EMULATION_SANITIZE").is_ok_and(|value| value == "1");
    let out = env::var_os("FOOF_EMULATION_OUT").map_or_else(|| out_dir(sanitize), PathBuf::from);
    let mut arguments: Vec<OsString> = Vec::new();
    arguments.extend(sanitize.then(|| "--sanitize".into()));
    if let Some(kernels) = env::var_os("FOOF_EMULATION_KERNELS") {
        // Of a fault: the rest is compiled already.
        arguments.extend(["--kernels".into(), kernels, "--objects".into(), out_dir(sanitize).join("objects").into()]);
    }
    if !build(&out, arguments) {
        return None;
    }
    let open = |name: &str| {
        // SAFETY: our own libraries, whose constructors only register kernels.
        unsafe { Library::open(Some(out.join(name)), RTLD_NOW | RTLD_GLOBAL) }
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let (driver, others) = libraries.split_last()?;
    others.iter().for_each(|name| std::mem::forget(open(name)));
    Some(Driver::Emulation(open(driver)))
}

/// Says, past the capture of the tests' output, that a test did not run.
fn skip(why: &str) {
    let required = env::var("FOOF_REQUIRE_EMULATION").is_ok_and(|value| value == "1");
    assert!(!required, "CUDA test skipped: {why}");
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// The device that tests use, without a cache on disk on the stand-in; none, said visibly, where there is nothing to run them on.
pub fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || {
        // A GPU's kernels take a minute to compile, once for all programs. The stand-in's compiler compiles nothing.
        let cache = if matches!(driver()?, Driver::Gpu) { Cache::default() } else { Cache::Memory };
        let context = foof_cuda::cudarc::driver::CudaContext::new(0).expect("a device");
        Some(Device::from_cudarc(context, cache).expect("a device that will do"))
    };
    let device = DEVICE.get_or_init(open).clone();
    if device.is_none() {
        skip("no C++ compiler for the emulation");
    }
    device
}

/// The stand-in's device in a process that has opened no stand-in for NVRTC, and opens none later; none, said visibly, as [`device`].
pub fn device_without_compiler() -> Option<Device> {
    DRIVER.get_or_init(|| emulation(&LIBRARIES[1..]));
    device()
}

/// A stream of its own on [`device`].
pub fn stream() -> Option<Stream> {
    device().map(|device| Stream::new(&device).expect("a stream"))
}

/// Runs `f` under several orders of threads and blocks (on a GPU several times), each on a stream of its own; asserts that the bits of the result
/// are the same, and returns it.
#[track_caller]
pub fn for_every_order<T: Copy + PartialEq + std::fmt::Debug>(
    what: &str,
    bits: impl Fn(T) -> u64,
    f: impl Fn(&Stream) -> Vec<T>,
) -> Option<Vec<T>> {
    let run = |order| {
        set_order(order);
        let result = stream().map(|stream| f(&stream));
        set_order(0);
        result
    };
    let first = run(0)?;
    for order in 1..4 {
        let other = run(order)?;
        assert_eq!(first.len(), other.len(), "{what}: order {order}");
        for (i, (&a, &b)) in first.iter().zip(&other).enumerate() {
            assert_eq!(bits(a), bits(b), "{what}: order {order}, element {i}: {b:?} instead of {a:?}");
        }
    }
    Some(first)
}

/// A control of the stand-in, or none on a GPU.
fn control<F>(name: &str) -> Option<Symbol<F>> {
    match driver()? {
        Driver::Emulation(library) => {
            // SAFETY: the callers know the signature.
            let found = unsafe { library.get(name.as_bytes()) };
            Some(found.unwrap_or_else(|error| panic!("{name}: {error}")))
        }
        Driver::Gpu => None,
    }
}

/// Whether the kernels run on the stand-in.
pub fn is_emulated() -> bool {
    matches!(driver(), Some(Driver::Emulation(_)))
}

/// A control of the stand-in that takes a number, for this thread's calls. Whether there is a stand-in to obey.
fn set(name: &str, value: c_int) -> bool {
    let Some(set) = control::<unsafe extern "C" fn(c_int)>(name) else { return false };
    // SAFETY: the control's signature.
    unsafe { set(value) };
    true
}

/// The order in which this thread's launches run threads and blocks: 0 forward, 1 backward, else random with that seed.
pub fn set_order(order: c_int) -> bool {
    set("foof_emulation_order", order)
}

/// The number of devices that this thread sees.
pub fn set_devices(count: c_int) -> bool {
    set("foof_emulation_devices", count)
}

/// The compute capability that this thread sees, `10 major + minor`.
pub fn set_capability(capability: c_int) -> bool {
    set("foof_emulation_capability", capability)
}

/// The version of CUDA that the driver supports for this thread, `1000 major + 10 minor`.
pub fn set_driver_version(version: c_int) -> bool {
    set("foof_emulation_driver_version", version)
}

/// The version of NVRTC that this thread sees, `1000 major + 10 minor`.
pub fn set_compiler_version(version: c_int) -> bool {
    if !is_emulated() {
        return false;
    }
    // SAFETY: our own library, which is open, and the control's signature.
    unsafe {
        let library = Library::open(Some("libnvrtc.so"), RTLD_NOW).expect("open");
        let set: Symbol<unsafe extern "C" fn(c_int)> = library.get(b"foof_emulation_nvrtc_version").expect("a control");
        set(version);
    }
    true
}

/// Whether this thread's work waits until a stream, an event or the context is waited for.
pub fn set_lazy(lazy: c_int) -> bool {
    set("foof_emulation_lazy", lazy)
}

/// Lets this thread's next call of a driver function fail with `code`. Whether there is a stand-in to do so.
pub fn fail_next(call: &str, code: c_int) -> bool {
    let Some(fail) = control::<unsafe extern "C" fn(*const c_char, c_int)>("foof_emulation_fail") else { return false };
    let call = CString::new(call).expect("no zero byte");
    // SAFETY: the control's signature; it copies the name.
    unsafe { fail(call.as_ptr(), code) };
    true
}

/// Device allocations that this thread made so far; none on a GPU.
pub fn allocations() -> Option<i64> {
    let count = control::<unsafe extern "C" fn() -> i64>("foof_emulation_allocations_ever")?;
    // SAFETY: the control's signature.
    Some(unsafe { count() })
}

/// Takes back what this thread asked of the stand-in.
pub fn reset() {
    if let Some(reset) = control::<unsafe extern "C" fn()>("foof_emulation_reset") {
        // SAFETY: the control's signature.
        unsafe { reset() };
    }
}
