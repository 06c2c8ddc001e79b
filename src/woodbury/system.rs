//! The `R x R` system: factored once, solved with for any number of vectors.

use super::batch::{Direction, LayerBatch, check_all_finite};
use super::steps::{damped_gram, gradient_dots, gradient_dots_scratch, root};
use crate::dense::{blend_into, check_finite, temporary, temporary_scratch};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::cholesky;
use foof_kernels::woodbury::{Weights, dots, gram, sum};

/// What one solve is of: the batch, its `N`, the damping and the factor.
pub(super) struct System<'a, 'b, T, S> {
    pub(super) batch: &'a [LayerBatch<'b, T>],
    pub(super) n: usize,
    pub(super) damping: T,
    /// The Cholesky factor of `lambda I + G^T G`.
    pub(super) factor: MatRef<'a, S>,
}

/// Overwrites `out` with the Cholesky factor of `lambda I + G^T G`, lower triangle.
pub(super) fn factor<T: Element, S: Element>(
    mut out: MatMut<'_, S>,
    batch: &[LayerBatch<'_, T>],
    n: usize,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let damping = S::from_f64(damping.to_f64());
    damped_gram(out.rb_mut(), batch, n, damping, Triangle::Lower, par, stack);
    cholesky::potrf(out, par, stack).map_err(|pivot| match check_all_finite(batch, &[]) {
        Err(error) => error,
        // Finite gradients whose products are not, or rounding larger than the damping.
        Ok(()) => Error::pivot(pivot),
    })
}

/// Scratch of [`factor`].
pub(super) fn factor_scratch<T: Element, S: Element>(batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
    let rows = batch.first().map_or(0, LayerBatch::rows);
    let grams = batch.iter().map(|layer| gram::scratch::<T, S>(&layer.0, gram::Form::of(&layer.0), par));
    grams.fold(cholesky::potrf_scratch::<S>(rows, par), StackReq::or)
}

impl<T: Element, S: Element> System<'_, '_, T, S> {
    /// `w <- (lambda I + G^T G)^-1 w`.
    fn solve_rows(&self, w: &mut [T], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let (mut b, stack) = temporary::<S>(stack, w.len());
        b.iter_mut().zip(&*w).for_each(|(b, &w)| *b = S::from_f64(w.to_f64()));
        cholesky::solve_left(self.factor, MatMut::new(&mut b, [w.len(), 1])?, par, stack);
        w.iter_mut().zip(&*b).for_each(|(w, &b)| *w = T::from_f64(b.to_f64()));
        Ok(())
    }

    /// `out <- alpha (U + sum_r w_r g_r)` of layer `l`.
    fn plus_sum(
        &self,
        out: MatMut<'_, T>,
        (l, u): (usize, &Direction<'_, T>),
        (alpha, w): (T, &[T]),
        par: Par,
        stack: &mut MemStack,
    ) {
        let term = (self.batch[l].0, Weights::Each(w));
        match u {
            Direction::Matrix(u) => sum::sum(out, Some(*u), Blend { alpha, beta: alpha }, &term, None, par, stack),
            Direction::LowRank { batch, scale } => {
                let first = (batch.0, Weights::All(*scale));
                sum::sum(out, None, Blend::set(alpha), &first, Some(&term), par, stack);
            }
        }
    }

    /// `out <- (1/lambda) (u - G (lambda I + G^T G)^-1 G^T u)`.
    pub(super) fn solve(
        &self,
        out: &mut [MatMut<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let (mut w, stack) = temporary::<T>(stack, self.factor.rows());
        gradient_dots(&mut w, self.batch, u, par, stack)?;
        if check_finite("G^T u", MatRef::new(&w, [1, w.len()])?).is_err() {
            check_all_finite(self.batch, u)?;
            return check_finite("G^T u", MatRef::new(&w, [1, w.len()])?);
        }
        self.solve_rows(&mut w, par, stack)?;
        scale(&mut w, -root::<T>(self.n));
        for (l, (out, u)) in out.iter_mut().zip(u).enumerate() {
            self.plus_sum(out.rb_mut(), (l, u), (self.damping.recip(), &w), par, stack);
        }
        Ok(())
    }

    /// `out <- out + (F + lambda I)^-1 (u - (F + lambda I) out)`, the inverse by the same factor; the residual in `T`.
    pub(super) fn refine(
        &self,
        out: &mut [MatMut<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let root = root::<T>(self.n);
        let (mut w, stack) = temporary::<T>(stack, self.factor.rows());
        let (mut residual, stack) = temporary::<T>(stack, weights(self.batch));
        for (layer, x) in self.batch.iter().zip(&*out) {
            dots::dots(&mut w, T::one(), &layer.0, x.as_ref(), par, stack);
        }
        // r = u - G (G^T x) - lambda x
        scale(&mut w, -root * root);
        let mut rest = &mut residual[..];
        for (l, (out, u)) in out.iter().zip(u).enumerate() {
            let mut r = MatMut::new(next(&mut rest, out.shape()), out.shape())?;
            self.plus_sum(r.rb_mut(), (l, u), (T::one(), &w), par, stack);
            blend_into(r, Blend::add(-self.damping), out.as_ref(), par);
        }
        // w = (lambda I + G^T G)^-1 G^T r
        w.fill(T::zero());
        let mut rest = &mut residual[..];
        for (layer, out) in self.batch.iter().zip(&*out) {
            let r = MatMut::new(next(&mut rest, out.shape()), out.shape())?;
            dots::dots(&mut w, root, &layer.0, r.as_ref(), par, stack);
        }
        self.solve_rows(&mut w, par, stack)?;
        // x + (1/lambda) (r - G w)
        scale(&mut w, -root);
        let mut rest = &mut residual[..];
        for (layer, out) in self.batch.iter().zip(out) {
            let mut r = MatMut::new(next(&mut rest, out.shape()), out.shape())?;
            sum::sum(r.rb_mut(), None, Blend::add(T::one()), &(layer.0, Weights::Each(&w)), None, par, stack);
            blend_into(out.rb_mut(), Blend::add(self.damping.recip()), r.as_ref(), par);
        }
        Ok(())
    }
}

fn scale<T: Element>(w: &mut [T], factor: T) {
    w.iter_mut().for_each(|w| *w *= factor);
}

/// The next matrix of a shape, cut off the front.
fn next<'m, T>(rest: &mut &'m mut [T], [o, i]: [usize; 2]) -> &'m mut [T] {
    let (part, tail) = core::mem::take(rest).split_at_mut(o * i);
    *rest = tail;
    part
}

fn weights<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.iter().map(|layer| layer.weight_shape().iter().product::<usize>()).sum()
}

/// Scratch of [`System::solve`] and, if `refined`, [`System::refine`].
pub(super) fn solve_scratch<T: Element, S: Element>(
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    refined: bool,
    par: Par,
) -> StackReq {
    let rows = batch.first().map_or(0, LayerBatch::rows);
    let system = temporary_scratch::<S>(rows).and(cholesky::solve_scratch::<S>(rows, 1, par));
    let sums = batch.iter().zip(u).map(|(layer, u)| match u {
        Direction::Matrix(_) => sum::scratch(&layer.0, None, par),
        Direction::LowRank { batch, .. } => sum::scratch(&batch.0, Some(&layer.0), par),
    });
    let work = sums.fold(system.or(gradient_dots_scratch(batch, u, par)), StackReq::or);
    let alone = |layer: &LayerBatch<'_, T>| sum::scratch(&layer.0, None, par).or(dots::scratch(&layer.0, par));
    let refinement = temporary_scratch::<T>(if refined { weights(batch) } else { 0 });
    let work = if refined { batch.iter().map(alone).fold(work, StackReq::or) } else { work };
    StackReq::all_of(&[temporary_scratch::<T>(rows), refinement, work])
}
