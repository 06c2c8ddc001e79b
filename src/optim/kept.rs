//! A mini-batch that is kept: what a curvature made of single gradients is made of.

use super::activations::{Activations, Datapoints, Observation, with_view};
use crate::convolution::{FactorPlan, Side};
use crate::error::check_shape;
use crate::layer::Layer;
use crate::woodbury::LayerBatch;
use crate::{Element, Error, Input, Par, View};

/// The layers of a network as batches see them, and how many labels each datapoint of a batch has.
pub(crate) struct Frame {
    given: Vec<Layer>,
    /// The same, convolutions with three axes.
    layers: Vec<Layer>,
    /// Of the convolutions.
    plans: Vec<Option<FactorPlan>>,
    /// `C`.
    labels: usize,
}

impl Frame {
    pub(crate) fn new<T: Element>(layers: &[Layer], labels: usize, par: Par) -> Self {
        let volumes = |layer: &Layer| layer.convolution().map_or(*layer, |conv| Layer::conv(conv.volumes()));
        let (given, layers): (_, Vec<Layer>) = (layers.to_vec(), layers.iter().map(volumes).collect());
        let plan = |layer: &Layer| layer.convolution().map(|conv| FactorPlan::new::<T>(conv, par));
        let plans = layers.iter().map(plan).collect();
        Frame { given, layers, plans, labels }
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// One side of a layer, if it is finite and of `n` datapoints.
    fn datapoints<'a, T: Element>(
        &self,
        (l, n): (usize, usize),
        side: Side,
        seen: Activations<'a, T>,
    ) -> Result<Datapoints<'a, '_, T>, Error> {
        let argument = if side == Side::Inputs { "inputs" } else { "errors" };
        let count = if side == Side::Inputs { n } else { self.rows(n) };
        let datapoints = seen.datapoints(argument, side, &self.given[l], self.plans[l].as_ref())?;
        seen.check_count(argument, count, &datapoints)?;
        seen.check_finite(argument)?;
        Ok(datapoints)
    }

    /// `R = N C`.
    pub(crate) fn rows(&self, n: usize) -> usize {
        n.saturating_mul(self.labels)
    }

