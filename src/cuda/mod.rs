//! The same functions on CUDA devices, under the CPU's names and with the CPU's arguments: views of device memory for views, a
//! [`Stream`] for [`Par`](crate::Par), a [`Scratch`] for a [`MemStack`](crate::MemStack).
//!
//! - **Order.** Functions enqueue their work and return. What only the device can know, such as a pivot that fails, is waited for by
//!   [`Pending::wait`]. Streams are in no order but the one that [`Stream::wait_for`] asks for: before a stream uses what another writes, and before a
//!   [`Buffer`] is dropped that was made on one and used on another.
//! - **Memory.** [`Buffer`] owns; [`View`] and [`ViewMut`] borrow, also what cudarc, candle or PyTorch own. Nothing is allocated but by `*_alloc` twins and
//!   [`Buffer`], [`Scratch`], [`Stream`].
//! - **Precision.** f32 results have f32 accuracy; TF32 and bf16 are asked for by [`Stream::with_precision`].
//! - **Values** are not searched for NaN and infinity, which would mean to wait for the device: they reach the results, and where they reach a pivot they
//!   are named.
//! - **The same bits** come from the same input on the same kind of device, whatever else runs.

pub mod convolution;
pub mod covariance;
pub mod inverse;
mod pending;

pub use foof_cuda::{
    Arch, Buffer, Cache, CudaError, Device, MatMut, MatRef, Precision, Scratch, ScratchReq, Stream, View, ViewMut,
};
pub use pending::Pending;
