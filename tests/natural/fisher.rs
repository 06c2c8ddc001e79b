//! The Fisher matrix formed and not formed, on random networks.

use crate::asks_for_enough;
use crate::golden::Net;
use crate::network::{Kind, Network, integers};
use foof::convolution::FeatureOrder;
use foof::fisher::{
    dense_fisher, dense_fisher_alloc, dense_fisher_scratch, fisher_vector_product_alloc, gradient_rows,
    gradient_rows_alloc, gradient_rows_scratch, quadratic_penalty_alloc,
};
use foof::labels::{Loss, Outputs, full_errors};
use foof::{Bias, Blend, Error, MatMut, MatRef, Par};
use foof_oracle::bounds::F64;
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random, fisher};

/// Dense, shared and convolutional layers, groups and biases; 4 datapoints, whose root is exact.
fn mixed() -> [Kind; 4] {
    [
        Kind::Conv {
            c: 2,
            o: 2,
            h: 3,
            w: 4,
            kernel: 3,
            stride: 2,
            groups: 2,
            bias: Bias::With,
            order: FeatureOrder::ChannelTaps,
        },
        Kind::Dense { i: 3, o: 2, t: 3, bias: Bias::With },
        Kind::Dense { i: 2, o: 3, t: 2, bias: Bias::Without },
        Kind::dense(3, 2),
    ]
}

/// On integers, exactly the oracle's: rows of gradients, the matrix, products, and penalties.
#[test]
fn integers_are_exact() {
    for labels in [1, 3] {
        let net = Network::<f64>::new(&mixed(), 4, labels, integers(91, 2));
        let (g, p, rows) = (net.gradients(), net.weights(), net.rows());
        let oracle = fisher::fisher(&g, 4);
        let mut random = Random::new(92);
        let (v, old) = (random.integers(p, 1, 2), random.integers(p, 1, 2));
        for par in isas().into_iter().chain([Par::threads(2)]) {
            let what = format!("{par:?}, {labels} labels");
            let batch = net.batch();
            let mut out = vec![f64::NAN; rows * p];
            gradient_rows_alloc(MatMut::new(&mut out, [rows, p]).expect("a view"), &batch, par).expect("valid");
            assert_exact(&Dense::from_slice(rows, p, &out), &g.scaled(0.5), &what);
            let mut out = vec![f64::NAN; p * p];
            dense_fisher_alloc(MatMut::new(&mut out, [p, p]).expect("a view"), &batch, par).expect("valid");
            assert_exact(&Dense::from_slice(p, p, &out), &oracle, &what);
            let mut out = old.data.clone();
            let blend = Blend { alpha: 2.0, beta: 0.5 };
            let parts = &mut net.parts_mut(&mut out);
            fisher_vector_product_alloc(parts, blend, &batch, &net.parts(&v.data), par).expect("valid");
            let product = oracle.matmul(&v);
            assert_exact(&Dense::from_slice(p, 1, &out), &old.scaled(0.5).plus(&product.scaled(2.0)), &what);
            let mut out = old.data.clone();
            let parts = &mut net.parts_mut(&mut out);
            let penalty = quadratic_penalty_alloc(parts, 4.0, &batch, &net.parts(&v.data), par).expect("valid");
            assert_eq!(penalty, 2.0 * v.transpose().matmul(&product)[(0, 0)], "{what}");
            assert_exact(&Dense::from_slice(p, 1, &out), &old.plus(&product.scaled(4.0)), &what);
        }
    }
}

/// The scratch that is asked for is enough, and one byte less is refused; a batch of no layers too.
#[test]
fn scratch_of_the_matrix() {
    let net = Network::<f64>::new(&mixed(), 4, 3, integers(93, 2));
    let (g, p, rows, par) = (net.gradients(), net.weights(), net.rows(), Par::seq());
    fn view(out: &mut Vec<f64>, shape: [usize; 2]) -> MatMut<'_, f64> {
        out.resize(shape[0] * shape[1], f64::NAN);
        MatMut::new(out, shape).expect("a view")
    }
    asks_for_enough(gradient_rows_scratch(&net.batch(), par), &g.scaled(0.5).data, |stack| {
        let mut out = Vec::new();
        gradient_rows(view(&mut out, [rows, p]), &net.batch(), par, stack).map(|()| out)
    });
    asks_for_enough(dense_fisher_scratch(&net.batch(), par), &fisher::fisher(&g, 4).data, |stack| {
        let mut out = Vec::new();
        dense_fisher(view(&mut out, [p, p]), &net.batch(), par, stack).map(|()| out)
    });
    for refused in [gradient_rows_alloc::<f64>, dense_fisher_alloc] {
        let error = refused(view(&mut Vec::new(), [0, 0]), &[], par).expect_err("no layers");
        assert!(matches!(error, Error::EmptyBatch { argument: "batch", .. }), "{error}");
    }
}

