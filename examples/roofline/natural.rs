//! Natural gradients: a network's batch, its gradient, and the solve.

use super::data::{DAMPING, uniform};
use super::jobs::{Images, MLP};
use super::ours::Work;
use dyn_stack::{MemBuffer, MemStack};
use foof::layer::Layer;
use foof::woodbury::{Direction, LayerBatch, WoodburyOptions, natural_gradient, natural_gradient_scratch};
use foof_kernels::{MatMut, MatRef, Par, View};

const FITS: &str = "the buffers have the layers' shapes";

/// Inputs and errors of each layer for `n` datapoints.
struct Batch {
    n: usize,
    layers: Vec<(Layer, Vec<f32>, Vec<f32>)>,
}

impl Batch {
    fn dense(n: usize, seed: u64) -> Batch {
        let each = MLP.windows(2).map(|w| {
            let layer = Layer::dense(w[0], w[1]).expect(FITS);
            (layer, uniform(n * w[0], seed), uniform(n * w[1], seed + 1))
        });
        Batch { n, layers: each.collect() }
    }

    fn conv(images: Images) -> Batch {
        let (conv, n) = (images.conv(), images.n);
        let [x, e] = [conv.input_shape(n), conv.output_shape(n)].map(|shape| shape.iter().product());
        Batch { n, layers: vec![(Layer::conv(conv), uniform(x, 1), uniform(e, 2))] }
    }

    fn views(&self) -> Vec<LayerBatch<'_, f32>> {
        let each = self.layers.iter().map(|(layer, x, e)| match layer.convolution() {
            None => {
                let (x, e) = (View::new(x, [self.n, layer.inputs()]), View::new(e, [self.n, layer.outputs()]));
                LayerBatch::new(layer, x.expect(FITS), e.expect(FITS)).expect(FITS)
            }
            Some(conv) => {
                let plane = |[n, c, _, h, w]: [usize; 5]| [n, c, h, w];
                let (x, e) =
                    (View::new(x, plane(conv.input_shape(self.n))), View::new(e, plane(conv.output_shape(self.n))));
                LayerBatch::new(layer, x.expect(FITS), e.expect(FITS)).expect(FITS)
            }
        });
        each.collect()
    }

    fn matrices(&self, seed: u64) -> Vec<Vec<f32>> {
        self.layers.iter().map(|(layer, ..)| uniform(layer.weight_shape().iter().product(), seed)).collect()
    }

    fn shapes(&self) -> Vec<[usize; 2]> {
        self.layers.iter().map(|(layer, ..)| layer.weight_shape()).collect()
    }
}

/// The network of [`MLP`], `u` of `m` rows or matrices.
pub fn network(n: usize, m: Option<usize>, par: Par) -> Work {
    solve(Batch::dense(n, 1), m.map(|m| Batch::dense(m, 3)), par)
}

/// One convolution, `u` a matrix.
pub fn convolution(images: Images, par: Par) -> Work {
    solve(Batch::conv(images), None, par)
}

fn solve(batch: Batch, rows: Option<Batch>, par: Par) -> Work {
    let (u, mut out) = (batch.matrices(5), batch.matrices(6));
    let (options, shapes) = (WoodburyOptions::new(DAMPING), batch.shapes());
    let mut memory = None;
    Box::new(move || {
        let batch = batch.views();
        let u: Vec<Direction<'_, f32>> = match &rows {
            Some(rows) => {
                let scale = 1.0 / rows.n as f32;
                rows.views().into_iter().map(|batch| Direction::LowRank { batch, scale }).collect()
            }
            None => {
                let each = u.iter().zip(&shapes);
                each.map(|(u, &shape)| Direction::Matrix(MatRef::new(u, shape).expect(FITS))).collect()
            }
        };
        let memory = memory.get_or_insert_with(|| MemBuffer::new(natural_gradient_scratch(&batch, &u, &options, par)));
        let mut out: Vec<MatMut<'_, f32>> =
            out.iter_mut().zip(&shapes).map(|(out, &shape)| MatMut::new(out, shape).expect(FITS)).collect();
        natural_gradient(&mut out, &batch, &u, &options, par, MemStack::new(memory)).expect("a damped system");
    })
}
