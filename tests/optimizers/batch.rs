//! Mini-batches and weights of test networks, and their rounding.

use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{Observation, Optimizer, Order, Preconditioner, Schedule};
use foof::{Element, MatMut, MatRef};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::Format;
use foof_oracle::{Dense, Random, rounded};

/// A matrix of `T` that owns its entries.
pub struct Owned<T> {
    pub data: Vec<T>,
    pub shape: [usize; 2],
}

impl<T: Element> Owned<T> {
    pub fn new(dense: &Dense) -> Self {
        Owned { data: dense.data.iter().map(|&v| T::from_f64(v)).collect(), shape: [dense.rows, dense.cols] }
    }

    pub fn view(&self) -> MatRef<'_, T> {
        MatRef::new(&self.data, self.shape).expect("a view")
    }

    pub fn view_mut(&mut self) -> MatMut<'_, T> {
        MatMut::new(&mut self.data, self.shape).expect("a view")
    }

    pub fn dense(&self) -> Dense {
        Dense::from_slice(self.shape[0], self.shape[1], &self.data)
    }
}

/// What each layer shows of a mini-batch: inputs without the constant 1, and errors.
pub struct Batch<T>(pub Vec<[Owned<T>; 2]>);

impl<T: Element> Batch<T> {
    pub fn random(random: &mut Random, layers: &[Layer], n: usize) -> Self {
        let layer = |layer: &Layer| {
            let mut rows = |cols| Owned::new(&random.normals(n * layer.positions(), cols));
            [rows(layer.inputs()), rows(layer.outputs())]
        };
        Batch(layers.iter().map(layer).collect())
    }

    pub fn observations(&self) -> Vec<Observation<'_, T>> {
        self.0.iter().map(|[x, e]| Observation::new(x.view()).with_errors(e.view())).collect()
    }

    /// Mean gradients over the rows.
    pub fn gradients(&self) -> Vec<Gradient<'_, T>> {
        let pairs = self.0.iter().map(|[x, e]| (x.view(), e.view(), T::from_f64(1.0 / x.shape[0] as f64)));
        pairs.map(|(inputs, errors, scale)| Gradient::LowRank { inputs, errors, scale }).collect()
    }
}

pub fn views<T: Element>(weights: &mut [Owned<T>]) -> Vec<MatMut<'_, T>> {
    weights.iter_mut().map(Owned::view_mut).collect()
}

pub fn zeros<T: Element>(layers: &[Layer]) -> Vec<Owned<T>> {
    let zero = |layer: &Layer| Owned::new(&Dense::zeros(layer.weight_shape()[0], layer.weight_shape()[1]));
    layers.iter().map(zero).collect()
}

/// `D` of every layer.
pub fn preconditioned<T: Element, P: Preconditioner<T>>(
    optimizer: &mut Optimizer<T, P>,
    gradients: &[Gradient<'_, T>],
) -> Vec<Dense> {
    let mut out = zeros::<T>(optimizer.layers());
    optimizer.precondition(&mut views(&mut out), gradients).expect("shapes agree");
    out.iter().map(Owned::dense).collect()
}

pub fn dense_layers(sizes: &[[usize; 2]]) -> Vec<Layer> {
    sizes.iter().map(|&[i, o]| Layer::dense(i, o).expect("sizes")).collect()
}

/// Never refreshes by itself in a test's few steps.
pub fn never() -> Schedule {
    Schedule { period: 1000, observe: 1, initial: 1, order: Order::StepFirst }
}

/// A damped inverse in a format, as our kernels may compute it: they round up to three times as often as
/// `Approx` counts (`n + 1` roundings in a sweep, ours `2 n + 4`).
pub fn damped_inverse(a: &Approx, lambda: f64) -> Approx {
    let inverse = a.damped_inverse(lambda);
    let error = 3.0 * inverse.error;
    inverse.with_error(error)
}

pub fn approx<T: Element>(matrix: &Owned<T>) -> Approx {
    Approx::exact(matrix.dense(), Format::of::<T>())
}

/// The mean gradient and the factors of a layer's batch with their rounding.
pub fn layer_approx<T: Element>([x, e]: &[Owned<T>; 2], bias: bool) -> [Approx; 3] {
    let (plain, e) = (approx(x), approx(e));
    let x = if bias { plain.with_one() } else { plain };
    let n = x.value.rows;
    let u = e.transpose().matmul(&x).scaled(1.0 / n as f64);
    [u, rounded::second_moment(&x, n), rounded::second_moment(&e, n)]
}
