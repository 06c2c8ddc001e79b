//! The systems `lambda I + G^T G` of a network, one or a list.

use super::blocks::{matrix, matrix_mut};
use super::preconditioner::Entry;
use crate::inverse::{
    DampedInverse, damped_cholesky, damped_cholesky_scratch, damped_inverses, damped_inverses_scratch,
};
use crate::woodbury::steps::{damped_gram, damped_gram_scratch, dots_of_scratch};
use crate::woodbury::system::{Solver, System, coefficients_scratch, solve_scratch};
use crate::woodbury::{Direction, LayerBatch, Refinement, SystemPrecision, gradient_dots};
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use core::ops::Range;

/// The systems of a mini-batch, as many equations in each as it has rows; memory grows to the largest.
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

    /// Equations of each system in use.
    fn rows(&self) -> usize {
        with_list!(&self.matrices, list => list.used.rows)
    }

    pub(super) fn used_damping(&self) -> T {
        self.damping[0]
    }

    pub(super) fn solution(&self, s: usize) -> &[T] {
        &self.solutions[s * self.rows()..(s + 1) * self.rows()]
    }

    /// Makes room for systems of `rows` equations to be prepared.
    pub(super) fn begin(&mut self, rows: usize) {
        with_list!(&mut self.matrices, list => {
            list.grams.resize(list.count, rows);
            list.prepared.resize(list.count, rows);
        });
    }

    /// Makes room for systems of `rows` equations in use.
    pub(super) fn resize(&mut self, rows: usize) {
        with_list!(&mut self.matrices, list => list.used.resize(list.count, rows));
        self.solutions.resize(self.count() * rows, T::zero());
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

    /// Scratch of [`factor`](Self::factor) of systems of `rows` equations.
    pub(super) fn factor_scratch(&self, rows: usize, par: Par) -> StackReq {
        with_list!(&self.matrices, list => list.factor_scratch(rows, par))
    }

    /// Puts to use what was factored.
    pub(super) fn commit(&mut self) {
        with_list!(&mut self.matrices, list => core::mem::swap(&mut list.used, &mut list.prepared));
        self.resize(self.rows());
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

    pub(super) fn solve_scratch<'b, 'u>(
        &self,
        layers: impl Iterator<Item = (LayerBatch<'b, T>, Direction<'u, T>)> + Clone,
        refinement: Refinement,
        par: Par,
    ) -> StackReq {
        with_list!(&self.matrices, list => list.solve_scratch(layers, refinement, par))
    }

    pub(super) fn entries(&self) -> Vec<Entry<'_, T>> {
        let used: &[T] = with_list!(&self.matrices, list => bytemuck::cast_slice(&list.used.values));
        let values: [&[T]; 2] = [used, &self.damping];
        self.shapes(self.rows()).into_iter().zip(values).map(|((name, shape), values)| (name, shape, values)).collect()
    }

    /// Names and shapes of the entries of systems of `rows` equations. Numbers of another precision than the state's are their bytes, several of its
    /// numbers for each.
    pub(super) fn shapes(&self, rows: usize) -> [(String, Vec<usize>); 2] {
        let columns = rows * self.number_size() / size_of::<T>();
        [("systems.used".into(), vec![self.count(), rows, columns]), ("systems.damping".into(), vec![1])]
    }

    /// Bytes of a number of the systems.
    fn number_size(&self) -> usize {
        match &self.matrices {
            Matrices::Working(_) => size_of::<T>(),
            Matrices::Double(_) => size_of::<f64>(),
        }
    }

    pub(super) fn entries_mut(&mut self) -> [&mut [T]; 2] {
        let used = with_list!(&mut self.matrices, list => bytemuck::cast_slice_mut(&mut list.used.values));
        [used, &mut self.damping]
    }
}

/// The matrices of `count` systems. One is kept as its Cholesky factor; of several, which are small beside the work of several threads, the
/// inverses are kept, made as one list.
struct List<S> {
    count: usize,
    /// `G^T G`, lower triangles.
    grams: Squares<S>,
    used: Squares<S>,
    prepared: Squares<S>,
}

