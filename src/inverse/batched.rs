//! Damped inverses and solves of a batch of matrices of one size.

use crate::dense::with_scratch;
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Element, Error, MemStack, Par, StackReq, Triangle, View, ViewMut};
use foof_kernels::batched::{self as kernel, Dampings, Failure};

/// What a batch of the shape of `a` asks of its parameters.
pub(crate) fn check<T: Element>(a: [usize; 3], scale: T, damping: Dampings<'_, T>) -> Result<(), Error> {
    let [batch, n, _] = a;
    check_shape("a", &[batch, n, n], &a)?;
    check_parameter("scale", scale.to_f64(), scale > T::zero() && scale.is_finite(), "a positive finite number")?;
    let valid = |damping: T| damping >= T::zero() && damping.is_finite();
    match damping {
        Dampings::Same(damping) => {
            check_parameter("damping", damping.to_f64(), valid(damping), "a finite number, not negative")
        }
        Dampings::Each(dampings) => {
            check_shape("damping", &[batch], &[dampings.len()])?;
            match dampings.iter().position(|&damping| !valid(damping)) {
                None => Ok(()),
                Some(index) => Err(Error::Element {
                    argument: "damping",
                    index: vec![index],
                    value: dampings[index].to_f64(),
                    expected: "a finite number, not negative",
                }),
            }
        }
    }
}

/// NaN and infinity always reach a pivot, so only a matrix that fails is searched for them.
fn error<T: Element>(a: View<'_, T, 3>, failures: Vec<Failure<T>>) -> Error {
    let named = failures.into_iter().map(|Failure { index, pivot }| {
        let matrix = a.datapoint(index);
        let entry = (0..matrix.rows()).flat_map(|i| (0..=i).map(move |j| [i, j])).find(|&e| !matrix.at(e).is_finite());
        let error = match entry {
            Some(entry) => Error::NotFinite { argument: "a", index: entry.to_vec() },
            None => Error::pivot(pivot),
        };
        (index, error)
    });
    Error::Items { failures: named.collect() }
}

/// `out_b <- (scale A_b + damping_b I)^-1` for each matrix of a batch `a` `[batch, n, n]` of symmetric matrices, of which the lower triangles
/// are read. Small matrices are inverted one in each lane of a vector, many at once; large ones one at a time. `damping = 0` is allowed.
/// `batch n³ / 2` multiply-adds.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::Element`], [`Error::Scratch`] with `out` as it was;
/// [`Error::Items`] with every matrix that failed, [`Error::NotPositiveDefinite`] or, for an entry that is NaN or infinite, [`Error::NotFinite`]: their
/// outputs are as they were, all others written, to the bits that they have without the failures.
pub fn batched_damped_inverse<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check(a.shape(), scale, damping)?;
    check_shape("out", &a.shape(), &out.shape())?;
    let [batch, n, _] = a.shape();
    check_scratch(stack, batched_damped_inverse_scratch::<T>([batch, n], par))?;
    kernel::damped_inverse(out, a, scale, damping, triangle, par, stack).map_err(|failures| error(a, failures))
}

/// Scratch of [`batched_damped_inverse`] of `[batch, n, n]`.
pub fn batched_damped_inverse_scratch<T: Element>(shape: [usize; 2], par: Par) -> StackReq {
    kernel::damped_inverse_scratch::<T>(shape, par)
}

/// [`batched_damped_inverse`] with scratch of its own.
///
/// # Errors
/// As [`batched_damped_inverse`].
pub fn batched_damped_inverse_alloc<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    par: Par,
) -> Result<(), Error> {
    let [batch, n, _] = a.shape();
    let req = batched_damped_inverse_scratch::<T>([batch, n], par);
    with_scratch(req, |stack| batched_damped_inverse(out, a, scale, damping, triangle, par, stack))
}

/// `X_b <- (scale A_b + damping_b I)^-1 B_b` for right-hand sides `b` `[batch, n, cols]`; `out` has their shape. `batch n² (n / 6 + cols)`
/// multiply-adds.
///
/// # Errors
/// As [`batched_damped_inverse`].
#[allow(clippy::too_many_arguments)]
pub fn batched_solve<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    b: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check(a.shape(), scale, damping)?;
    let ([batch, n, _], cols) = (a.shape(), b.shape()[2]);
    check_shape("b", &[batch, n, cols], &b.shape())?;
    check_shape("out", &b.shape(), &out.shape())?;
    check_scratch(stack, batched_solve_scratch::<T>([batch, n, cols], par))?;
    kernel::solve(out, a, b, scale, damping, par, stack).map_err(|failures| error(a, failures))
}

/// Scratch of [`batched_solve`] of `[batch, n, n]` with `cols` right-hand sides each.
pub fn batched_solve_scratch<T: Element>(shape: [usize; 3], par: Par) -> StackReq {
    kernel::solve_scratch::<T>(shape, par)
}

/// [`batched_solve`] with scratch of its own.
///
/// # Errors
/// As [`batched_damped_inverse`].
pub fn batched_solve_alloc<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    b: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    par: Par,
) -> Result<(), Error> {
    let req = batched_solve_scratch::<T>(b.shape(), par);
    with_scratch(req, |stack| batched_solve(out, a, b, scale, damping, par, stack))
}
