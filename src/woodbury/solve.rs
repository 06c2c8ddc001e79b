//! The whole solve, once or with a factor that is kept.

use super::batch::{Direction, LayerBatch, check_batch, check_directions, check_each};
use super::system::{Solver, System, factor, factor_scratch, solve_scratch};
use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq};

/// The precision of the `R x R` system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SystemPrecision {
    /// That of the data.
    #[default]
    Working,
    /// f64: rows are widened while they are packed, and their inner products summed, factored and solved with in f64.
    Double,
}

/// Whether the answer is refined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Refinement {
    /// No.
    #[default]
    None,
    /// `x <- x + (F + lambda I)^-1 (u - (F + lambda I) x)` once, with the same factor: where `|G|²` is much larger than the damping, most digits of
    /// `u - G w` cancel, and this brings them back. Twice the steps (1) and (3) again, and memory for one more `u`.
    Once,
}

/// How `(F + lambda I) x = u` is solved.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct WoodburyOptions<T> {
    /// `lambda`, positive and finite.
    pub damping: T,
    /// The precision of the `R x R` system.
    pub precision: SystemPrecision,
    /// Whether the answer is refined.
    pub refinement: Refinement,
}

impl<T: Element> WoodburyOptions<T> {
    /// With this damping, in the data's precision, not refined.
    pub fn new(damping: T) -> Self {
        WoodburyOptions { damping, precision: SystemPrecision::Working, refinement: Refinement::None }
    }

    fn check(&self) -> Result<(), Error> {
        let holds = self.damping > T::zero() && self.damping.is_finite() && self.damping.recip().is_finite();
        check_parameter("damping", self.damping.to_f64(), holds, "a positive finite number with a finite inverse")
    }
}

/// A factor in one of the precisions.
#[derive(Clone, Debug)]
enum Factor<T> {
    Working(Vec<T>),
    Double(Vec<f64>),
}

/// A factorised Fisher matrix: the Cholesky factor of `lambda I + G^T G` of one batch, kept for any number of vectors `u`. The batch itself
/// stays the caller's, and is handed to each solve.
#[derive(Clone, Debug)]
pub struct Woodbury<T> {
    factor: Factor<T>,
    rows: usize,
    datapoints: usize,
    options: WoodburyOptions<T>,
}

