//! Small helpers on dense views: temporaries, scans, entrywise updates.

use crate::{Blend, Element, Error, Input, MatMut, MatRef, MemStack, StackReq, View};
use dyn_stack::DynArray;

/// Room for `n` zeros.
pub(crate) fn temporary<T: Element>(stack: &mut MemStack, n: usize) -> (DynArray<'_, T>, &mut MemStack) {
    stack.make_with(n, |_| T::zero())
}

/// The scratch of [`temporary`].
pub(crate) fn temporary_scratch<T: Element>(n: usize) -> StackReq {
    StackReq::new::<T>(n)
}

/// The first element that is not finite is an error.
pub(crate) fn check_finite<I: Input>(argument: &'static str, x: View<'_, I, 3>) -> Result<(), Error> {
    use num_traits::Float;
    let [n, t, d] = x.shape();
    for a in 0..n {
        for b in 0..t {
            for c in 0..d {
                if !x.at([a, b, c]).widen().is_finite() {
                    return Err(Error::NotFinite { argument, index: vec![a, b, c] });
                }
            }
        }
    }
    Ok(())
}

/// As [`check_finite`], for a matrix.
pub(crate) fn check_finite_matrix<T: Element>(argument: &'static str, x: MatRef<'_, T>) -> Result<(), Error> {
    for i in 0..x.rows() {
        for j in 0..x.cols() {
            if !x.at([i, j]).is_finite() {
                return Err(Error::NotFinite { argument, index: vec![i, j] });
            }
        }
    }
    Ok(())
}

/// `out <- beta out + alpha x`, entry by entry; `beta = 0` does not read `out`.
pub(crate) fn blend_into<T: Element>(mut out: MatMut<'_, T>, blend: Blend<T>, x: MatRef<'_, T>) {
    let zero = blend.beta == T::zero();
    for i in 0..out.rows() {
        for j in 0..out.cols() {
            let value = blend.alpha * x.at([i, j]);
            let value = if zero { value } else { value + blend.beta * out.as_ref().at([i, j]) };
            out.set([i, j], value);
        }
    }
}

/// `sum_ij a_ij b_ij`, rows first.
pub(crate) fn dot<T: Element>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> T {
    (0..a.rows()).map(|i| (0..a.cols()).map(|j| a.at([i, j]) * b.at([i, j])).sum()).sum()
}

/// Copies rows, with a constant 1 after each if `out` has one more column.
pub(crate) fn flatten_rows<T: Element>(out: MatMut<'_, T>, x: MatRef<'_, T>) {
    let [n, d] = x.shape();
    let columns = d..out.cols();
    let mut out = out;
    out.rb_mut().submatrix(0..n, 0..d).copy_from(x);
    out.submatrix(0..n, columns).fill(T::one());
}
