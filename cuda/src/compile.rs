//! CUDA C++ to machine code, by NVRTC, while the program runs.
//!
//! Sources and headers are part of the program; NVRTC gets them from memory. What it compiles for is a real architecture, so that the
//! driver has nothing left to do; where NVRTC is older than the device, it is the newest virtual one that it knows, and the driver does
//! the rest.

use crate::device::Arch;
use crate::error::CudaError;
use cudarc::nvrtc::sys;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

/// A file of kernels.
#[derive(PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Its name in `cuda/kernels/`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The headers that sources include.
pub const HEADERS: [Source; 6] = [
    Source { file: "prelude.cuh", text: include_str!("../kernels/prelude.cuh") },
    Source { file: "load.cuh", text: include_str!("../kernels/load.cuh") },
    Source { file: "tile.cuh", text: include_str!("../kernels/tile.cuh") },
    Source { file: "epilogue.cuh", text: include_str!("../kernels/epilogue.cuh") },
    Source { file: "conv.cuh", text: include_str!("../kernels/conv.cuh") },
    Source { file: "damped_inverse.cuh", text: include_str!("../kernels/damped_inverse.cuh") },
];

/// Every source.
pub const SOURCES: [&Source; 7] = [
    &crate::peak::SOURCE,
    &crate::covariance::SOURCE,
    &crate::convolution::SOURCE,
    &crate::convolution::CORRELATE,
    &crate::convolution::UNFOLD,
    &crate::inverse::SOURCE,
    &crate::inverse::LARGE,
];

/// What is compiled for, and in which form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// Machine code of an architecture.
    Machine(Arch),
    /// PTX for a device newer than the compiler.
    Virtual(Arch),
}

impl Target {
    fn option(self) -> String {
        match self {
            Target::Machine(arch) => format!("--gpu-architecture={arch}"),
            Target::Virtual(arch) => format!("--gpu-architecture={}", arch.to_string().replace("sm_", "compute_")),
        }
    }

    fn arch(self) -> Arch {
        match self {
            Target::Machine(arch) | Target::Virtual(arch) => arch,
        }
    }
}

/// Options for a target. Products and sums are contracted to FMA, stated because the rounding bounds count on it; nothing else of IEEE arithmetic
/// is given up. Functions that do not say so are the device's too: NVRTC takes generic lambdas for the host's.
pub fn options(target: Target) -> Vec<String> {
    let fixed = [
        "--std=c++17",
        "--fmad=true",
        "--ftz=false",
        "--prec-div=true",
        "--prec-sqrt=true",
        "--device-as-default-execution-space",
        "--generate-line-info",
    ];
    core::iter::once(target.option()).chain(fixed.map(String::from)).collect()
}

fn present() -> Result<(), CudaError> {
    // SAFETY: only opens the library.
    if unsafe { sys::is_culib_present() } { Ok(()) } else { Err(CudaError::NoCompiler) }
}

/// The version of NVRTC.
///
/// # Errors
/// [`CudaError::NoCompiler`].
pub fn version() -> Result<(u32, u32), CudaError> {
    present()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two `int`s.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().map_err(|_| CudaError::NoCompiler)?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

/// The NVRTC that kernels need at least, and that has every function called here.
const OLDEST: (u32, u32) = (12, 0);

/// What to compile for a device of `arch`.
///
/// # Errors
/// [`CudaError::NoCompiler`], also for one that knows no architecture old enough; [`CudaError::CompilerTooOld`].
pub fn target(arch: Arch) -> Result<Target, CudaError> {
    let found = version()?;
    if found < OLDEST {
        return Err(CudaError::CompilerTooOld { found, needed: OLDEST });
    }
    let mut count = 0;
    // SAFETY: writes one `int`.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result().map_err(|_| CudaError::NoCompiler)?;
    let mut known = vec![0 as c_int; usize::try_from(count).unwrap_or(0)];
    // SAFETY: writes as many `int`s as it said.
    unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result().map_err(|_| CudaError::NoCompiler)?;
    let known = known.into_iter().map(c_int::unsigned_abs);
    let newest = known.filter(|&number| number <= arch.number()).max().ok_or(CudaError::NoCompiler)?;
    Ok(match newest == arch.number() {
        true => Target::Machine(arch),
        false => Target::Virtual(Arch::new(newest / 10, newest % 10)),
    })
}

/// An image that the driver loads, and what the compiler said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// The image.
    pub bytes: Vec<u8>,
    /// The log: warnings, and what options like `--ptxas-options=-v` ask for.
    pub log: String,
}

/// Compiles a source, with options beyond [`options`].
///
/// # Errors
/// [`CudaError::NoCompiler`], [`CudaError::Compile`] with the compiler's log.
pub fn compile(source: &Source, target: Target, more: &[&str]) -> Result<Image, CudaError> {
    present()?;
    let failed = |log: String| CudaError::Compile { file: source.file, arch: target.arch().to_string(), log };
    let text = |text: &str| CString::new(text).map_err(|_| failed("a source holds a zero byte".into()));
    let (code, name) = (text(source.text)?, text(source.file)?);
    let headers = HEADERS.iter().map(|h| text(h.text)).collect::<Result<Vec<_>, _>>()?;
    let names = HEADERS.iter().map(|h| text(h.file)).collect::<Result<Vec<_>, _>>()?;
    let more = more.iter().map(|&option| option.to_owned());
    let options = options(target).into_iter().chain(more).map(|option| text(&option)).collect::<Result<Vec<_>, _>>()?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
    let (headers, names, options) = (pointers(&headers), pointers(&names), pointers(&options));
    let mut program = Program(ptr::null_mut());
    // SAFETY: texts and names are zero-terminated and live until the program is destroyed at the end of this function.
    let created = unsafe {
        let count = HEADERS.len() as c_int;
        sys::nvrtcCreateProgram(&mut program.0, code.as_ptr(), name.as_ptr(), count, headers.as_ptr(), names.as_ptr())
    };
    created.result().map_err(|error| failed(describe(error.0)))?;
    // SAFETY: as above.
    let compiled = unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
    // SAFETY: a log has the size that is reported for it.
    let log = unsafe { program.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog) };
    let log = log.unwrap_or_default();
    let log = String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_owned();
    compiled.result().map_err(|error| failed(format!("{}\n{log}", describe(error.0))))?;
    // SAFETY: as the log.
    let image = unsafe {
        match target {
            Target::Machine(_) => program.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN),
            Target::Virtual(_) => program.bytes(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX),
        }
    };
    Ok(Image { bytes: image.map_err(|error| failed(describe(error)))?, log })
}

fn describe(error: sys::nvrtcResult) -> String {
    // SAFETY: returns a zero-terminated string that lives as long as the library.
    unsafe {
        let text = sys::nvrtcGetErrorString(error);
        if text.is_null() { format!("{error:?}") } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// Destroys the program when dropped.
struct Program(sys::nvrtcProgram);

impl Program {
    /// What `get` writes, of the size that `size` reports.
    ///
    /// # Safety
    /// `get` writes no more than that.
    unsafe fn bytes(
        &self,
        size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
        get: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
    ) -> Result<Vec<u8>, sys::nvrtcResult> {
        let mut len = 0;
        // SAFETY: the program is alive; the caller vouches for the sizes.
        unsafe {
            size(self.0, &raw mut len).result().map_err(|error| error.0)?;
            let mut bytes = vec![0u8; len];
            get(self.0, bytes.as_mut_ptr().cast()).result().map_err(|error| error.0)?;
            Ok(bytes)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: created and not destroyed before. Nothing can be done about an error.
            let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
        }
    }
}
