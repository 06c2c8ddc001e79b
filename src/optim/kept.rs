//! A mini-batch that is kept: what a curvature made of single gradients is made of.

use super::activations::{Activations, Datapoints, Observation, with_view};
use crate::convolution::{FactorPlan, Side};
use crate::error::check_shape;
use crate::layer::Layer;
use crate::woodbury::LayerBatch;
use crate::{Element, Error, Input, Par, View};

/// The layers of a network as batches see them, and how many datapoints, and labels of each, a batch has.
pub(crate) struct Frame {
    given: Vec<Layer>,
    /// The same, convolutions with three axes.
    layers: Vec<Layer>,
    /// Of the convolutions.
    plans: Vec<Option<FactorPlan>>,
    /// `N` and `R = N C`.
    pub(crate) datapoints: usize,
    pub(crate) rows: usize,
}

impl Frame {
    pub(crate) fn new<T: Element>(layers: &[Layer], datapoints: usize, labels: usize, par: Par) -> Self {
        let volumes = |layer: &Layer| layer.convolution().map_or(*layer, |conv| Layer::conv(conv.volumes()));
        let (given, layers): (_, Vec<Layer>) = (layers.to_vec(), layers.iter().map(volumes).collect());
        let plan = |layer: &Layer| layer.convolution().map(|conv| FactorPlan::new::<T>(conv, par));
        let plans = layers.iter().map(plan).collect();
        Frame { given, layers, plans, datapoints, rows: datapoints.saturating_mul(labels) }
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn datapoints<'a, T: Element>(
        &self,
        l: usize,
        side: Side,
        seen: Activations<'a, T>,
    ) -> Result<Datapoints<'a, '_, T>, Error> {
        let argument = if side == Side::Inputs { "inputs" } else { "errors" };
        let count = if side == Side::Inputs { self.datapoints } else { self.rows };
        let datapoints = seen.datapoints(argument, side, &self.given[l], self.plans[l].as_ref())?;
        seen.check_count(argument, count, &datapoints)?;
        seen.check_finite(argument)?;
        Ok(datapoints)
    }

    /// Whether these are finite inputs and errors of a batch.
    pub(crate) fn check<T: Element>(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        for (l, seen) in observations.iter().enumerate() {
            self.check_layer(l, seen).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    fn check_layer<T: Element>(&self, l: usize, seen: &Observation<'_, T>) -> Result<(), Error> {
        self.datapoints(l, Side::Inputs, seen.inputs)?;
        let needed_for = "gradients of single datapoints need the errors of sampled or given labels";
        let errors = seen.errors.ok_or(Error::Missing { what: "errors", needed_for })?;
        self.datapoints(l, Side::Outputs, errors).map(|_| ())
    }

    /// Shapes of a layer's inputs and errors.
    fn shapes(&self, l: usize) -> [Vec<usize>; 2] {
        let (layer, [n, r]) = (&self.layers[l], [self.datapoints, self.rows]);
        match layer.convolution() {
            Some(conv) => [conv.input_shape(n).to_vec(), conv.output_shape(r).to_vec()],
            None => {
                let t = layer.positions();
                [vec![n, t, layer.inputs()], vec![r, t, layer.outputs()]]
            }
        }
    }
}

/// Copies of a batch's inputs and errors, each contiguous.
pub(crate) struct Kept<T> {
    /// Inputs and errors of each layer.
    pub(crate) tensors: Vec<[Vec<T>; 2]>,
}

impl<T: Element> Kept<T> {
    pub(crate) fn new(frame: &Frame) -> Self {
        let zeros = |shape: Vec<usize>| vec![T::zero(); shape.iter().product()];
        Kept { tensors: (0..frame.layers.len()).map(|l| frame.shapes(l).map(zeros)).collect() }
    }

    /// Copies a batch that was checked.
    pub(crate) fn copy(&mut self, frame: &Frame, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        for (l, (seen, [x, e])) in observations.iter().zip(&mut self.tensors).enumerate() {
            copy(x, frame.datapoints(l, Side::Inputs, seen.inputs)?);
            if let Some(errors) = seen.errors {
                copy(e, frame.datapoints(l, Side::Outputs, errors)?);
            }
        }
        Ok(())
    }

    /// Layer `l`.
    pub(crate) fn layer(&self, frame: &Frame, l: usize) -> Result<LayerBatch<'_, T>, Error> {
        let (layer, [x, e]) = (&frame.layers[l], &self.tensors[l]);
        match layer.convolution() {
            Some(conv) => {
                let [inputs, outputs] = [conv.input_shape(frame.datapoints), conv.output_shape(frame.rows)];
                LayerBatch::new(layer, View::new(x, inputs)?, View::new(e, outputs)?)
            }
            None => {
                let t = layer.positions();
                let x = View::new(x, [frame.datapoints, t, layer.inputs()])?;
                LayerBatch::new(layer, x, View::new(e, [frame.rows, t, layer.outputs()])?)
            }
        }
    }

    /// Names and shapes of the tensors, in their order.
    pub(crate) fn entries<'s>(&'s self, frame: &Frame, name: &str) -> Vec<(String, Vec<usize>, &'s [T])> {
        let mut entries = Vec::new();
        for (l, tensors) in self.tensors.iter().enumerate() {
            for ((side, shape), values) in ["input", "error"].into_iter().zip(frame.shapes(l)).zip(tensors) {
                entries.push((format!("layer.{l}.{side}.{name}"), shape, &values[..]));
            }
        }
        entries
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