/// For softmax regression `F = (1/N) sum_n (diag(p) - p p^T) ⊗ x x^T`, the Hessian of the loss: the full Fisher matrix is the Gauss-Newton matrix.
///
/// Errors: as in `tests/labels.rs`, off by `gamma_(C+8)` of at most 2; the rest is a product of two sums over `C` and `N`.
#[test]
fn the_full_fisher_is_the_hessian_of_softmax_regression() {
    let net = Net::load("logistic");
    let (x, p) = (net.case.golden.matrix("input.0"), net.case.golden.matrix("probabilities"));
    let (n, classes, i) = (x.rows, p.cols, x.cols);
    let mut errors = vec![0.0; n * classes * classes];
    let outputs = Outputs::Probabilities(MatRef::new(&p.data, [n, classes]).expect("a view"));
    let out = MatMut::new(&mut errors, [n * classes, classes]).expect("a view");
    full_errors(out, Loss::SoftmaxCrossEntropy, outputs).expect("probabilities");
    let inputs = MatRef::new(&x.data, [n, i]).expect("a view");
    let errors = MatRef::new(&errors, [n * classes, classes]).expect("a view");
    let batch = [foof::woodbury::LayerBatch::new(&net.layers[0], inputs, errors).expect("a batch")];
    let size = classes * i;
    let mut out = vec![f64::NAN; size * size];
    dense_fisher_alloc(MatMut::new(&mut out, [size; 2]).expect("a view"), &batch, Par::threads(2)).expect("valid");
    let hessian = |of: &dyn Fn(&[f64]) -> Dense, x: &Dense| {
        let terms = (0..n).map(|r| {
            let row = Dense::from_slice(i, 1, x.row(r));
            of(p.row(r)).kron(&row.matmul(&row.transpose()))
        });
        terms.reduce(|sum, term| sum.plus(&term)).expect("datapoints").scaled(1.0 / n as f64)
    };
    let exact = hessian(&|p| Dense::from_fn(classes, classes, |a, b| p[a] * (f64::from(a == b) - p[b])), &x);
    // sum_c |r_c||r_c|^T is at most diag(p) + p p^T, entry by entry.
    let magnitude =
        hessian(&|p| Dense::from_fn(classes, classes, |a, b| p[a] * (f64::from(a == b) + 3.0 * p[b])), &x.abs());
    let bound = magnitude.scaled(2.0 * F64.gamma(n * classes + 4 * classes + 32));
    assert_within(&Dense::from_slice(size, size, &out), &exact, &bound, "the Hessian");
}

#[test]
fn bad_input_is_refused() {
    let net = Network::<f64>::new(&mixed(), 4, 1, integers(93, 2));
    let p = net.weights();
    let v = vec![1.0; p];
    let mut out = vec![7.0; p];
    for strength in [-1.0, f64::NAN, f64::INFINITY] {
        let parts = &mut net.parts_mut(&mut out);
        let error = quadratic_penalty_alloc(parts, strength, &net.batch(), &net.parts(&v), Par::seq()).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "strength", .. }), "{error}");
    }
    let mut parts = net.parts(&v);
    parts.pop();
    let error =
        fisher_vector_product_alloc(&mut net.parts_mut(&mut out), Blend::set(1.0), &net.batch(), &parts, Par::seq());
    assert!(matches!(error, Err(Error::Shape { argument: "u", .. })), "{error:?}");
    assert_eq!(out, vec![7.0; p], "as it was");
    let mut square = vec![0.0; 4];
    let error = dense_fisher_alloc(MatMut::new(&mut square, [2, 2]).expect("a view"), &net.batch(), Par::seq());
    assert_eq!(error, Err(Error::Shape { argument: "out", expected: vec![p, p], got: vec![2, 2] }));
}
