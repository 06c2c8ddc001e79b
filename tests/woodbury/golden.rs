//! The golden networks' natural gradients, whole and block-diagonal, one label sampled and all labels: images as they are.

use foof::convolution::{Axis, Conv};
use foof::layer::Layer;
use foof::woodbury::{Direction, LayerBatch, WoodburyOptions, natural_gradient_alloc};
use foof::{MatMut, MatRef, Par, View};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Solver, Woodbury};
use foof_oracle::case::Case;
use foof_oracle::compare::assert_close;
use foof_oracle::fisher::gradients;
use foof_oracle::kernels::for_every_par;
use foof_oracle::network::Bias;
use foof_oracle::{Dense, rounded};

/// Layer `l` as it is observed.
fn layer(case: &Case, l: usize) -> Layer {
    let (weight, shape) = (case.golden.shape(&format!("weight.{l}")), case.golden.shape(&format!("input.{l}")));
    match &case.layers[l] {
        None => {
            let bias = usize::from(case.bias == Bias::With);
            let layer = Layer::dense(weight[1] - bias, weight[0]).expect("a layer");
            if bias == 1 { layer.with_bias() } else { layer }
        }
        Some(conv) => {
            let axes: [Axis; 2] = std::array::from_fn(|axis| {
                let at = axis + 1;
                let axis =
                    Axis::new(shape[2 + axis], conv.kernel[at]).stride(conv.stride[at]).dilation(conv.dilation[at]);
                axis.padding_each(conv.padding[at])
            });
            let made = Conv::new(shape[1], weight[0], axes).and_then(|made| made.with_groups(conv.groups));
            Layer::conv(made.expect("a convolution"))
        }
    }
}

/// Layer `l`'s inputs and errors, for one network or one layer.
fn batch<'a>(case: &Case, l: usize, layer: &Layer, x: &'a [f64], e: &'a [f64]) -> LayerBatch<'a, f64> {
    let shape = |argument: &str| case.golden.shape(argument);
    let (xs, es) = (shape(&format!("input.{l}")), shape(&format!("error_full.{l}")));
    match layer.convolution() {
        None => {
            let [n, r] = [x.len() / layer.inputs(), e.len() / layer.outputs()];
            let x = MatRef::new(x, [n, layer.inputs()]).expect("the shape");
            LayerBatch::new(layer, x, MatRef::new(e, [r, layer.outputs()]).expect("the shape")).expect("the layer's")
        }
        Some(_) => {
            let x = View::new(x, [xs[0], xs[1], xs[2], xs[3]]).expect("the shape");
            let r = e.len() / es[1..].iter().product::<usize>();
            LayerBatch::new(layer, x, View::new(e, [r, es[1], es[2], es[3]]).expect("the shape")).expect("the layer's")
        }
    }
}

/// A layer with its inputs, errors and gradient.
type Values = (Layer, Vec<f64>, Vec<f64>, Vec<f64>);

/// Ours is within the bound of Woodbury's solve of the exact answer, the golden one within that of a dense solve.
fn check(case: &Case, layers: &[usize], labels: &str, g: &Approx, golden: &Dense, what: &str) {
    let n = case.golden.matrix("probabilities").rows;
    let seen: Vec<Values> = layers
        .iter()
        .map(|&l| {
            let values = |tensor: &str| case.golden.values(&format!("{tensor}.{l}"));
            (layer(case, l), values("input"), values(&format!("error_{labels}")), values("gradient"))
        })
        .collect();
    let u: Vec<f64> = seen.iter().flat_map(|layer| layer.3.clone()).collect();
    let u = Dense::from_slice(u.len(), 1, &u);
    let step = rounded::natural_gradient(&rounded::second_moment(g, n), &Approx::exact_f64(u.clone()), case.lambda);
    let batches: Vec<_> = layers.iter().zip(&seen).map(|(&l, (layer, x, e, _))| batch(case, l, layer, x, e)).collect();
    // No sum passes through more roundings than it has terms, in any order, and a few scalings: of a product and its rows (1), of a
    // datapoint's positions twice and all weights (2), of datapoints and positions (3).
    let depth = |layer: &Layer| {
        let [o, i] = layer.weight_shape();
        o * i + (2 + n) * layer.positions() + g.value.rows
    };
    let terms = seen.iter().map(|layer| depth(&layer.0)).sum::<usize>();
    let magnitudes = layers.iter().map(|&l| magnitude(case, labels, l)).sum::<f64>();
    let magnitude = magnitudes / (n as f64).sqrt();
    let bound = Woodbury {
        norm: g.norm() / (n as f64).sqrt(),
        magnitude,
        rows: g.value.rows,
        lambda: case.lambda,
        depths: [terms; 3],
        formats: [F64; 2],
        solver: Solver::Factor,
    };
    let bound = bound.errors(u.frobenius(), u.frobenius()).expect("a bound").forward;
    let options = WoodburyOptions::new(case.lambda);
    for (isa, x) in for_every_par(what, |par: Par| {
        let mut out: Vec<Vec<f64>> = seen.iter().map(|layer| vec![f64::NAN; layer.3.len()]).collect();
        let shapes: Vec<[usize; 2]> = seen.iter().map(|layer| layer.0.weight_shape()).collect();
        let u: Vec<Direction<'_, f64>> = seen
            .iter()
            .zip(&shapes)
            .map(|(layer, &shape)| Direction::Matrix(MatRef::new(&layer.3, shape).expect("the shape")))
            .collect();
        let mut views: Vec<_> =
            out.iter_mut().zip(&shapes).map(|(out, &shape)| MatMut::new(out, shape).expect("the shape")).collect();
        natural_gradient_alloc(&mut views, &batches, &u, &options, par).expect("a definite system");
        out.concat()
    }) {
        let tolerance = bound + step.error;
        assert_close(&Dense::from_slice(x.len(), 1, &x), golden, tolerance, &format!("{what}, {isa}"));
        // Worth something: below half the digits of single precision.
        assert!(tolerance < golden.frobenius() * f64::from(f32::EPSILON).sqrt(), "{what}: tolerance {tolerance:e}");
    }
}

/// The norm of a layer's gradients of absolute inputs and errors.
fn magnitude(case: &Case, labels: &str, l: usize) -> f64 {
    let (x, e) = (case.inputs("input", l), case.errors(&format!("error_{labels}"), l));
    let each = x.iter().zip(&e).map(|(x, e)| {
        let labels = e.len() / x.len();
        let x: Vec<Dense> = (0..e.len()).map(|r| x[r / labels].abs()).collect();
        let e: Vec<Dense> = e.iter().map(Dense::abs).collect();
        gradients(&x, &e).frobenius()
    });
    each.sum()
}

#[test]
fn golden_natural_gradients() {
    for name in Case::NAMES {
        let case = Case::load(name);
        let all: Vec<usize> = (0..case.layers.len()).collect();
        for labels in ["mc", "full"] {
            let errors = format!("error_{labels}");
            let (g, golden) = (case.all_gradients("input", &errors), case.flat(&format!("ng_{labels}")));
            check(&case, &all, labels, &g, &golden, &format!("{name}, {labels}"));
            for l in all.iter().copied() {
                let g = case.layer_gradients("input", &errors, l);
                let golden = case.golden.matrix(&format!("ng_{labels}_blockdiag.{l}")).vec();
                check(&case, &[l], labels, &g, &golden, &format!("{name}, {labels}, layer {l}"));
            }
        }
    }
}
