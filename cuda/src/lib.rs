//! CUDA kernels of `foof` and their host side: devices, streams, memory, compilation at run time, launches.
//!
//! Nothing of CUDA is needed to build or to load this crate: the driver (`libcuda`) and the compiler (NVRTC) are opened when first used, and
//! their absence is an error ([`CudaError::NoDriver`], [`CudaError::NoCompiler`]), never a panic. Users take all of this from `foof::cuda`,
//! whose functions check their arguments and bear the names of the CPU's; the functions here panic on shapes that disagree.
//!
//! | module | what it says |
//! |---|---|
//! | [`device`], [`stream`] | what runs, and in which order and precision |
//! | [`memory`], [`view`], [`scratch`] | owned memory, borrowed memory (also another library's), memory reused by operations |
//! | [`pending`] | what only the device knows, such as a pivot that fails: waited for explicitly |
//! | [`compile`], [`cache`] | sources to machine code, kept in memory and on disk |
//! | `launch` | a kernel's geometry and its launch |
//! | [`tile`] | the register tiles: how they multiply, how a product is cut into them |
//! | [`covariance`], [`convolution`] | the families of kernels |
//! | [`peak`] | the device's own limits |
//! | [`inverse`] | damped inverses of batches |
//!
//! **Order.** Work is enqueued on the stream that is given and returns at once. What one stream does is in order; memory that another stream
//! uses too needs the caller's events, as everywhere in CUDA.

pub mod cache;
pub mod compile;
pub mod convolution;
pub mod covariance;
pub mod device;
mod error;
pub mod inverse;
mod launch;
pub mod memory;
pub mod peak;
pub mod pending;
pub mod scratch;
pub mod stream;
pub mod tile;
pub mod view;

pub use cache::Cache;
/// The driver bindings, for conversions from and to their types.
pub use cudarc;
pub use device::{Arch, Device};
pub use error::CudaError;
pub use memory::Buffer;
pub use pending::Pending;
pub use scratch::{Scratch, ScratchReq};
pub use stream::{Precision, Stream};
pub use view::{MatMut, MatRef, View, ViewMut};
