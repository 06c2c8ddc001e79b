//! The systems `lambda I + G^T G` of a network, one or a list.

use super::preconditioner::Entry;
use crate::inverse::{
    DampedInverse, damped_cholesky, damped_cholesky_scratch, damped_inverses, damped_inverses_scratch,
};
use crate::woodbury::steps::{damped_gram, damped_gram_scratch};
use crate::woodbury::system::{Solver, System, coefficients_scratch, solve_scratch};
use crate::woodbury::{Direction, LayerBatch, Refinement, SystemPrecision, gradient_dots, gradient_dots_scratch};
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};

/// Systems of `rows` equations each.
pub(super) struct Systems<T> {
    matrices: Matrices<T>,
    /// `lambda` of what is in use, and of what is prepared.
    damping: [T; 1],
    prepared_damping: T,
    /// `-(lambda I + G^T G)^-1 G^T u / sqrt(N)` of the gradient last gathered.
    solutions: Vec<T>,
}

/// Their matrices, in one of the precisions.
enum Matrices<T> {
    Working(List<T>),
    Double(List<f64>),
}

/// `$body` for the list of matrices, of whatever precision.
macro_rules! with_list {
    ($matrices:expr, $list:ident => $body:expr) => {
        match $matrices {
            Matrices::Working($list) => $body,
            Matrices::Double($list) => $body,
        }
    };
}

impl<T: Element> Systems<T> {
    pub(super) fn new(count: usize, rows: usize, precision: SystemPrecision, damping: T) -> Self {
        let matrices = match precision {
            SystemPrecision::Working => Matrices::Working(List::new(count, rows)),
            SystemPrecision::Double => Matrices::Double(List::new(count, rows)),
        };
        let solutions = vec![T::zero(); count * rows];
        Systems { matrices, damping: [damping], prepared_damping: damping, solutions }
    }

    pub(super) fn count(&self) -> usize {
        with_list!(&self.matrices, list => list.count)
    }

    fn rows(&self) -> usize {
        with_list!(&self.matrices, list => list.rows)
    }

    pub(super) fn used_damping(&self) -> T {
        self.damping[0]
    }

    pub(super) fn solution(&self, s: usize) -> &[T] {
        &self.solutions[s * self.rows()..(s + 1) * self.rows()]
    }

    /// Forms `G^T G` of system `s`.
    pub(super) fn form(
        &mut self,
        s: usize,
        batch: &[LayerBatch<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        with_list!(&mut self.matrices, list => list.form(s, batch, par, stack))
    }

    pub(super) fn form_scratch(&self, batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
        with_list!(&self.matrices, list => list.form_scratch(batch, par))
    }

    /// Factors or inverts what was formed.
    pub(super) fn factor(&mut self, damping: T, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        self.prepared_damping = damping;
        let damping = Element::to_f64(damping);
        with_list!(&mut self.matrices, list => list.factor(damping, par, stack))
    }

    pub(super) fn factor_scratch(&self, par: Par) -> StackReq {
        with_list!(&self.matrices, list => list.factor_scratch(par))
    }

    /// Puts to use what was factored.
    pub(super) fn commit(&mut self) {
        with_list!(&mut self.matrices, list => core::mem::swap(&mut list.used, &mut list.prepared));
        self.damping = [self.prepared_damping];
    }

    /// Solves system `s` for a gradient; where there is a `refined`, it becomes `(F + lambda I)^-1 u`, refined once.
    pub(super) fn solve(
        &mut self,
        s: usize,
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        refined: Option<&mut [MatMut<'_, T>]>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let (rows, damping) = (self.rows(), self.damping[0]);
        let w = &mut self.solutions[s * rows..(s + 1) * rows];
        with_list!(&self.matrices, list => list.solve((s, damping), (w, refined), batch, u, par, stack))
    }

    pub(super) fn solve_scratch(
        &self,
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        refinement: Refinement,
        par: Par,
    ) -> StackReq {
        with_list!(&self.matrices, list => list.solve_scratch(batch, u, refinement, par))
    }

    /// Numbers of another precision than the state's as their bytes, several of its numbers for each.
    pub(super) fn entries(&self) -> Vec<Entry<'_, T>> {
        let (count, rows) = (self.count(), self.rows());
        let used: &[T] = with_list!(&self.matrices, list => bytemuck::cast_slice(&list.used));
        let columns = used.len() / (count * rows).max(1);
        let systems = ("systems.used".into(), vec![count, rows, columns], used);
        vec![systems, ("systems.damping".into(), vec![1], &self.damping)]
    }

    pub(super) fn entries_mut(&mut self) -> [&mut [T]; 2] {
        let used = with_list!(&mut self.matrices, list => bytemuck::cast_slice_mut(&mut list.used));
        [used, &mut self.damping]
    }
}

/// The matrices of `count` systems. One is kept as its Cholesky factor; of several, which are small beside the work of several threads, the
/// inverses are kept, made as one list.
struct List<S> {
    count: usize,
    rows: usize,
    /// `G^T G`, lower triangles.
    grams: Vec<S>,
    used: Vec<S>,
    prepared: Vec<S>,
}

impl<S: Element> List<S> {
    fn new(count: usize, rows: usize) -> Self {
        let square = || vec![S::zero(); count * rows * rows];
        List { count, rows, grams: square(), used: square(), prepared: square() }
    }