    /// Whether these are finite inputs and errors of a batch of `n` datapoints.
    pub(crate) fn check<T: Element>(&self, observations: &[Observation<'_, T>], n: usize) -> Result<(), Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        for (l, seen) in observations.iter().enumerate() {
            self.check_layer((l, n), seen).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    /// How many datapoints a batch has, by the inputs of its first layer: at least one.
    pub(crate) fn count<T: Element>(&self, observations: &[Observation<'_, T>]) -> Result<usize, Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        let Some(seen) = observations.first() else { return Ok(1) };
        let inputs = seen.inputs.datapoints("inputs", Side::Inputs, &self.given[0], self.plans[0].as_ref());
        inputs.map(|inputs| inputs.count()).map_err(|error| error.in_layer(0))
    }

    fn check_layer<T: Element>(&self, (l, n): (usize, usize), seen: &Observation<'_, T>) -> Result<(), Error> {
        self.datapoints((l, n), Side::Inputs, seen.inputs)?;
        let needed_for = "gradients of single datapoints need the errors of sampled or given labels";
        let errors = seen.errors.ok_or(Error::Missing { what: "errors", needed_for })?;
        self.datapoints((l, n), Side::Outputs, errors).map(|_| ())
    }

    /// Shapes of a layer's inputs and errors for `n` datapoints.
    fn shapes(&self, l: usize, n: usize) -> [Vec<usize>; 2] {
        let (layer, r) = (&self.layers[l], self.rows(n));
        match layer.convolution() {
            Some(conv) => [conv.input_shape(n).to_vec(), conv.output_shape(r).to_vec()],
            None => {
                let t = layer.positions();
                [vec![n, t, layer.inputs()], vec![r, t, layer.outputs()]]
            }
        }
    }

    /// Lengths of a layer's inputs and errors for each datapoint.
    fn lengths(&self, l: usize) -> [usize; 2] {
        let layer = &self.layers[l];
        let each = match layer.convolution() {
            Some(conv) => [conv.input_shape(1).iter().product(), conv.output_shape(1).iter().product()],
            None => [layer.inputs(), layer.outputs()].map(|d| d * layer.positions()),
        };
        [each[0], each[1].saturating_mul(self.labels)]
    }

    /// Whether `count` systems of `n` datapoints, and what is kept of them, can have addresses.
    pub(crate) fn fits(&self, count: usize, n: usize) -> bool {
        let (most, rows) = (isize::MAX as usize / 64, self.rows(n));
        let fits = |sizes: [usize; 3]| sizes.into_iter().try_fold(1, usize::checked_mul).is_some_and(|all| all <= most);
        let tensors = (0..self.layers.len()).flat_map(|l| self.lengths(l));
        fits([count.max(1), rows, rows]) && tensors.into_iter().all(|each| fits([n, each, 1]))
    }

    /// Names and shapes of the tensors of a batch of `n` datapoints, in their order.
    pub(crate) fn tensors(&self, n: usize, name: &str) -> Vec<(String, Vec<usize>)> {
        let sides = |l| ["input", "error"].into_iter().zip(self.shapes(l, n));
        let layer = |l| sides(l).map(move |(side, shape)| (format!("layer.{l}.{side}.{name}"), shape));
        (0..self.layers.len()).flat_map(layer).collect()
    }
}

/// Copies of a batch's inputs and errors, each contiguous. Their memory grows to the largest batch kept.
pub(crate) struct Kept<T> {
    datapoints: usize,
    /// Inputs and errors of each layer.
    pub(crate) tensors: Vec<[Vec<T>; 2]>,
}

impl<T: Element> Kept<T> {
    /// Zeros in the place of `n` datapoints.
    pub(crate) fn new(frame: &Frame, n: usize) -> Self {
        let tensors = frame.layers.iter().map(|_| [Vec::new(), Vec::new()]).collect();
        let mut kept = Kept { datapoints: n, tensors };
        kept.resize(frame, n);
        kept
    }

    /// Makes room for `n` datapoints, whatever is in it.
    pub(crate) fn resize(&mut self, frame: &Frame, n: usize) {
        self.datapoints = n;
        for (l, tensors) in self.tensors.iter_mut().enumerate() {
            for (tensor, each) in tensors.iter_mut().zip(frame.lengths(l)) {
                tensor.resize(each * n, T::zero());
            }
        }
    }

    /// `N`.
    pub(crate) fn datapoints(&self) -> usize {
        self.datapoints
    }

    /// Copies a batch of `n` datapoints that was checked.
    pub(crate) fn copy(&mut self, frame: &Frame, observations: &[Observation<'_, T>], n: usize) -> Result<(), Error> {
        self.resize(frame, n);
        for (l, (seen, [x, e])) in observations.iter().zip(&mut self.tensors).enumerate() {
            copy(x, frame.datapoints((l, n), Side::Inputs, seen.inputs)?);
            if let Some(errors) = seen.errors {
                copy(e, frame.datapoints((l, n), Side::Outputs, errors)?);
            }
        }
        Ok(())
    }

    /// Layer `l`.
    pub(crate) fn layer(&self, frame: &Frame, l: usize) -> Result<LayerBatch<'_, T>, Error> {
        let (layer, [x, e]) = (&frame.layers[l], &self.tensors[l]);
        let [n, r] = [self.datapoints, frame.rows(self.datapoints)];
        match layer.convolution() {
            Some(conv) => {
                LayerBatch::new(layer, View::new(x, conv.input_shape(n))?, View::new(e, conv.output_shape(r))?)
            }
            None => {
                let t = layer.positions();
                let x = View::new(x, [n, t, layer.inputs()])?;
                LayerBatch::new(layer, x, View::new(e, [r, t, layer.outputs()])?)
            }
        }
    }

    /// The tensors, in their order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[T]> {
        self.tensors.iter().flatten().map(|values| &values[..])
    }
}

fn copy<T: Element>(out: &mut [T], seen: Datapoints<'_, '_, T>) {
    match seen {
        Datapoints::Rows(view) => with_view!(view, view => widen(out, view)),
        Datapoints::Images(view, _) => with_view!(view, view => widen(out, view)),
    }
}

/// The elements of a view in order, widened.
fn widen<I: Input, const R: usize>(out: &mut [I::Acc], x: View<'_, I, R>) {
    let shape = x.shape();
    let Some((&last, _)) = shape.split_last().filter(|_| !x.is_empty()) else { return };
    let mut index = [0; R];
    for out in out.chunks_exact_mut(last) {
        match x.line(index) {
            Some(line) => out.iter_mut().zip(line).for_each(|(out, x)| *out = x.widen()),
            None => {
                for (i, out) in out.iter_mut().enumerate() {
                    index[R - 1] = i;
                    *out = x.at(index).widen();
                }
                index[R - 1] = 0;
            }
        }
        let Some(axis) = (0..R - 1).rev().find(|&axis| index[axis] + 1 < shape[axis]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}
