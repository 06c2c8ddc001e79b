//! The factorisation.

use super::leaf;
use super::triangular::{halvings, solve_lower, solve_scratch, syrk, syrk_scratch};
use super::{LEAF, Pivot, half};
use crate::element::Element;
use crate::par::Par;
use crate::view::MatMut;
use dyn_stack::{MemStack, StackReq};

/// `A = L L^T` in place: reads and writes the lower triangle only. `n³ / 6` multiply-adds.
///
/// # Errors
/// The first pivot that is not positive or not finite; the lower triangle then holds an unfinished factor.
///
/// # Panics
/// If `a` is not square, or `stack` holds less than [`potrf_scratch`].
pub fn potrf<T: Element>(a: MatMut<'_, T>, par: Par, stack: &mut MemStack) -> Result<(), Pivot<T>> {
    let n = a.rows();
    assert_eq!(n, a.cols(), "potrf: the matrix is not square");
    if n <= LEAF {
        return leaf::potrf(a, T::kernels(par.isa()));
    }
    let h = half(n);
    let [mut a11, _, mut a21, mut a22] = a.split_at(h, h);
    potrf(a11.rb_mut(), par, stack)?;
    // L21 L11^T = A21 is L11 L21^T = A21^T.
    solve_lower(a11.as_ref(), a21.rb_mut().transpose(), par, stack);
    syrk(a22.rb_mut(), -T::one(), a21.as_ref(), par, stack);
    potrf(a22, par, stack).map_err(|pivot| pivot.after(h))
}

/// Scratch of [`potrf`].
pub fn potrf_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    halvings(n, &|h, rest| solve_scratch::<T>(h, rest, par).or(syrk_scratch::<T>(rest, h, par)))
}