    fn form<T: Element>(
        &mut self,
        s: usize,
        batch: &[LayerBatch<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let size = self.rows * self.rows;
        let gram = MatMut::new(&mut self.grams[s * size..(s + 1) * size], [self.rows; 2])?;
        damped_gram(gram, batch, datapoints(batch), S::zero(), Triangle::Lower, par, stack);
        Ok(())
    }

    fn form_scratch<T: Element>(&self, batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
        damped_gram_scratch::<T, S>(batch, par)
    }

    fn factor(&mut self, damping: f64, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let (rows, one, damping) = (self.rows, S::one(), S::from_f64(damping));
        if self.count == 1 {
            let gram = MatRef::new(&self.grams, [rows; 2])?;
            let out = MatMut::new(&mut self.prepared, [rows; 2])?;
            return damped_cholesky(out, gram, one, damping, par, stack).map(|_| ());
        }
        let grams = self.grams.chunks_exact(rows * rows).map(|gram| MatRef::new(gram, [rows; 2]));
        let mut items = Vec::with_capacity(self.count);
        for (out, gram) in self.prepared.chunks_exact_mut(rows * rows).zip(grams) {
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

    fn factor_scratch(&self, par: Par) -> StackReq {
        match self.count {
            1 => damped_cholesky_scratch::<S>(self.rows, par),
            count => damped_inverses_scratch::<S, _>(|| core::iter::repeat_n(self.rows, count), par),
        }
    }

    fn solve<T: Element>(
        &self,
        (s, damping): (usize, T),
        (w, refined): (&mut [T], Option<&mut [MatMut<'_, T>]>),
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let size = self.rows * self.rows;
        let used = MatRef::new(&self.used[s * size..(s + 1) * size], [self.rows; 2])?;
        let solver = if self.count == 1 { Solver::Factor(used) } else { Solver::Inverse(used) };
        let system = System { batch, n: datapoints(batch), damping, solver };
        gradient_dots(w, batch, u, par, stack)?;
        system.coefficients(w, par, stack)?;
        match refined {
            None => Ok(()),
            Some(out) => {
                system.combine(out, u, w, par, stack);
                system.refine(out, u, par, stack)
            }
        }
    }

    fn solve_scratch<T: Element>(
        &self,
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        refinement: Refinement,
        par: Par,
    ) -> StackReq {
        let solver = match self.count {
            1 => Solver::<S>::factor_scratch(self.rows, par),
            _ => Solver::<S>::inverse_scratch(self.rows, par),
        };
        match refinement {
            Refinement::None => gradient_dots_scratch(batch, u, par).or(coefficients_scratch::<S>(self.rows, solver)),
            Refinement::Once => solve_scratch::<T, S>(batch, u, refinement, solver, par),
        }
    }
}

/// `N` of a network's batch.
fn datapoints<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.first().map_or(1, LayerBatch::datapoints)
}
