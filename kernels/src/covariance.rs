//! Covariances `out <- beta out + alpha X^T X` of dense and weight-shared activations, and second moments.

use crate::element::{Element, Input};
use crate::engine::epilogue::{Blend, Store, StoreSymmetric, Triangle};
use crate::engine::pack::{Centred, Pack, Reduced, Squared, Strided, WithOne};
use crate::engine::{self, Engine, grouped};
use crate::par::Par;
use crate::view::{MatMut, View};
use dyn_stack::{MemStack, StackReq};

/// What the positions of a datapoint contribute (Eschenhagen et al. 2023).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    /// Each position is a row of its own.
    #[default]
    Expand,
    /// The positions of a datapoint are summed to one row.
    Reduce,
}

/// Whether a constant 1 follows each row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bias {
    /// No.
    #[default]
    Without,
    /// Yes: a virtual last column of ones.
    With,
}

impl Bias {
    /// Columns added: 0 or 1.
    pub fn columns(self) -> usize {
        usize::from(self == Bias::With)
    }
}

/// How rows are formed from activations, and how their covariance is written.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a, T> {
    /// What positions contribute.
    pub sharing: Sharing,
    /// Factor of the sum over positions, under [`Sharing::Reduce`] only: `1 / T` for a mean.
    pub reduce_scale: T,
    /// A constant 1 after each row, neither centred nor scaled.
    pub bias: Bias,
    /// Subtracted from each row: `d` values.
    pub centre: Option<&'a [T]>,
    /// Which part of the output is written.
    pub triangle: Triangle,
    /// How the sum meets the output.
    pub blend: Blend<T>,
}

/// Calls `f` with the operand that `spec` makes of `x`.
fn with_operand<I: Input, O>(x: View<'_, I, 3>, spec: &Spec<'_, I::Acc>, f: impl FnOnce(&dyn Pack<I::Acc>) -> O) -> O {
    fn decorate<T: Element, P: Pack<T>, O>(p: P, spec: &Spec<'_, T>, f: impl FnOnce(&dyn Pack<T>) -> O) -> O {
        match (spec.centre, spec.bias) {
            (None, Bias::Without) => f(&p),
            (None, Bias::With) => f(&WithOne(p)),
            (Some(c), Bias::Without) => f(&Centred(p, c)),
            (Some(c), Bias::With) => f(&WithOne(Centred(p, c))),
        }
    }
    match spec.sharing {
        Sharing::Expand => decorate(Strided::expand(x), spec, f),
        Sharing::Reduce => decorate(Reduced { view: x, scale: spec.reduce_scale }, spec, f),
    }
}

/// `out <- beta out + alpha X^T X`, one triangle computed; `x` is `[N, T, d]` (dense: T = 1), `out` `[d, d]`, or `[d + 1, d + 1]`
/// with bias. `d² N T / 2` multiply-adds (`d² N / 2` reduced).
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`scratch`].
pub fn covariance<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    spec: &Spec<'_, I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let d = x.shape()[2];
    let size = d + spec.bias.columns();
    assert!(out.shape() == [size, size], "covariance: the output is not {size} x {size}");
    assert!(spec.centre.is_none_or(|c| c.len() == d), "covariance: the centre has not {d} values");
    // Rows of a tile are contiguous; for a column-major output that is the upper triangle of its transpose, which only a
    // caller who wants one triangle can tell from the lower.
    let [row_step, col_step] = out.strides().map(isize::unsigned_abs);
    let out = if spec.triangle == Triangle::Full && row_step < col_step { out.transpose() } else { out };
    with_operand(x, spec, |operand| {
        // SAFETY: the output has the product's shape, checked above.
        let epilogue = unsafe { StoreSymmetric::new(out, spec.blend, spec.triangle) };
        Engine::symmetric(operand, &epilogue, par).run(stack);
    });
}

fn rows(shape: [usize; 3], sharing: Sharing) -> usize {
    match sharing {
        Sharing::Expand => shape[0] * shape[1],
        Sharing::Reduce => shape[0],
    }
}

