//! A mini-batch that is kept: what a curvature made of single gradients is made of.

use super::activations::{Activations, Datapoints, Observation, with_view};
use crate::convolution::{FactorPlan, Side};
use crate::error::check_shape;
use crate::layer::Layer;
use crate::woodbury::LayerBatch;
use crate::{Element, Error, Input, Par, View};

/// The layers of a network as batches see them, and how many datapoints, and labels of each, a batch has, or may have.
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

    /// One side of a layer, if it is finite and of `n` datapoints.
    fn datapoints<'a, T: Element>(
        &self,
        (l, n): (usize, usize),
        side: Side,
        seen: Activations<'a, T>,
    ) -> Result<Datapoints<'a, '_, T>, Error> {
        let argument = if side == Side::Inputs { "inputs" } else { "errors" };
        let count = if side == Side::Inputs { n } else { n * (self.rows / self.datapoints) };
        let datapoints = seen.datapoints(argument, side, &self.given[l], self.plans[l].as_ref())?;
        seen.check_count(argument, count, &datapoints)?;
        seen.check_finite(argument)?;
        Ok(datapoints)
    }

    /// Whether these are finite inputs and errors of a batch.
    pub(crate) fn check<T: Element>(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
        self.check_all(observations, self.datapoints)
    }

    /// The same of a batch that may have fewer datapoints, at least one, as many in all layers; returns how many.
    pub(crate) fn check_at_most<T: Element>(&self, observations: &[Observation<'_, T>]) -> Result<usize, Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        let n = match observations.first() {
            None => self.datapoints,
            Some(seen) => {
                let inputs = seen.inputs.datapoints("inputs", Side::Inputs, &self.given[0], self.plans[0].as_ref());
                inputs.map_err(|error| error.in_layer(0))?.count().min(self.datapoints)
            }
        };
        self.check_all(observations, n).map(|()| n)
    }

    fn check_all<T: Element>(&self, observations: &[Observation<'_, T>], n: usize) -> Result<(), Error> {
        check_shape("observations", &[self.layers.len()], &[observations.len()])?;
        for (l, seen) in observations.iter().enumerate() {
            self.check_layer((l, n), seen).map_err(|error| error.in_layer(l))?;
        }
        Ok(())
    }

    fn check_layer<T: Element>(&self, (l, n): (usize, usize), seen: &Observation<'_, T>) -> Result<(), Error> {
        self.datapoints((l, n), Side::Inputs, seen.inputs)?;
        let needed_for = "gradients of single datapoints need the errors of sampled or given labels";
        let errors = seen.errors.ok_or(Error::Missing { what: "errors", needed_for })?;
        self.datapoints((l, n), Side::Outputs, errors).map(|_| ())
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

    /// Copies a batch of `n` datapoints that was checked. One that has fewer than the frame's `N` is filled up with zeros, whose gradients are zero, and
    /// its errors are scaled by `sqrt(N / n)`: so `(1/N) sum_r g_r g_r^T` is `(1/n)` times the sum of the batch's own.
    pub(crate) fn copy(&mut self, frame: &Frame, observations: &[Observation<'_, T>], n: usize) -> Result<(), Error> {
        let scale = T::from_f64((frame.datapoints as f64 / n as f64).sqrt());
        for (l, (seen, [x, e])) in observations.iter().zip(&mut self.tensors).enumerate() {
            let whole = frame.datapoints;
            let [x, e] = [x, e].map(|all| {
                let each = all.len() / whole;
                let (batch, rest) = all.split_at_mut(each * n);
                rest.fill(T::zero());
                batch
            });
            copy(x, frame.datapoints((l, n), Side::Inputs, seen.inputs)?);
            if let Some(errors) = seen.errors {
                copy(e, frame.datapoints((l, n), Side::Outputs, errors)?);
            }
            if n < whole {
                e.iter_mut().for_each(|e| *e *= scale);
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
