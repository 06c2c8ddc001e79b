//! The systems `lambda I + G^T G` of a network, one or a list.

use super::preconditioner::Entry;
use crate::dense::temporary;
use crate::dense::temporary_scratch;
use crate::inverse::{
    DampedInverse, Side, damped_cholesky, damped_cholesky_scratch, damped_inverses, damped_inverses_scratch, solve,
    solve_scratch,
};
use crate::product::{product, product_scratch};
use crate::woodbury::{
    Direction, LayerBatch, gradient_dots, gradient_dots_scratch, gradient_gram, gradient_gram_scratch,
};
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};

/// Systems of `rows` equations each. One is kept as its Cholesky factor; of several, which are small beside the work of several threads, the
/// inverses are kept, made as one list.
pub(super) struct Systems<T> {
    count: usize,
    rows: usize,
    /// `G^T G`, lower triangles.
    grams: Vec<T>,
    used: Vec<T>,
    prepared: Vec<T>,
    /// `lambda` of what is in use, and of what is prepared.
    damping: [T; 1],
    prepared_damping: T,
    /// `-(lambda I + G^T G)^-1 G^T u / sqrt(N)` of the gradient last gathered.
    solutions: Vec<T>,
}

impl<T: Element> Systems<T> {
    pub(super) fn new(count: usize, rows: usize, damping: T) -> Self {
        let square = || vec![T::zero(); count * rows * rows];
        let solutions = vec![T::zero(); count * rows];
        let (grams, used, prepared) = (square(), square(), square());
        Systems { count, rows, grams, used, prepared, damping: [damping], prepared_damping: damping, solutions }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn used_damping(&self) -> T {
        self.damping[0]
    }

    pub(super) fn solution(&self, s: usize) -> &[T] {
        &self.solutions[s * self.rows..(s + 1) * self.rows]
    }

    /// Forms `G^T G` of system `s`.
    pub(super) fn form(
        &mut self,
        s: usize,
        batch: &[LayerBatch<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let size = self.rows * self.rows;
        let gram = MatMut::new(&mut self.grams[s * size..(s + 1) * size], [self.rows; 2])?;
        gradient_gram(gram, batch, Triangle::Lower, par, stack)
    }

    pub(super) fn form_scratch(&self, batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
        gradient_gram_scratch(batch, par)
    }

    /// Factors or inverts what was formed.
    pub(super) fn factor(&mut self, damping: T, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let (rows, one) = (self.rows, T::one());
        self.prepared_damping = damping;
        let views = || self.grams.chunks_exact(rows * rows).map(|gram| MatRef::new(gram, [rows; 2]));
        if self.count == 1 {
            let gram = MatRef::new(&self.grams, [rows; 2])?;
            let out = MatMut::new(&mut self.prepared, [rows; 2])?;
            return damped_cholesky(out, gram, one, damping, par, stack).map(|_| ());
        }
        let mut items = Vec::with_capacity(self.count);
        for (out, gram) in self.prepared.chunks_exact_mut(rows * rows).zip(views()) {
            items.push(DampedInverse::new(MatMut::new(out, [rows; 2])?, gram?, one, damping, Triangle::Full));
        }
        damped_inverses(&mut items, par, stack).map_err(|error| match error {
            Error::Items { failures } => match failures.into_iter().next() {
                Some((layer, error)) => error.in_layer(layer),
                None => Error::Items { failures: Vec::new() },
            },
            other => other,
        })
    }

    pub(super) fn factor_scratch(&self, par: Par) -> StackReq {
        match self.count {
            1 => damped_cholesky_scratch::<T>(self.rows, par),
            count => damped_inverses_scratch::<T, _>(|| core::iter::repeat_n(self.rows, count), par),
        }
    }

    /// Puts to use what was factored.
    pub(super) fn commit(&mut self) {
        core::mem::swap(&mut self.used, &mut self.prepared);
        self.damping = [self.prepared_damping];
    }

    /// Solves system `s` for a gradient.
    pub(super) fn solve(
        &mut self,
        s: usize,
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let (rows, size) = (self.rows, self.rows * self.rows);
        let w = &mut self.solutions[s * rows..(s + 1) * rows];
        let used = MatRef::new(&self.used[s * size..(s + 1) * size], [rows; 2])?;
        let n = batch.first().map_or(1, LayerBatch::datapoints);
        let scale = T::from_f64(-1.0 / (n as f64).sqrt());
        if self.count == 1 {
            gradient_dots(w, batch, u, par, stack)?;
            w.iter_mut().for_each(|w| *w *= scale);
            return solve(used, MatMut::new(w, [rows, 1])?, Side::Left, par, stack);
        }
        let (mut dots, stack) = temporary::<T>(stack, rows);
        gradient_dots(&mut dots, batch, u, par, stack)?;
        let dots = MatRef::new(&dots, [rows, 1])?;
        product(MatMut::new(w, [rows, 1])?, Blend::set(scale), used, dots, par, stack)
    }

    pub(super) fn solve_scratch(&self, batch: &[LayerBatch<'_, T>], u: &[Direction<'_, T>], par: Par) -> StackReq {
        let dots = gradient_dots_scratch(batch, u, par);
        match self.count {
            1 => dots.or(solve_scratch::<T>(self.rows, 1, par)),
            _ => temporary_scratch::<T>(self.rows).and(dots.or(product_scratch::<T>(self.rows, 1, self.rows, par))),
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry<'_, T>> {
        let systems = ("systems.used".into(), vec![self.count, self.rows, self.rows], &self.used[..]);
        vec![systems, ("systems.damping".into(), vec![1], &self.damping)]
    }

    pub(super) fn entries_mut(&mut self) -> [&mut [T]; 2] {
        [&mut self.used, &mut self.damping]
    }
}