/// Square matrices one after the other.
struct Squares<S> {
    rows: usize,
    values: Vec<S>,
}

impl<S: Element> Squares<S> {
    fn new(count: usize, rows: usize) -> Self {
        Squares { rows, values: vec![S::zero(); count * rows * rows] }
    }

    /// Room for matrices of `rows` rows. Of another size than before they are zeros: what a factor does not write is the same wherever it lies.
    fn resize(&mut self, count: usize, rows: usize) {
        if self.rows != rows {
            self.values.clear();
            self.values.resize(count * rows * rows, S::zero());
            self.rows = rows;
        }
    }

    fn range(&self, s: usize) -> Range<usize> {
        s * self.rows * self.rows..(s + 1) * self.rows * self.rows
    }

    fn at(&self, s: usize) -> MatRef<'_, S> {
        matrix(&self.values[self.range(s)], [self.rows; 2])
    }

    fn at_mut(&mut self, s: usize) -> MatMut<'_, S> {
        let (range, rows) = (self.range(s), self.rows);
        matrix_mut(&mut self.values[range], [rows; 2])
    }

    fn all_mut(&mut self) -> impl Iterator<Item = MatMut<'_, S>> {
        let rows = self.rows;
        self.values.chunks_exact_mut(rows * rows).map(move |values| matrix_mut(values, [rows; 2]))
    }
}

impl<S: Element> List<S> {
    fn new(count: usize, rows: usize) -> Self {
        let squares = || Squares::new(count, rows);
        List { count, grams: squares(), used: squares(), prepared: squares() }
    }

    fn form<T: Element>(
        &mut self,
        s: usize,
        batch: &[LayerBatch<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        damped_gram(self.grams.at_mut(s), batch, datapoints(batch), S::zero(), Triangle::Lower, par, stack);
        Ok(())
    }

    fn form_scratch<T: Element>(&self, batch: &[LayerBatch<'_, T>], par: Par) -> StackReq {
        damped_gram_scratch::<T, S>(batch, par)
    }

    fn factor(&mut self, damping: f64, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let List { count, grams, prepared, .. } = self;
        let (one, damping) = (S::one(), S::from_f64(damping));
        if *count == 1 {
            return damped_cholesky(prepared.at_mut(0), grams.at(0), one, damping, par, stack).map(|_| ());
        }
        let inverse = |(s, out)| DampedInverse::new(out, grams.at(s), one, damping, Triangle::Full);
        let (mut items, stack) = stack.collect(prepared.all_mut().enumerate().map(inverse));
        damped_inverses(&mut items, par, stack).map_err(|error| match error {
            Error::Items { failures } => match failures.into_iter().next() {
                Some((layer, error)) => error.in_layer(layer),
                None => Error::Items { failures: Vec::new() },
            },
            other => other,
        })
    }

    fn factor_scratch(&self, rows: usize, par: Par) -> StackReq {
        match self.count {
            1 => damped_cholesky_scratch::<S>(rows, par),
            count => {
                let sizes = || core::iter::repeat_n(rows, count);
                StackReq::new::<DampedInverse<'_, S>>(count).and(damped_inverses_scratch::<S, _>(sizes, par))
            }
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
        let used = self.used.at(s);
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

    fn solve_scratch<'b, 'u, T: Element>(
        &self,
        layers: impl Iterator<Item = (LayerBatch<'b, T>, Direction<'u, T>)> + Clone,
        refinement: Refinement,
        par: Par,
    ) -> StackReq {
        let rows = self.used.rows;
        let solver = match self.count {
            1 => Solver::<S>::factor_scratch(rows, par),
            _ => Solver::<S>::inverse_scratch(rows, par),
        };
        match refinement {
            Refinement::None => dots_of_scratch(layers, par).or(coefficients_scratch::<S>(rows, solver)),
            Refinement::Once => solve_scratch::<T, S>(layers, rows, refinement, solver, par),
        }
    }
}

/// `N` of a network's batch.
fn datapoints<T: Element>(batch: &[LayerBatch<'_, T>]) -> usize {
    batch.first().map_or(1, LayerBatch::datapoints)
}