impl<T: Element> Woodbury<T> {
    /// Forms and factors `lambda I + G^T G`. `N² sum(i + o) / 2 + R³ / 6` multiply-adds for dense layers.
    ///
    /// # Errors
    /// As [`natural_gradient`].
    pub fn new(
        batch: &[LayerBatch<'_, T>],
        options: &WoodburyOptions<T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<Self, Error> {
        let mut woodbury = Woodbury { factor: Factor::Working(Vec::new()), rows: 0, datapoints: 0, options: *options };
        woodbury.refactor(batch, options, par, stack)?;
        Ok(woodbury)
    }

    /// [`Woodbury::new`] in the memory of this one, which allocates nothing where it is large enough. After an error it holds no system: every solve
    /// is then an error.
    ///
    /// # Errors
    /// As [`natural_gradient`].
    pub fn refactor(
        &mut self,
        batch: &[LayerBatch<'_, T>],
        options: &WoodburyOptions<T>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        options.check()?;
        let [rows, n] = check_batch(batch)?;
        check_scratch(stack, Self::scratch(batch, options, par))?;
        (self.rows, self.datapoints, self.options) = (0, n, *options);
        match (options.precision, &self.factor) {
            (SystemPrecision::Working, Factor::Double(_)) => self.factor = Factor::Working(Vec::new()),
            (SystemPrecision::Double, Factor::Working(_)) => self.factor = Factor::Double(Vec::new()),
            _ => {}
        }
        match &mut self.factor {
            Factor::Working(memory) => {
                memory.resize(rows * rows, T::zero());
                factor(MatMut::new(memory, [rows, rows])?, batch, n, options.damping, par, stack)?;
            }
            Factor::Double(memory) => {
                memory.resize(rows * rows, 0.0);
                factor(MatMut::new(memory, [rows, rows])?, batch, n, options.damping, par, stack)?;
            }
        }
        self.rows = rows;
        Ok(())
    }

    /// Scratch of [`Woodbury::new`] and [`Woodbury::refactor`].
    pub fn scratch(batch: &[LayerBatch<'_, T>], options: &WoodburyOptions<T>, par: Par) -> StackReq {
        match options.precision {
            SystemPrecision::Working => factor_scratch::<T, T>(batch, par),
            SystemPrecision::Double => factor_scratch::<T, f64>(batch, par),
        }
    }

    /// [`Woodbury::new`] with scratch of its own.
    ///
    /// # Errors
    /// As [`natural_gradient`].
    pub fn new_alloc(batch: &[LayerBatch<'_, T>], options: &WoodburyOptions<T>, par: Par) -> Result<Self, Error> {
        with_scratch(Self::scratch(batch, options, par), |stack| Self::new(batch, options, par, stack))
    }

    /// `out <- (F + lambda I)^-1 u` for the batch that was factored, `out` one matrix of the weights' shape for each layer.
    ///
    /// # Errors
    /// As [`natural_gradient`]; [`Error::Shape`] also for a batch of another number of rows or datapoints than was factored.
    pub fn solve(
        &self,
        out: &mut [MatMut<'_, T>],
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        let [rows, n] = check_all(out, batch, u)?;
        check_shape("rows and datapoints", &[self.rows, self.datapoints], &[rows, n])?;
        check_scratch(stack, self.solve_scratch(batch, u, par))?;
        match &self.factor {
            Factor::Working(l) => self.run(MatRef::new(l, [rows, rows])?, out, batch, u, par, stack),
            Factor::Double(l) => self.run(MatRef::new(l, [rows, rows])?, out, batch, u, par, stack),
        }
    }

    fn run<S: Element>(
        &self,
        factor: MatRef<'_, S>,
        out: &mut [MatMut<'_, T>],
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        solve(factor, out, batch, u, (self.datapoints, &self.options), par, stack)
    }

    /// Scratch of [`Woodbury::solve`].
    pub fn solve_scratch(&self, batch: &[LayerBatch<'_, T>], u: &[Direction<'_, T>], par: Par) -> StackReq {
        solve_req(batch, u, &self.options, par)
    }

    /// [`Woodbury::solve`] with scratch of its own.
    ///
    /// # Errors
    /// As [`Woodbury::solve`].
    pub fn solve_alloc(
        &self,
        out: &mut [MatMut<'_, T>],
        batch: &[LayerBatch<'_, T>],
        u: &[Direction<'_, T>],
        par: Par,
    ) -> Result<(), Error> {
        let req = self.solve_scratch(batch, u, par);
        with_scratch(req, |stack| self.solve(out, batch, u, par, stack))
    }

    /// `R`, the order of the system.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `N`.
    pub fn datapoints(&self) -> usize {
        self.datapoints
    }

    /// How it is solved.
    pub fn options(&self) -> &WoodburyOptions<T> {
        &self.options
    }
}

fn check_all<T: Element>(
    out: &[MatMut<'_, T>],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
) -> Result<[usize; 2], Error> {
    let sizes = check_batch(batch)?;
    check_directions(batch, u)?;
    check_each("out", batch, out.iter().map(|out| out.shape()))?;
    Ok(sizes)
}

fn solve<T: Element, S: Element>(
    factor: MatRef<'_, S>,
    out: &mut [MatMut<'_, T>],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    (n, options): (usize, &WoodburyOptions<T>),
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let system = System { batch, n, damping: options.damping, solver: Solver::Factor(factor) };
    system.solve(out, u, par, stack)?;
    match options.refinement {
        Refinement::None => Ok(()),
        Refinement::Once => system.refine(out, u, par, stack),
    }
}

fn solve_req<T: Element>(
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    options: &WoodburyOptions<T>,
    par: Par,
) -> StackReq {
    let (rows, refinement) = (batch.first().map_or(0, LayerBatch::rows), options.refinement);
    let layers = batch.iter().copied().zip(u.iter().copied());
    match options.precision {
        SystemPrecision::Working => {
            solve_scratch::<T, T>(layers, rows, refinement, Solver::<T>::factor_scratch(rows, par), par)
        }
        SystemPrecision::Double => {
            solve_scratch::<T, f64>(layers, rows, refinement, Solver::<f64>::factor_scratch(rows, par), par)
        }
    }
}

/// `out <- (F + lambda I)^-1 u`, the natural gradient of `u` with the Fisher matrix of `batch`, by the three steps and one system of order
/// `R`. Multiply-adds for dense layers: `N² sum(i + o) / 2 + R³ / 6`, and `2 N P` for a `u` of matrices, `(N + M) P + N M sum(i + o)` for a
/// low-rank one. Source: Benzing 2022, section 4.2 and equation 20.
///
/// # Errors
/// With `out` as it was: [`Error::Parameter`] for damping that is not positive, [`Error::Shape`] (in an [`Error::Layer`] where a layer's rows or
/// shapes disagree with the first's), [`Error::EmptyBatch`], [`Error::Scratch`], [`Error::NotFinite`] in an [`Error::Layer`] for inputs,
/// errors or gradients, [`Error::NotPositiveDefinite`] whose pivot is a row of errors, for a system that rounding has made
/// indefinite. `Error::NotFinite` of `G^T u` where finite numbers overflow.
pub fn natural_gradient<T: Element>(
    out: &mut [MatMut<'_, T>],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    options: &WoodburyOptions<T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    options.check()?;
    check_all(out, batch, u)?;
    check_scratch(stack, natural_gradient_scratch(batch, u, options, par))?;
    match options.precision {
        SystemPrecision::Working => once::<T, T>(out, batch, u, options, par, stack),
        SystemPrecision::Double => once::<T, f64>(out, batch, u, options, par, stack),
    }
}

fn once<T: Element, S: Element>(
    out: &mut [MatMut<'_, T>],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    options: &WoodburyOptions<T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let [rows, n] = check_batch(batch)?;
    let (mut l, stack) = temporary::<S>(stack, rows * rows);
    factor(MatMut::new(&mut l, [rows, rows])?, batch, n, options.damping, par, stack)?;
    solve(MatRef::new(&l, [rows, rows])?, out, batch, u, (n, options), par, stack)
}

/// Scratch of [`natural_gradient`].
pub fn natural_gradient_scratch<T: Element>(
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    options: &WoodburyOptions<T>,
    par: Par,
) -> StackReq {
    let rows = batch.first().map_or(0, LayerBatch::rows);
    let system = match options.precision {
        SystemPrecision::Working => temporary_scratch::<T>(rows * rows),
        SystemPrecision::Double => temporary_scratch::<f64>(rows * rows),
    };
    system.and(Woodbury::scratch(batch, options, par).or(solve_req(batch, u, options, par)))
}

/// [`natural_gradient`] with scratch of its own.
///
/// # Errors
/// As [`natural_gradient`].
pub fn natural_gradient_alloc<T: Element>(
    out: &mut [MatMut<'_, T>],
    batch: &[LayerBatch<'_, T>],
    u: &[Direction<'_, T>],
    options: &WoodburyOptions<T>,
    par: Par,
) -> Result<(), Error> {
    let req = natural_gradient_scratch(batch, u, options, par);
    with_scratch(req, |stack| natural_gradient(out, batch, u, options, par, stack))
}