/// Scratch of [`covariance`] for activations of `shape` `[N, T, d]`.
pub fn scratch<T: Element>(shape: [usize; 3], bias: Bias, sharing: Sharing, par: Par) -> StackReq {
    let size = shape[2] + bias.columns();
    engine::scratch::<T>(size, size, rows(shape, sharing), true, par)
}

/// The longest chain of additions into one entry of a [`covariance`]; under [`Sharing::Reduce`] add `T` for each row.
pub fn depth<T: Element>(shape: [usize; 3], bias: Bias, sharing: Sharing, par: Par) -> usize {
    let size = shape[2] + bias.columns();
    engine::depth::<T>(size, size, rows(shape, sharing), true, par)
}

/// `out <- beta out + alpha sum_n (sum_t e_nt x_nt^T)²`, squared entry by entry, for `e` `[N, T, o]`, `x` `[N, T, i]` and `out`
/// `[o, i]`: EK-FAC's second moments (George et al. 2018), for activations and errors that were projected on the eigenbases. `N T o i`
/// multiply-adds, and `N o i` for the squares where `T > 1`; rank-one gradients (`T = 1`) are squared while they are packed. No gradient of a
/// datapoint is formed beyond a tile.
///
/// # Panics
/// If shapes disagree, `T` is zero, or `stack` holds less than [`second_moments_scratch`].
pub fn second_moments<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    e: View<'_, T, 3>,
    x: View<'_, T, 3>,
    par: Par,
    stack: &mut MemStack,
) {
    let ([n, t, o], [_, _, i]) = (e.shape(), x.shape());
    assert!(out.shape() == [o, i] && x.shape() == [n, t, i] && t > 0, "second_moments: shapes disagree");
    // Rows of a tile are contiguous: a column-major output is computed as its transpose.
    let [row_step, col_step] = out.strides().map(isize::unsigned_abs);
    let (out, left, right) = if row_step < col_step { (out.transpose(), x, e) } else { (out, e, x) };
    let (left, right) = (Strided::expand(left), Strided::expand(right));
    // SAFETY: the output has the product's shape, checked above.
    let epilogue = unsafe { Store::new(out, blend) };
    if t == 1 {
        Engine::product(&Squared(left), &Squared(right), &epilogue, par).run(stack);
    } else {
        grouped::run(&left, &right, t, &epilogue, par, stack);
    }
}

/// Scratch of [`second_moments`] for errors `[N, T, o]` and activations `[N, T, i]`.
pub fn second_moments_scratch<T: Element>([n, t, o]: [usize; 3], i: usize, par: Par) -> StackReq {
    let scratch = |m, k| match t {
        1 => engine::scratch::<T>(m, k, n, false, par),
        _ => grouped::scratch::<T>(m, k, n * t, par),
    };
    scratch(o, i).or(scratch(i, o))
}

/// The roundings of a term `e_ntj e_nsj x_ntk x_nsk` of an entry of [`second_moments`]:
/// `|fl(M) - M| <= gamma_depth sum_n (|E_n|^T |X_n|)²`. Twice a datapoint's chain, a square, and a sum over the datapoints.
pub fn second_moments_depth<T: Element>([n, t, o]: [usize; 3], i: usize, par: Par) -> usize {
    let depth = |m, k| match t {
        1 => engine::depth::<T>(m, k, n, false, par) + 2,
        _ => 2 * grouped::depth::<T>(m, k, t, par) + n + 1,
    };
    depth(o, i).max(depth(i, o))
}

/// `out_i <- scale sum_{n,t} x_nti`, in order of n and t: chains of `N T` additions.
///
/// # Panics
/// If `out` has not `d` values.
pub fn column_sums<I: Input>(out: &mut [I::Acc], x: View<'_, I, 3>, scale: I::Acc) {
    let [n, t, d] = x.shape();
    assert_eq!(out.len(), d, "column_sums: lengths differ");
    out.fill(num_traits::Zero::zero());
    for index in 0..n * t {
        for (i, sum) in out.iter_mut().enumerate() {
            *sum += x.at([index / t, index % t, i]).widen();
        }
    }
    out.iter_mut().for_each(|sum| *sum *= scale);
}
