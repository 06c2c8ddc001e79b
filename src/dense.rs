//! Small helpers on dense views: temporaries, scans, entrywise updates.

use crate::{Blend, Element, Error, Input, MatMut, MatRef, MemBuffer, MemStack, Par, StackReq, View};
use dyn_stack::DynArray;

/// Room for `n` zeros.
pub(crate) fn temporary<T: Element>(stack: &mut MemStack, n: usize) -> (DynArray<'_, T>, &mut MemStack) {
    stack.make_with(n, |_| T::zero())
}

/// The scratch of [`temporary`].
pub(crate) fn temporary_scratch<T: Element>(n: usize) -> StackReq {
    StackReq::new::<T>(n)
}

/// A list of `items`, if none is an error; [`StackReq::new`] of as many.
pub(crate) fn list<X>(
    stack: &mut MemStack,
    items: impl Iterator<Item = Result<X, Error>> + Clone,
) -> Result<(DynArray<'_, X>, &mut MemStack), Error> {
    items.clone().try_for_each(|item| item.map(drop))?;
    Ok(stack.collect(items.filter_map(Result::ok)))
}

/// Calls `f` with scratch made for it: what every `*_alloc` twin does.
pub(crate) fn with_scratch<R>(req: StackReq, f: impl FnOnce(&mut MemStack) -> R) -> R {
    f(MemStack::new(&mut MemBuffer::new(req)))
}

/// The first element that is not finite is an error.
pub(crate) fn check_finite<I: Input, const R: usize>(argument: &'static str, x: View<'_, I, R>) -> Result<(), Error> {
    match x.memory().is_some_and(all_finite) {
        true => Ok(()),
        false => match not_finite(x) {
            None => Ok(()),
            Some(index) => Err(Error::NotFinite { argument, index: index.to_vec() }),
        },
    }
}

/// The first entry that is NaN or infinite, line by line.
fn not_finite<I: Input, const R: usize>(x: View<'_, I, R>) -> Option<[usize; R]> {
    let (shape, last) = (x.shape(), R.checked_sub(1)?);
    let mut index = [0; R];
    while !x.is_empty() {
        if !x.line(index).is_some_and(all_finite) {
            for i in 0..shape[last] {
                index[last] = i;
                if !num_traits::Float::is_finite(x.at(index).widen()) {
                    return Some(index);
                }
            }
        }
        let axis = (0..last).rev().find(|&axis| index[axis] + 1 < shape[axis])?;
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
    None
}

/// Whether a row has no NaN and no infinity: `0 x` is then zero throughout. A loop that compilers make vectors of.
fn all_finite<I: Input>(row: &[I]) -> bool {
    let zero = <I::Acc as num_traits::Zero>::zero();
    let mut lanes = [zero; 16];
    let (whole, rest) = row.as_chunks::<16>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x.widen() * zero);
    }
    lanes.iter().all(|&sum| sum == zero) && rest.iter().all(|&x| x.widen() * zero == zero)
}

/// `out <- beta out + alpha x`, entry by entry; `beta = 0` does not read `out`.
pub(crate) fn blend_into<T: Element>(out: MatMut<'_, T>, blend: Blend<T>, x: MatRef<'_, T>, par: Par) {
    foof_kernels::elementwise::blend(out, blend, x, par);
}

/// `sum_ij a_ij b_ij`, rows first.
pub(crate) fn dot<T: Element>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> T {
    (0..a.rows()).map(|i| (0..a.cols()).map(|j| a.at([i, j]) * b.at([i, j])).sum()).sum()
}

/// `sum_i x_i²`, in sixteen partial sums: a loop that compilers make vectors of. A term goes through at most `n / 16 + 32` roundings.
pub(crate) fn sum_of_squares<T: Element>(x: &[T]) -> T {
    let mut lanes = [T::zero(); 16];
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x * x);
    }
    lanes.into_iter().chain(rest.iter().map(|&x| x * x)).sum()
}

/// The larger of two numbers; NaN if either is.
pub(crate) fn larger<T: Element>(a: T, b: T) -> T {
    if a.is_nan() || b <= a { a } else { b }
}
