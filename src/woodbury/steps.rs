//! The three sums.

use super::batch::{Direction, LayerBatch, check_batch, check_each};
use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_scratch, check_shape};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::woodbury::gram::{self, Form};
use foof_kernels::woodbury::{Layer, Weights, dots, sum};

/// `1 / sqrt(N)`, rounded once.
pub(super) fn root<T: Element>(n: usize) -> T {
    T::from_f64(1.0 / (n as f64).sqrt())
}

/// Whether `G^T u` of a low-rank `u` is cheaper from pairs of rows than with `u` formed.
fn by_pairs<T: Element>(layer: &Layer<'_, T>, other: &Layer<'_, T>) -> bool {
    let [o, i] = layer.weight_shape().map(|x| x as f64);
    let sizes = |layer: &Layer<'_, T>| [layer.rows(), layer.datapoints(), layer.positions()].map(|x| x as f64);
    let ([r, n, t], [s, m, u]) = (sizes(layer), sizes(other));
    t * u * (n * m * i + r * s * o) <= (r * t).min(n * t * layer.labels() as f64) * o * i + m * u * o * i
}

/// `out_r <- (G^T u)_r = (1/sqrt N) sum_l <g_rl, U_l>` for the `R` rows of `batch`: step (1), equation 21. A matrix `U_l` takes `N T o i`
/// multiply-adds, and no product `X U^T` is stored; a low-rank one `N M T² (i + o)` or, if that is more, the cost of forming it.
///
/// # Errors
/// [`Error::Shape`], [`Error::EmptyBatch`], [`Error::Scratch`], in an [`Error::Layer`] where it is one layer's; `out` as it was.
pub fn gradient_dots<T: Element>(
    out: &mut [T],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    dots_of(out, batch, u.iter().copied(), par, stack)
}

/// [`gradient_dots`] of directions in no list.
pub(crate) fn dots_of<'u, T: Element>(
    out: &mut [T],
    batch: &[LayerBatch<'_, T>],
    u: impl ExactSizeIterator<Item = Direction<'u, T>> + Clone,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [rows, n] = check_batch(batch)?;
    check_each("u", batch, u.clone().map(|u| u.shape()))?;
    check_shape("out", &[rows], &[out.len()])?;
    check_scratch(stack, dots_of_scratch(batch.iter().copied().zip(u.clone()), par))?;
    out.fill(T::zero());
    for (layer, u) in batch.iter().zip(u) {
        add_dots(out, &layer.0, &u, par, stack)?;
    }
    let scale = root::<T>(n);
    out.iter_mut().for_each(|x| *x *= scale);
    Ok(())
}

fn add_dots<T: Element>(
    out: &mut [T],
    layer: &Layer<'_, T>,
    u: &Direction<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    match u {
        Direction::Matrix(u) => dots::dots(out, T::one(), layer, *u, par, stack),
        Direction::LowRank { batch, scale } if by_pairs(layer, &batch.0) => {
            dots::low_rank(out, *scale, layer, &batch.0, par, stack);
        }
        Direction::LowRank { batch, scale } => {
            let [o, i] = layer.weight_shape();
            let (mut u, stack) = temporary::<T>(stack, o * i);
            let term = (batch.0, Weights::All(T::one()));
            sum::sum(MatMut::new(&mut u, [o, i])?, None, Blend::set(T::one()), &term, None, par, stack);
            dots::dots(out, *scale, layer, MatRef::new(&u, [o, i])?, par, stack);
        }
    }
    Ok(())
}

/// Scratch of [`gradient_dots`].
pub fn gradient_dots_scratch<T: Element>(batch: &[LayerBatch<'_, T>], u: &[Direction<'_, T>], par: Par) -> StackReq {
    dots_of_scratch(batch.iter().copied().zip(u.iter().copied()), par)
}

/// Scratch of [`dots_of`], of each layer with its direction.
pub(crate) fn dots_of_scratch<'b, 'u, T: Element>(
    layers: impl Iterator<Item = (LayerBatch<'b, T>, Direction<'u, T>)>,
    par: Par,
) -> StackReq {
    let each = |(layer, u): (LayerBatch<'_, T>, Direction<'_, T>)| match u {
        Direction::Matrix(_) => matrix_dots_scratch(&layer, par),
        Direction::LowRank { batch, .. } if by_pairs(&layer.0, &batch.0) => {
            dots::low_rank_scratch(&layer.0, &batch.0, par)
        }
        Direction::LowRank { batch, .. } => {
            let [o, i] = layer.weight_shape();
            let products = sum::scratch(&batch.0, None, par).or(dots::scratch(&layer.0, par));
            temporary_scratch::<T>(o * i).and(products)
        }
    };
    layers.map(each).fold(StackReq::EMPTY, StackReq::or)
}

