//! The `R x R` system: factored once, solved with for any number of vectors.

use super::batch::{Direction, LayerBatch, check_all_finite};
use super::solve::Refinement;
use super::steps::{damped_gram, damped_gram_scratch, dots_of_scratch, gradient_dots, root};
use crate::dense::{blend_into, check_finite, temporary, temporary_scratch};
use crate::product::{product, product_scratch};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::cholesky;
use foof_kernels::woodbury::{Weights, dots, sum};

/// What one solve is of: the batch, its `N`, the damping, and what solves the system.
pub(crate) struct System<'a, 'b, T, S> {
    pub(crate) batch: &'a [LayerBatch<'b, T>],
    pub(crate) n: usize,
    pub(crate) damping: T,
    pub(crate) solver: Solver<'a, S>,
}

/// What `lambda I + G^T G` is solved with.
#[derive(Clone, Copy)]
pub(crate) enum Solver<'a, S> {
    /// Its Cholesky factor.
    Factor(MatRef<'a, S>),
    /// Its inverse.
    Inverse(MatRef<'a, S>),
}

impl<S: Element> Solver<'_, S> {
    /// Scratch of a system of `rows` equations with a factor.
    pub(crate) fn factor_scratch(rows: usize, par: Par) -> StackReq {
        cholesky::solve_scratch::<S>(rows, 1, par)
    }

    /// Scratch of a system of `rows` equations with an inverse.
    pub(crate) fn inverse_scratch(rows: usize, par: Par) -> StackReq {
        temporary_scratch::<S>(rows).and(product_scratch::<S>(rows, 1, rows, par))
    }

    /// `b <- (lambda I + G^T G)^-1 b`
    fn solve(self, b: &mut [S], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let rows = b.len();
        match self {
            Solver::Factor(factor) => cholesky::solve_left(factor, MatMut::new(b, [rows, 1])?, par, stack),
            Solver::Inverse(inverse) => {
                let (mut copy, stack) = temporary::<S>(stack, rows);
                copy.copy_from_slice(b);
                let (out, right) = (MatMut::new(b, [rows, 1])?, MatRef::new(&copy, [rows, 1])?);
                product(out, Blend::set(S::one()), inverse, right, par, stack)?;
            }
        }
        Ok(())
    }
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
    damped_gram_scratch::<T, S>(batch, par).or(cholesky::potrf_scratch::<S>(rows(batch), par))
}

impl<T: Element, S: Element> System<'_, '_, T, S> {
    /// `w <- (lambda I + G^T G)^-1 w`.
    fn solve_rows(&self, w: &mut [T], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let (mut b, stack) = temporary::<S>(stack, w.len());
        b.iter_mut().zip(&*w).for_each(|(b, &w)| *b = S::from_f64(w.to_f64()));
        self.solver.solve(&mut b, par, stack)?;
        w.iter_mut().zip(&*b).for_each(|(w, &b)| *w = T::from_f64(b.to_f64()));
        Ok(())
    }

    /// `w <- -(lambda I + G^T G)^-1 w / sqrt N`: of `w = G^T u` the coefficients of `(F + lambda I)^-1 u = (1/lambda) (u + sum_r w_r g_r)`.
    pub(crate) fn coefficients(&self, w: &mut [T], par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.solve_rows(w, par, stack)?;
        scale(w, -root::<T>(self.n));
        Ok(())
    }

    /// `out <- (1/lambda) (u + sum_r w_r g_r)`
    pub(crate) fn combine(
        &self,
        out: &mut [MatMut<'_, T>],
        u: &[Direction<'_, T>],
        w: &[T],
        par: Par,
        stack: &mut MemStack,
    ) {
        for (l, (out, u)) in out.iter_mut().zip(u).enumerate() {
            self.plus_sum(out.rb_mut(), (l, u), (self.damping.recip(), w), par, stack);
        }
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
        let (mut w, stack) = temporary::<T>(stack, rows(self.batch));
        gradient_dots(&mut w, self.batch, u, par, stack)?;
        if check_finite("G^T u", MatRef::new(&w, [1, w.len()])?).is_err() {
            check_all_finite(self.batch, u)?;
            return check_finite("G^T u", MatRef::new(&w, [1, w.len()])?);
        }
        self.coefficients(&mut w, par, stack)?;
        self.combine(out, u, &w, par, stack);
        Ok(())
    }

    /// `out <- out + (F + lambda I)^-1 (u - (F + lambda I) out)`, the inverse by the same factor; the residual in `T`.
    pub(crate) fn refine(
        &self,
        out: &mut [MatMut<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let root = root::<T>(self.n);
        let (mut w, stack) = temporary::<T>(stack, rows(self.batch));
        let (mut residual, stack) = temporary::<T>(stack, weights(self.batch.iter().copied()));
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
        self.coefficients(&mut w, par, stack)?;
        // x + (1/lambda) (r - G w)
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

fn weights<'b, T: Element>(batch: impl Iterator<Item = LayerBatch<'b, T>>) -> usize {
    batch.map(|layer| layer.weight_shape().iter().product::<usize>()).sum()
}

fn rows<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.first().map_or(0, LayerBatch::rows)
}

/// Scratch of [`System::coefficients`]; `solver` is that of the [`Solver`].
pub(crate) fn coefficients_scratch<S: Element>(rows: usize, solver: StackReq) -> StackReq {
    temporary_scratch::<S>(rows).and(solver)
}

/// Scratch of [`System::solve`] and, if told, [`System::refine`], of each layer with its direction; `solver` is that of the [`Solver`] of `rows`
/// equations.
pub(crate) fn solve_scratch<'b, 'u, T: Element, S: Element>(
    layers: impl Iterator<Item = (LayerBatch<'b, T>, Direction<'u, T>)> + Clone,
    rows: usize,
    refinement: Refinement,
    solver: StackReq,
    par: Par,
) -> StackReq {
    let refined = refinement == Refinement::Once;
    let system = coefficients_scratch::<S>(rows, solver);
    let sums = layers.clone().map(|(layer, u)| match u {
        Direction::Matrix(_) => sum::scratch(&layer.0, None, par),
        Direction::LowRank { batch, .. } => sum::scratch(&batch.0, Some(&layer.0), par),
    });
    let work = sums.fold(system.or(dots_of_scratch(layers.clone(), par)), StackReq::or);
    let batch = layers.map(|(layer, _)| layer).filter(|_| refined);
    let alone = |layer: LayerBatch<'_, T>| sum::scratch(&layer.0, None, par).or(dots::scratch(&layer.0, par));
    let refinement = temporary_scratch::<T>(weights(batch.clone()));
    let work = batch.map(alone).fold(work, StackReq::or);
    StackReq::all_of(&[temporary_scratch::<T>(rows), refinement, work])
}
