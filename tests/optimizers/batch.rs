//! Mini-batches and weights of test networks, and their rounding.

use foof::kronecker::Gradient;
use foof::layer::Layer;
use foof::optim::{Kfac, Observation, Optimizer, Order, Preconditioner, Schedule};
use foof::{Element, MatMut, MatRef};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
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

/// `D` of every layer, written over NaN.
pub fn preconditioned<T: Element, P: Preconditioner<T>>(
    optimizer: &mut Optimizer<T, P>,
    gradients: &[Gradient<'_, T>],
) -> Vec<Dense> {
    let nan =
        |layer: &Layer| Owned::new(&Dense::zeros(layer.weight_shape()[0], layer.weight_shape()[1]).map(|_| f64::NAN));
    let mut out: Vec<Owned<T>> = optimizer.layers().iter().map(nan).collect();
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

/// A part of the preconditioner's state.
pub fn entry<T: Element, P: Preconditioner<T>>(optimizer: &Optimizer<T, P>, name: &str) -> Dense {
    let entries = optimizer.preconditioner().entries();
    let (_, shape, values) = entries.iter().find(|(found, ..)| found == name).expect("an entry of this name");
    Dense::from_slice(shape[0], shape.get(1).copied().unwrap_or(1), values)
}

/// How far computed eigenvectors are from orthogonal ones in norm, and the decomposed matrix from `A`, relative to `|A|`
/// (`bounds::eigenvalue_error`).
pub fn eigen_errors(n: usize) -> (f64, f64) {
    let relative = 2.0 * n as f64 * F64.gamma(10 * n);
    ((n as f64).sqrt() * relative, relative)
}

/// K-FAC's step with exact damping as `optimizer` takes it in its first layer: the dense solve of the Kronecker product, moved by the
/// eigensolver's backward errors, and the rounding of the evaluation in the eigenbases found.
pub fn exact_damping(optimizer: &Kfac<f64>, operands: [&Approx; 3], lambda: f64) -> Approx {
    exact_damping_of(optimizer, "layer.0", operands, lambda)
}

/// [`exact_damping`] in the layer, or group of a layer, whose entries have this prefix.
pub fn exact_damping_of(optimizer: &Kfac<f64>, prefix: &str, [u, a, b]: [&Approx; 3], lambda: f64) -> Approx {
    let moved = |m: &Approx| m.clone().with_error(m.error + eigen_errors(m.value.rows).1 * m.norm());
    let solve = rounded::kfac_exact_step(u, &moved(a), &moved(b), lambda);
    let named = |name: &str| entry(optimizer, &format!("{prefix}.{name}"));
    let [q_a, q_b] = ["input.used", "error.used"].map(|name| {
        let q = named(name);
        let error = eigen_errors(q.rows).0;
        Approx::exact_f64(q).with_error(error)
    });
    let denominators = Approx::exact_f64(named("error.values").matmul(&named("input.values").transpose()));
    let divided = q_b.transpose().matmul(u).matmul(&q_a).divided_by_damped(&denominators, lambda);
    let evaluation = q_b.matmul(&divided).matmul(&q_a.transpose()).error;
    let error = solve.error + evaluation;
    solve.with_error(error)
}

/// `m M + (1-m) mean_n (Q_B^T G_n Q_A)²` with given eigenvectors, as `((E_n Q_B)^T (X_n Q_A))²`; a row of `e` for each datapoint and label.
pub fn averaged_moments(old: &Approx, (x, e): (&[Dense], &[Dense]), [q_a, q_b]: [&Approx; 2], m: f64) -> Approx {
    let exact = |dense: &Dense| Approx::exact(dense.clone(), old.format);
    let labels = e.len() / x.len();
    let projected =
        e.iter().enumerate().map(|(r, e)| exact(e).matmul(q_b).transpose().matmul(&exact(&x[r / labels]).matmul(q_a)));
    averaged_squares(old, projected.collect(), labels, m)
}

/// `m M + (1-m) mean_n g_n²`, with gradients for each datapoint and label.
pub fn averaged_squares(old: &Approx, gradients: Vec<Approx>, labels: usize, m: f64) -> Approx {
    let squares: Vec<Approx> = gradients.iter().map(|g| g.hadamard(g)).collect();
    rounded::moving_average(old, &Approx::mean(&squares).scaled(labels as f64), m)
}
