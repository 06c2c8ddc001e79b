//! What a layer shows of a mini-batch.

use crate::covariance::{FactorOptions, error_factor, input_factor};
use crate::dense::check_finite;
use crate::error::check_shape;
use crate::kronecker::{rows_times, rows_times_scratch};
use crate::{AnyView, Bias, Element, Error, Input, MatMut, MatRef, MemStack, Par, StackReq, View};

/// Activations or errors of a layer with `d` values at each of `T` positions, of the optimiser's type or of one that widens to it exactly
/// (`bf16` and `f16` to `f32`), each layer its own; made by `into` from a view.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Activations<'a, T: Element> {
    /// `[N T, d]`: a row for each datapoint and position, the positions of a datapoint next to each other.
    Rows(AnyView<'a, T, 2>),
    /// `[N, T, d]`, of any strides: channels first too.
    Positions(AnyView<'a, T, 3>),
}

impl<'a, I: Input> From<MatRef<'a, I>> for Activations<'a, I::Acc> {
    fn from(rows: MatRef<'a, I>) -> Self {
        Activations::Rows(rows.into())
    }
}

impl<'a, I: Input> From<View<'a, I, 3>> for Activations<'a, I::Acc> {
    fn from(positions: View<'a, I, 3>) -> Self {
        Activations::Positions(positions.into())
    }
}

/// What a layer shows of a mini-batch.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a, T: Element> {
    /// Inputs, `N` datapoints of `T` positions of `i` values, without the constant 1 of a bias.
    pub inputs: Activations<'a, T>,
    /// Errors of each datapoint's own loss (not divided by N), `o` values at each of `T` positions; for a full Fisher information `N C`
    /// times `T`, the `C` labels of a datapoint next to each other, scaled by `sqrt(p_c)`. FOOF needs none.
    pub errors: Option<Activations<'a, T>>,
}

impl<'a, T: Element> Observation<'a, T> {
    /// Of inputs alone: a matrix `[N T, i]` or a view `[N, T, i]`.
    pub fn new(inputs: impl Into<Activations<'a, T>>) -> Self {
        Observation { inputs: inputs.into(), errors: None }
    }

    /// With errors: a matrix `[N T, o]` or a view `[N, T, o]`.
    pub fn with_errors(self, errors: impl Into<Activations<'a, T>>) -> Self {
        Observation { errors: Some(errors.into()), ..self }
    }
}

impl<'a, T: Element> Activations<'a, T> {
    /// As `[N, T, d]`, if they are whole datapoints, at least one, of a layer with `t` positions and width `d`.
    pub(super) fn datapoints(self, argument: &'static str, t: usize, d: usize) -> Result<AnyView<'a, T, 3>, Error> {
        let view = match self {
            Activations::Rows(rows) => {
                let shape = rows.shape();
                check_shape(argument, &[shape[0] / t * t, d], &shape)?;
                rows.positions(t)
            }
            Activations::Positions(view) => {
                let shape = view.shape();
                check_shape(argument, &[shape[0], t, d], &shape)?;
                view
            }
        };
        match view.shape()[0] {
            0 => Err(Error::EmptyBatch { argument, shape: self.shape_of(0, view.shape()) }),
            _ => Ok(view),
        }
    }

    /// Whether they are `n` datapoints: `view` is what [`datapoints`](Activations::datapoints) made of them.
    pub(super) fn check_count(self, argument: &'static str, n: usize, view: &AnyView<'_, T, 3>) -> Result<(), Error> {
        let shape = view.shape();
        match shape[0] == n {
            true => Ok(()),
            false => {
                Err(Error::Shape { argument, expected: self.shape_of(n, shape), got: self.shape_of(shape[0], shape) })
            }
        }
    }

    /// Whether they are free of NaN and infinity.
    pub(super) fn check_finite(self, argument: &'static str, view: &AnyView<'_, T, 3>) -> Result<(), Error> {
        let at = |index: Vec<usize>| match self {
            Activations::Rows(_) => vec![index[0] * view.shape()[1] + index[1], index[2]],
            Activations::Positions(_) => index,
        };
        batch(view).check_finite(argument).map_err(|error| match error {
            Error::NotFinite { argument, index } => Error::NotFinite { argument, index: at(index) },
            other => other,
        })
    }

    /// The shape of `n` datapoints as the caller counts.
    fn shape_of(self, n: usize, [_, t, d]: [usize; 3]) -> Vec<usize> {
        match self {
            Activations::Rows(_) => vec![n * t, d],
            Activations::Positions(_) => vec![n, t, d],
        }
    }
}

/// A view of any type as what optimisers do with it.
pub(super) fn batch<'v, T: Element>(view: &'v AnyView<'_, T, 3>) -> &'v dyn Batch<T> {
    match view {
        AnyView::Full(view) => view,
        AnyView::Bf16(view) => view,
        AnyView::F16(view) => view,
    }
}

/// What optimisers do with activations and errors `[N, T, d]`.
pub(super) trait Batch<T: Element> {
    fn check_finite(&self, argument: &'static str) -> Result<(), Error>;

    /// As [`input_factor`].
    fn input_factor(
        &self,
        out: MatMut<'_, T>,
        options: &FactorOptions,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error>;

    /// As [`error_factor`].
    fn error_factor(
        &self,
        out: MatMut<'_, T>,
        options: &FactorOptions,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error>;

    /// `out <- [X 1] Q`, or `X Q`, for `out` `[N T, d]`.
    fn times(&self, out: MatMut<'_, T>, bias: Bias, q: MatRef<'_, T>, par: Par, stack: &mut MemStack);
}

impl<I: Input> Batch<I::Acc> for View<'_, I, 3> {
    fn check_finite(&self, argument: &'static str) -> Result<(), Error> {
        check_finite(argument, *self)
    }

    fn input_factor(
        &self,
        out: MatMut<'_, I::Acc>,
        options: &FactorOptions,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        input_factor(out, *self, options, par, stack)
    }

    fn error_factor(
        &self,
        out: MatMut<'_, I::Acc>,
        options: &FactorOptions,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        error_factor(out, *self, options, par, stack)
    }

    fn times(&self, mut out: MatMut<'_, I::Acc>, bias: Bias, q: MatRef<'_, I::Acc>, par: Par, stack: &mut MemStack) {
        if let Some(rows) = self.rows() {
            return rows_times(out, rows, bias, q, par, stack);
        }
        let [n, t, _] = self.shape();
        for datapoint in 0..n {
            let out = out.rb_mut().row_range(datapoint * t..(datapoint + 1) * t);
            rows_times(out, self.datapoint(datapoint), bias, q, par, stack);
        }
    }
}

/// Scratch of [`Batch::times`] for a view of `shape`.
pub(super) fn times_scratch<T: Element>([n, t, d]: [usize; 3], bias: Bias, par: Par) -> StackReq {
    rows_times_scratch::<T>(n * t, d, bias, par).or(rows_times_scratch::<T>(t, d, bias, par))
}
