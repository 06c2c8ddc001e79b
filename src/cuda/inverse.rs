//! Damped inverses of a batch of matrices of one size.

use super::{Pending, Scratch, ScratchReq, Stream, View, ViewMut};
use crate::error::check_shape;
use crate::inverse::{Dampings, check_batch};
use crate::{Element, Error, Triangle};

/// `out_b <- (scale A_b + damping_b I)^-1` for each matrix of a batch `a` `[batch, n, n]` of symmetric matrices, of which the lower triangles
/// are read: [`inverse::batched_damped_inverse`](crate::inverse::batched_damped_inverse) on a device. `damping = 0` is allowed. Dampings lie in the host's memory, so
/// that they are checked; they are copied before this returns. `batch n³ / 2` multiply-adds.
///
/// `n` is bounded by what the shared memory of a block holds: 338 in f32 and 238 in f64 where that is 227 KB (compute capability 9.0 and 10.0).
///
/// # Errors
/// Now: [`Error::Shape`], [`Error::Parameter`], [`Error::Element`], [`Error::Cuda`] with `out` as it was
/// ([`CudaError::TooLarge`](super::CudaError::TooLarge) names the largest `n`). From [`Pending::wait`]: [`Error::Items`] with every matrix that failed; their
/// outputs are as they were, all others written, to the bits that they have without the failures.
pub fn batched_damped_inverse<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<Pending, Error> {
    check_batch(a.shape(), scale, damping)?;
    check_shape("out", &a.shape(), &out.shape())?;
    a.check_device("a", stream)?;
    out.as_view().check_device("out", stream)?;
    let pending = foof_cuda::inverse::damped_inverse(out, a, scale, damping, triangle, stream, scratch)?;
    Ok(Pending(pending))
}

/// Scratch of [`batched_damped_inverse`] of `[batch, n, n]`.
pub fn batched_damped_inverse_scratch<T: Element>([batch, _]: [usize; 2]) -> ScratchReq {
    foof_cuda::inverse::damped_inverse_scratch::<T>(batch)
}

/// [`batched_damped_inverse`] with scratch of its own, waited for.
///
/// # Errors
/// As [`batched_damped_inverse`] and [`Pending::wait`].
pub fn batched_damped_inverse_alloc<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    stream: &Stream,
) -> Result<(), Error> {
    let [batch, n, _] = a.shape();
    let mut scratch = Scratch::new(stream, batched_damped_inverse_scratch::<T>([batch, n]))?;
    batched_damped_inverse(out, a, scale, damping, triangle, stream, &mut scratch)?.wait()
}
