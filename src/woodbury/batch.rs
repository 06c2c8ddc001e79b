//! What layers saw, and gradients.

use crate::convolution::{Side, check_fits, images};
use crate::dense::check_finite;
use crate::error::check_shape;
use crate::layer::Layer;
use crate::{Element, Error, MatRef, View};
use foof_kernels::woodbury as kernel;
use foof_kernels::woodbury::Tensor;

/// Inputs and errors of one layer for a mini-batch: `N` datapoints of inputs, `R = N C` rows of errors, `C` for each datapoint, one after the
/// other.
#[derive(Clone, Copy, Debug)]
pub struct LayerBatch<'a, T>(pub(crate) kernel::Layer<'a, T>);

impl<'a, T: Element> LayerBatch<'a, T> {
    /// `inputs` `x_nt` and `errors` `e_rt = dL_r/ds_rt` of `layer`: rows `[N, i]` and `[R, o]`, with `T` positions `[N T, i]` or `[N, T, i]`, of a
    /// convolution images `[N, C, sizes..]` and `[R, o, outputs..]`; any strides. A bias is not stored.
    ///
    /// # Errors
    /// [`Error::Shape`] where shapes are not the layer's, or `R` is no multiple of `N`; [`Error::EmptyBatch`]; [`Error::Geometry`] where a
    /// convolution's sizes overflow.
    pub fn new<const Q: usize>(layer: &Layer, inputs: View<'a, T, Q>, errors: View<'a, T, Q>) -> Result<Self, Error> {
        if let Some(conv) = layer.convolution() {
            let x = images("inputs", conv, Side::Inputs, inputs)?;
            let e = images("errors", conv, Side::Outputs, errors)?;
            let [n, r] = [x.shape()[0], e.shape()[0]];
            counts([n, r], &inputs.shape(), &errors.shape())?;
            check_fits(conv, r)?;
            return Ok(LayerBatch(kernel::Layer::conv(x, e, *conv)));
        }
        let rows = |argument, x: View<'a, T, Q>, d: usize| {
            let t = layer.positions();
            match x.as_positions(t) {
                Some(x) if x.shape()[2] == d => Ok(x),
                _ => {
                    let got = x.shape().to_vec();
                    let n = got.first().copied().unwrap_or(0);
                    let expected = if Q == 3 { vec![n, t, d] } else { vec![n.next_multiple_of(t), d] };
                    Err(Error::Shape { argument, expected, got })
                }
            }
        };
        let (x, e) = (rows("inputs", inputs, layer.inputs())?, rows("errors", errors, layer.outputs())?);
        counts([x.shape()[0], e.shape()[0]], &inputs.shape(), &errors.shape())?;
        Ok(LayerBatch(kernel::Layer::shared(x, e, layer.bias())))
    }

    /// `N`.
    pub fn datapoints(&self) -> usize {
        self.0.datapoints()
    }

    /// `R`, rows of errors.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// The shape of the weights: `[o, i]`, with bias `[o, i + 1]`.
    pub fn weight_shape(&self) -> [usize; 2] {
        self.0.weight_shape()
    }

    /// The first input or error that is not finite.
    fn check_finite(&self) -> Result<(), Error> {
        let [x, e] = self.0.tensors();
        for (argument, tensor) in [("inputs", x), ("errors", e)] {
            match tensor {
                Tensor::Rows(view) => check_finite(argument, view)?,
                Tensor::Images(view) => check_finite(argument, view)?,
            }
        }
        Ok(())
    }
}

/// Whether the errors are whole datapoints, and there are any.
fn counts([n, r]: [usize; 2], inputs: &[usize], errors: &[usize]) -> Result<(), Error> {
    for (argument, count, shape) in [("inputs", n, inputs), ("errors", r, errors)] {
        if count == 0 || shape.contains(&0) {
            return Err(Error::EmptyBatch { argument, shape: shape.to_vec() });
        }
    }
    if !r.is_multiple_of(n) {
        let mut expected = errors.to_vec();
        expected[0] = expected[0] / r * r.next_multiple_of(n);
        return Err(Error::Shape { argument: "errors", expected, got: errors.to_vec() });
    }
    Ok(())
}

/// One layer's part of a vector `u` in the space of all weights.
// Views are copied, and a box would allocate.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
pub enum Direction<'a, T> {
    /// `U_l`, of the weights' shape.
    Matrix(MatRef<'a, T>),
    /// `U_l = scale sum_mt e'_mt x'_mt^T`, which need not be formed.
    LowRank {
        /// The rows `x'` and `e'` of a mini-batch of the same layer.
        batch: LayerBatch<'a, T>,
        /// `1/M` for the mean over M datapoints.
        scale: T,
    },
}

impl<T: Element> Direction<'_, T> {
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Direction::Matrix(u) => u.shape(),
            Direction::LowRank { batch, .. } => batch.weight_shape(),
        }
    }

    fn check_finite(&self) -> Result<(), Error> {
        match self {
            Direction::Matrix(u) => check_finite("u", *u),
            Direction::LowRank { batch, .. } => batch.check_finite(),
        }
    }
}

/// `R` and `N` of a network's batch, the same in all layers.
pub(crate) fn check_batch<T: Element>(batch: &[LayerBatch<'_, T>]) -> Result<[usize; 2], Error> {
    let Some(first) = batch.first() else {
        return Err(Error::EmptyBatch { argument: "batch", shape: vec![0] });
    };
    let sizes = [first.rows(), first.datapoints()];
    for (l, layer) in batch.iter().enumerate() {
        check_shape("rows and datapoints", &sizes, &[layer.rows(), layer.datapoints()]).map_err(|e| e.in_layer(l))?;
    }
    Ok(sizes)
}

/// Whether there is one of `items` for each layer, of its shape.
pub(crate) fn check_each<T: Element>(
    argument: &'static str,
    batch: &[LayerBatch<'_, T>],
    shapes: impl ExactSizeIterator<Item = [usize; 2]>,
) -> Result<(), Error> {
    if shapes.len() != batch.len() {
        return Err(Error::Shape { argument, expected: vec![batch.len()], got: vec![shapes.len()] });
    }
    for (l, (layer, shape)) in batch.iter().zip(shapes).enumerate() {
        check_shape(argument, &layer.weight_shape(), &shape).map_err(|e| e.in_layer(l))?;
    }
    Ok(())
}

/// As [`check_each`], of directions.
pub(super) fn check_directions<T: Element>(batch: &[LayerBatch<'_, T>], u: &[Direction<'_, T>]) -> Result<(), Error> {
    check_each("u", batch, u.iter().map(Direction::shape))
}

/// Names the layer and the place of what is not finite.
pub(super) fn check_all_finite<T: Element>(batch: &[LayerBatch<'_, T>], u: &[Direction<'_, T>]) -> Result<(), Error> {
    let layers = batch.iter().map(LayerBatch::check_finite).enumerate();
    let directions = u.iter().map(Direction::check_finite).enumerate();
    layers.chain(directions).try_for_each(|(l, result)| result.map_err(|e| e.in_layer(l)))
}
