//! Many small matrices at once.

use super::check_finite_lower;
use crate::dense::with_scratch;
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Element, Error, MemStack, Par, StackReq, View, ViewMut};
use foof_kernels::batched::eigen::{self as kernel, Cause, Failure};

/// Rows of the largest matrix of [`batched_symmetric_eigen`].
pub const BATCHED_MAX: usize = kernel::MAX;

/// `A_b = Q_b diag(a_b) Q_b^T` for a batch of symmetric matrices `a` `[batch, n, n]`, of which the lower triangles are read, `n <=`
/// [`BATCHED_MAX`]: eigenvalues, ascending, to `values` `[batch, n]`, eigenvectors to the columns of `vectors` `[batch, n, n]`.
///
/// Each SIMD lane holds one matrix: Householder's reduction to tridiagonal form and the implicit QL algorithm (Golub and Van Loan,
/// *Matrix Computations*, section 8.3). About `9 n³` operations a matrix. A decomposition depends on its matrix alone: neither on the others,
/// nor on its place, nor on the number of threads.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`] (`n`), [`Error::Scratch`] with outputs as they were. [`Error::Items`] with every matrix that failed:
/// [`Error::NotFinite`] of `a` at `[i, j]`, or of `values` if an eigenvalue overflows; [`Error::NoConvergence`]. Their outputs are as they
/// were; all others are decomposed.
pub fn batched_symmetric_eigen<T: Element>(
    values: ViewMut<'_, T, 2>,
    vectors: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [batch, n, _] = a.shape();
    check_shape("a", &[batch, n, n], &a.shape())?;
    check_shape("values", &[batch, n], &values.shape())?;
    check_shape("vectors", &[batch, n, n], &vectors.shape())?;
    check_parameter("n", n as f64, n <= BATCHED_MAX, "at most 64 rows")?;
    check_scratch(stack, batched_symmetric_eigen_scratch::<T>(batch, n, par))?;
    kernel::symmetric_eigen(values, vectors, a, kernel::sweeps(n), par, stack).map_err(|failures| error(failures, a))
}

fn error<T: Element>(failures: Vec<Failure>, a: View<'_, T, 3>) -> Error {
    let named = failures.into_iter().map(|Failure { matrix, cause }| {
        let error = match cause {
            Cause::NoConvergence => Error::NoConvergence { size: a.shape()[1] },
            Cause::Overflow(place) => Error::NotFinite { argument: "values", index: vec![place] },
            Cause::NotFinite => match check_finite_lower("a", a.datapoint(matrix), T::one()) {
                Err(error) => error,
                Ok(()) => unreachable!("the kernel has seen an entry that is not finite"),
            },
        };
        (matrix, error)
    });
    Error::Items { failures: named.collect() }
}

/// Scratch of [`batched_symmetric_eigen`] of a batch `[batch, n, n]`; nothing for a shape that it refuses.
pub fn batched_symmetric_eigen_scratch<T: Element>(batch: usize, n: usize, par: Par) -> StackReq {
    match n <= BATCHED_MAX {
        true => kernel::symmetric_eigen_scratch::<T>(batch, n, par),
        false => StackReq::empty(),
    }
}

/// [`batched_symmetric_eigen`] with scratch of its own.
///
/// # Errors
/// As [`batched_symmetric_eigen`].
pub fn batched_symmetric_eigen_alloc<T: Element>(
    values: ViewMut<'_, T, 2>,
    vectors: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    par: Par,
) -> Result<(), Error> {
    let [batch, n, _] = a.shape();
    let req = batched_symmetric_eigen_scratch::<T>(batch, n, par);
    with_scratch(req, |stack| batched_symmetric_eigen(values, vectors, a, par, stack))
}
