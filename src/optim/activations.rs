//! What a layer shows of a mini-batch.

use crate::convolution::{
    FactorPlan, Side, check_fits, check_images, conv_error_factor, conv_error_factor_scratch, conv_input_factor,
    conv_input_factor_scratch,
};
use crate::covariance::{FactorOptions, error_factor, factor_scratch, input_factor};
use crate::dense::check_finite;
use crate::error::check_shape;
use crate::layer::Layer;
use crate::{AnyView, Element, Error, Input, MatMut, MatRef, MemStack, Par, StackReq, View, ViewMut};

/// Activations or errors of a layer with `d` values at each of `T` positions, of the optimiser's type or of one that widens to it exactly
/// (`bf16` and `f16` to `f32`), each layer its own; made by `into` from a view. Those of a convolution are images, with as many axes as its
/// geometry has.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Activations<'a, T: Element> {
    /// `[N T, d]`: a row for each datapoint and position, the positions of a datapoint next to each other.
    Rows(AnyView<'a, T, 2>),
    /// `[N, T, d]`, of any strides: channels first too. For a convolution images of one axis, `[N, C, L]`.
    Positions(AnyView<'a, T, 3>),
    /// Images `[N, C, H, W]`, of any strides: channels last too, by [`View::channels_last`].
    Images(AnyView<'a, T, 4>),
    /// Images of three axes `[N, C, D, H, W]`, likewise.
    Volumes(AnyView<'a, T, 5>),
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

impl<'a, I: Input> From<View<'a, I, 4>> for Activations<'a, I::Acc> {
    fn from(images: View<'a, I, 4>) -> Self {
        Activations::Images(images.into())
    }
}

impl<'a, I: Input> From<View<'a, I, 5>> for Activations<'a, I::Acc> {
    fn from(volumes: View<'a, I, 5>) -> Self {
        Activations::Volumes(volumes.into())
    }
}

/// What a layer shows of a mini-batch.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a, T: Element> {
    /// Inputs, `N` datapoints of `T` positions of `i` values, without the constant 1 of a bias; for a convolution `N` images.
    pub inputs: Activations<'a, T>,
    /// Errors of each datapoint's own loss (not divided by N), `o` values at each of `T` positions, for a convolution images of `o` channels;
    /// for a full Fisher information `N C` times `T`, the `C` labels of a datapoint next to each other, scaled by `sqrt(p_c)`. FOOF needs none.
    pub errors: Option<Activations<'a, T>>,
}

impl<'a, T: Element> Observation<'a, T> {
    /// Of inputs alone: a matrix `[N T, i]`, a view `[N, T, i]`, or images `[N, C, sizes..]` of a convolution.
    pub fn new(inputs: impl Into<Activations<'a, T>>) -> Self {
        Observation { inputs: inputs.into(), errors: None }
    }

    /// With errors: a matrix `[N T, o]`, a view `[N, T, o]`, or images `[N, o, outputs..]` of a convolution.
    pub fn with_errors(self, errors: impl Into<Activations<'a, T>>) -> Self {
        Observation { errors: Some(errors.into()), ..self }
    }
}

/// `$body` for the view inside an [`AnyView`], of whatever type.
macro_rules! with_view {
    ($any:expr, $view:ident => $body:expr) => {
        match $any {
            $crate::AnyView::Full($view) => $body,
            $crate::AnyView::Bf16($view) => $body,
            $crate::AnyView::F16($view) => $body,
        }
    };
}
pub(super) use with_view;

/// Whole datapoints of one layer, as its kernels take them.
#[derive(Clone, Copy)]
pub(super) enum Datapoints<'a, 'p, T: Element> {
    /// `[N, T, d]`
    Rows(AnyView<'a, T, 3>),
    /// `[N, C, Z, Y, X]`, and the plan of the layer, whose geometry has three axes.
    Images(AnyView<'a, T, 5>, &'p FactorPlan),
}

impl<'a, T: Element> Activations<'a, T> {
    /// As the layer's kernels take them, if they are whole datapoints, at least one. A convolution has a plan.
    pub(super) fn datapoints<'p>(
        self,
        argument: &'static str,
        side: Side,
        layer: &Layer,
        plan: Option<&'p FactorPlan>,
    ) -> Result<Datapoints<'a, 'p, T>, Error> {
        let datapoints = match (layer.convolution(), plan) {
            (Some(conv), Some(plan)) => {
                let (shape, rank) = self.shape();
                check_images(argument, conv, side, shape[0], &shape[..rank])?;
                check_fits(conv, shape[0])?;
                let views = match self {
                    Activations::Rows(_) => None,
                    Activations::Positions(images) => images.as_images(),
                    Activations::Images(images) => images.as_images(),
                    Activations::Volumes(images) => Some(images),
                };
                let other = || Error::Shape { argument, expected: vec![0; 5], got: shape[..rank].to_vec() };
                Datapoints::Images(views.ok_or_else(other)?, plan)
            }
            _ => {
                let d = if side == Side::Inputs { layer.inputs() } else { layer.outputs() };
                Datapoints::Rows(self.positions(argument, layer.positions(), d)?)
            }
        };
        match datapoints.count() {
            0 => Err(Error::EmptyBatch { argument, shape: self.shape_of(0) }),
            _ => Ok(datapoints),
        }
    }

    /// As `[N, T, d]`, if they are whole datapoints of `t` positions and width `d`.
    fn positions(self, argument: &'static str, t: usize, d: usize) -> Result<AnyView<'a, T, 3>, Error> {
        let (shape, rank) = self.shape();
        match self {
            Activations::Rows(rows) => {
                check_shape(argument, &[shape[0] / t * t, d], &shape[..rank])?;
                Ok(rows.positions(t))
            }
            Activations::Positions(view) => {
                check_shape(argument, &[shape[0], t, d], &shape[..rank])?;
                Ok(view)
            }
            Activations::Images(_) | Activations::Volumes(_) => {
                Err(Error::Shape { argument, expected: vec![shape[0], t, d], got: shape[..rank].to_vec() })
            }
        }
    }

    /// Whether they are `n` datapoints: `datapoints` is what [`datapoints`](Activations::datapoints) made of them.
    pub(super) fn check_count(
        self,
        argument: &'static str,
        n: usize,
        datapoints: &Datapoints<'_, '_, T>,
    ) -> Result<(), Error> {
        let count = datapoints.count();
        match count == n {
            true => Ok(()),
            // Rows come in as many as a datapoint has positions.
            false => {
                let each = self.shape().0[0] / count;
                Err(Error::Shape { argument, expected: self.shape_of(n * each), got: self.shape_of(count * each) })
            }
        }
    }

    /// Whether they are free of NaN and infinity.
    pub(super) fn check_finite(self, argument: &'static str) -> Result<(), Error> {
        match self {
            Activations::Rows(view) => with_view!(view, view => check_finite(argument, view)),
            Activations::Positions(view) => with_view!(view, view => check_finite(argument, view)),
            Activations::Images(view) => with_view!(view, view => check_finite(argument, view)),
            Activations::Volumes(view) => with_view!(view, view => check_finite(argument, view)),
        }
    }

    /// The shape, and how many axes it has.
    fn shape(&self) -> ([usize; 5], usize) {
        fn padded<const R: usize>(shape: [usize; R]) -> ([usize; 5], usize) {
            let mut all = [0; 5];
            all[..R].copy_from_slice(&shape);
            (all, R)
        }
        match self {
            Activations::Rows(view) => padded(view.shape()),
            Activations::Positions(view) => padded(view.shape()),
            Activations::Images(view) => padded(view.shape()),
            Activations::Volumes(view) => padded(view.shape()),
        }
    }

    /// The shape with another first axis.
    fn shape_of(&self, first: usize) -> Vec<usize> {
        let (mut shape, rank) = self.shape();
        shape[0] = first;
        shape[..rank].to_vec()
    }
}

impl<T: Element> Datapoints<'_, '_, T> {
    /// `N`, or rows of errors.
    pub(super) fn count(&self) -> usize {
        match self {
            Datapoints::Rows(view) => view.shape()[0],
            Datapoints::Images(view, _) => view.shape()[0],
        }
    }

    /// The running input factors `[G, n, n]` of the layer with those of the batch: as [`input_factor`] or [`conv_input_factor`].
    pub(super) fn input_factor(
        self,
        out: &mut [T],
        shape: [usize; 3],
        options: &FactorOptions,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        match self {
            Datapoints::Rows(view) => {
                let out = MatMut::new(out, [shape[1], shape[2]])?;
                with_view!(view, view => input_factor(out, view, options, par, stack))
            }
            Datapoints::Images(view, plan) => {
                let out = ViewMut::new(out, shape)?;
                with_view!(view, view => conv_input_factor(out, view, plan, options, par, stack))
            }
        }
    }

    /// As [`Datapoints::input_factor`], of errors.
    pub(super) fn error_factor(
        self,
        out: &mut [T],
        shape: [usize; 3],
        options: &FactorOptions,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<(), Error> {
        match self {
            Datapoints::Rows(view) => {
                let out = MatMut::new(out, [shape[1], shape[2]])?;
                with_view!(view, view => error_factor(out, view, options, par, stack))
            }
            Datapoints::Images(view, plan) => {
                let out = ViewMut::new(out, shape)?;
                with_view!(view, view => conv_error_factor(out, view, plan.conv(), options, par, stack))
            }
        }
    }

    /// Scratch of the factor of one side.
    pub(super) fn factor_scratch(self, side: Side, options: &FactorOptions, par: Par) -> StackReq {
        match self {
            Datapoints::Rows(view) => factor_scratch::<T>(view.shape(), options, par),
            Datapoints::Images(view, plan) => match side {
                Side::Inputs => conv_input_factor_scratch::<T>(view.shape()[0], plan, options, par),
                Side::Outputs => conv_error_factor_scratch::<T>(view.shape()[0], plan.conv(), options, par),
            },
        }
    }
}