/// Scratch of [`dots_of`] for a matrix of a layer.
pub(crate) fn matrix_dots_scratch<T: Element>(layer: &LayerBatch<'_, T>, par: Par) -> StackReq {
    dots::scratch(&layer.0, par)
}

/// [`gradient_dots`] with scratch of its own.
///
/// # Errors
/// As [`gradient_dots`].
pub fn gradient_dots_alloc<T: Element>(
    out: &mut [T],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    par: Par,
) -> Result<(), Error> {
    let req = gradient_dots_scratch(batch, u, par);
    with_scratch(req, |stack| gradient_dots(out, batch, u, par, stack))
}

/// `out <- G^T G = (1/N) sum_l sum_tu (x_nt . x_mu) (e_rt . e_su)`, `[R, R]`: step (2), equation 22. One triangle is computed, mirrored if asked.
/// Each layer takes the [`Form`] of fewer multiply-adds: `N² T² (i + o) / 2` from pairs of rows, or `N T i o + N² i o / 2` from the
/// datapoints' gradients, a few thousand weights at a time.
///
/// # Errors
/// As [`gradient_dots`].
pub fn gradient_gram<T: Element>(
    mut out: MatMut<'_, T>,
    batch: &[LayerBatch<'_, T>],
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [rows, n] = check_batch(batch)?;
    check_shape("out", &[rows, rows], &out.shape())?;
    check_scratch(stack, gradient_gram_scratch(batch, par))?;
    damped_gram(out.rb_mut(), batch, n, T::zero(), triangle, par, stack);
    Ok(())
}

/// `out <- lambda I + G^T G`, summed in `S`; scratch as [`damped_gram_scratch`].
pub(crate) fn damped_gram<T: Element, S: Element>(
    mut out: MatMut<'_, S>,
    batch: &[LayerBatch<'_, T>],
    n: usize,
    damping: S,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) {
    gram::clear(out.rb_mut(), par);
    for layer in batch {
        gram::gram(out.rb_mut(), &layer.0, Form::of(&layer.0), par, stack);
    }
    gram::finish(out, S::from_f64(1.0 / n as f64), damping, triangle, par);
}

/// Scratch of [`gradient_gram`].
pub fn gradient_gram_scratch<T: Element>(batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
    damped_gram_scratch::<T, T>(batch, par)
}

/// Scratch of [`damped_gram`].
pub(crate) fn damped_gram_scratch<T: Element, S: Element>(batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
    let each = |layer: &LayerBatch<'_, T>| gram::scratch::<T, S>(&layer.0, Form::of(&layer.0), par);
    batch.iter().map(each).fold(StackReq::EMPTY, StackReq::or)
}

/// [`gradient_gram`] with scratch of its own.
///
/// # Errors
/// As [`gradient_dots`].
pub fn gradient_gram_alloc<T: Element>(
    out: MatMut<'_, T>,
    batch: &[LayerBatch<'_, T>],
    triangle: Triangle,
    par: Par,
) -> Result<(), Error> {
    let req = gradient_gram_scratch(batch, par);
    with_scratch(req, |stack| gradient_gram(out, batch, triangle, par, stack))
}

/// `out_l <- beta out_l + alpha (G v)_l = beta out_l + (alpha / sqrt N) sum_rt v_r e_rt x_nt^T`: step (3), equation 23, for `R` values `v` and one
/// matrix of the weights' shape for each layer; `beta = 0` reads none. `N T o i` multiply-adds.
///
/// # Errors
/// As [`gradient_dots`].
pub fn gradient_sum<T: Element>(
    out: &mut [MatMut<'_, T>],
    blend: Blend<T>,
    batch: &[LayerBatch<'_, T>],
    v: &[T],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [rows, n] = check_batch(batch)?;
    check_each("out", batch, out.iter().map(|out| out.shape()))?;
    check_shape("v", &[rows], &[v.len()])?;
    check_scratch(stack, gradient_sum_scratch(batch, par))?;
    let blend = Blend { alpha: blend.alpha * root(n), beta: blend.beta };
    for (out, layer) in out.iter_mut().zip(batch) {
        sum::sum(out.rb_mut(), None, blend, &(layer.0, Weights::Each(v)), None, par, stack);
    }
    Ok(())
}

/// Scratch of [`gradient_sum`].
pub fn gradient_sum_scratch<T: Element>(batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
    batch.iter().map(|layer| sum::scratch(&layer.0, None, par)).fold(StackReq::EMPTY, StackReq::or)
}

/// [`gradient_sum`] with scratch of its own.
///
/// # Errors
/// As [`gradient_dots`].
pub fn gradient_sum_alloc<T: Element>(
    out: &mut [MatMut<'_, T>],
    blend: Blend<T>,
    batch: &[LayerBatch<'_, T>],
    v: &[T],
    par: Par,
) -> Result<(), Error> {
    let req = gradient_sum_scratch(batch, par);
    with_scratch(req, |stack| gradient_sum(out, blend, batch, v, par, stack))
}
