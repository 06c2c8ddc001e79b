//! Errors of functions; outputs are as they were.

use crate::{assert_parameter, assert_scratch, assert_shape, matrix, par, refused, without_scratch};
use foof::covariance::{Centring, FactorOptions, error_factor, error_factor_alloc, input_factor, input_factor_alloc};
use foof::inverse::{
    self, Check, DampedInverse, Damping, Side, damped_cholesky, damped_cholesky_alloc, damped_inverse,
    damped_inverse_alloc, damped_inverse_scratch, damped_inverses, damped_inverses_alloc, inverse_quadratic_form,
    inverse_quadratic_form_scratch, residual_certificate, residual_certificate_alloc,
};
use foof::kronecker::{
    Eigenbasis, Factor, Gradient, ekfac_step, ekfac_step_alloc, exact_step, foof_step, foof_step_alloc, kfac_step,
};
use foof::layer::Layer;
use foof::optim::{cosine, metric_cosine};
use foof::product::{product, product_alloc};
use foof::scaling::Scaling;
use foof::{Blend, Error, MatMut, MatRef, MemBuffer, MemStack, Sharing, StackReq, Triangle, View, damping, eigen};

/// Large enough that every operation needs scratch.
const N: usize = 100;

#[test]
fn products() {
    let data = vec![1.0; N * N];
    let square = matrix(&data, [N, N]);
    let (narrow, set) = (matrix(&data, [N - 1, N]), Blend::set(1.0));
    assert_shape(refused([N, N], |out| product_alloc(out, set, square, narrow, par())), "rhs");
    assert_shape(refused([N, N - 1], |out| product_alloc(out, set, square, square, par())), "out");
    assert_scratch(refused([N, N], |out| without_scratch(|stack| product(out, set, square, square, par(), stack))));
}

#[test]
fn factors() {
    let data = vec![1.0; 60];
    let x = View::new(&data, [4, 3, 5]).expect("a view");
    let options = FactorOptions::default();
    assert_shape(refused([5, 4], |out| input_factor_alloc(out, x, &options, par())), "out");
    for decay in [-0.1, 1.0, 2.0, f64::NAN] {
        let options = FactorOptions { decay, ..options };
        assert_parameter(refused([5, 5], |out| input_factor_alloc(out, x, &options, par())), "decay");
    }
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = FactorOptions { scaling: Scaling::Custom(scale), ..options };
        assert_parameter(refused([5, 5], |out| error_factor_alloc(out, x, &options, par())), "scale");
    }
    for rows_per_datapoint in [0, 3] {
        let options = FactorOptions { rows_per_datapoint, ..options };
        let error = refused([5, 5], |out| error_factor_alloc(out, x, &options, par()));
        assert_parameter(error, "rows_per_datapoint");
    }
    for shape in [[0, 3, 5], [4, 0, 5]] {
        let x = View::new(&data, shape).expect("a view");
        let error = refused([5, 5], |out| input_factor_alloc(out, x, &options, par()));
        assert_eq!(error, Error::EmptyBatch { argument: "inputs", shape: shape.to_vec() });
    }
    for (k, bad) in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().enumerate() {
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            for centring in [Centring::Raw, Centring::Centred] {
                let mut data = data.clone();
                data[15 * k + 5 + 2] = bad;
                let x = View::new(&data, [4, 3, 5]).expect("a view");
                let options = FactorOptions { sharing, centring, ..options };
                let index = vec![k, 1, 2];
                let error = refused([5, 5], |out| input_factor_alloc(out, x, &options, par()));
                assert_eq!(error, Error::NotFinite { argument: "inputs", index: index.clone() });
                let error = refused([5, 5], |out| error_factor_alloc(out, x, &options, par()));
                assert_eq!(error, Error::NotFinite { argument: "errors", index });
            }
        }
    }
    let data = vec![1.0; N * N];
    let x = View::new(&data, [N, 1, N]).expect("a view");
    let none = refused([N, N], |out| without_scratch(|stack| input_factor(out, x, &options, par(), stack)));
    assert_scratch(none);
    assert_scratch(refused([N, N], |out| without_scratch(|stack| error_factor(out, x, &options, par(), stack))));
}

/// The damped inverse of `a`, to be called with its output.
fn invert(a: MatRef<'_, f64>, scale: f64, damping: f64) -> impl FnOnce(MatMut<'_, f64>) -> Result<(), Error> {
    move |out| damped_inverse_alloc(out, a, scale, damping, Triangle::Full, par()).map(|_| ())
}

#[test]
fn inverses_and_solves() {
    let mut data = vec![0.0; N * N];
    data.iter_mut().step_by(N + 1).for_each(|v| *v = 4.0);
    let a = matrix(&data, [N, N]);
    assert_shape(refused([N, N], invert(matrix(&data, [N, N - 1]), 1.0, 1.0)), "a");
    assert_shape(refused([N - 1, N], invert(a, 1.0, 1.0)), "out");
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        assert_parameter(refused([N, N], invert(a, 1.0, bad)), "damping");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(refused([N, N], invert(a, bad, 1.0)), "scale");
    }
    let full = Triangle::Full;
    let scarce = |stack: &mut MemStack, out: MatMut<'_, f64>| damped_inverse(out, a, 1.0, 1.0, full, par(), stack);
    assert_scratch(refused([N, N], |out| without_scratch(|stack| scarce(stack, out).map(|_| ()))));
    let scarce = |stack: &mut MemStack, out: MatMut<'_, f64>| damped_cholesky(out, a, 1.0, 1.0, par(), stack);
    assert_scratch(refused([N, N], |out| without_scratch(|stack| scarce(stack, out).map(|_| ()))));
    assert_scratch(refused([N, N], |out| without_scratch(|stack| inverse::solve(a, out, Side::Left, par(), stack))));
    assert_shape(refused([N - 1, 3], |out| inverse::solve_alloc(a, out, Side::Left, par())), "b");
    assert_shape(refused([3, N - 1], |out| inverse::solve_alloc(a, out, Side::Right, par())), "b");
    // Zero damping is allowed, of a definite matrix; an indefinite one names its pivot, one that is not finite its entry.
    let mut out = vec![0.0; N * N];
    invert(a, 1.0, 0.0)(MatMut::new(&mut out, [N, N]).expect("a view")).expect("definite");
    for (bad, [i, j]) in [
        (-4.0, [41, 41]),
        (0.0, [99, 99]),
        (f64::NAN, [0, 0]),
        (f64::INFINITY, [64, 64]),
        (f64::NAN, [99, 0]),
        (f64::NEG_INFINITY, [70, 33]),
        (f64::MAX, [50, 50]),
    ] {
        let mut data = data.clone();
        data[i * N + j] = bad;
        // Above the diagonal nothing is read.
        data[17] = f64::NAN;
        let scale = if bad == f64::MAX { 2.0 } else { 1.0 };
        let error = invert(matrix(&data, [N, N]), scale, 0.0)(MatMut::new(&mut out, [N, N]).expect("a view"));
        match bad {
            -4.0 | 0.0 => assert_eq!(error, Err(Error::NotPositiveDefinite { layer: None, pivot: i, value: bad })),
            _ => assert_eq!(error, Err(Error::NotFinite { argument: "a", index: vec![i, j] })),
        }
    }
}

#[test]
fn preconditioned_products() {
    let data = vec![1.0; N * N];
    let view = |shape| matrix(&data, shape);
    let (set, shape) = (Blend::set(1.0), [6, 9]);
    let (p, q) = (Factor::Inverse(view([9, 9])), Factor::Cholesky(view([6, 6])));
    let gradient = Gradient::Matrix(view(shape));
    let low_rank = |inputs, errors| Gradient::LowRank { inputs: view(inputs), errors: view(errors), scale: 1.0 };
    let mut memory = MemBuffer::new(StackReq::new::<f64>(1 << 20));
    let mut kfac =
        |gradient, p, q| refused(shape, |out| kfac_step(out, set, gradient, p, q, par(), MemStack::new(&mut memory)));
    assert_shape(kfac(gradient, Factor::Inverse(view([9, 8])), q), "input factor");
    assert_shape(kfac(gradient, p, Factor::Cholesky(view([5, 5]))), "error factor");
    assert_shape(kfac(Gradient::Matrix(view([9, 6])), p, q), "gradient");
    assert_shape(kfac(low_rank([4, 8], [4, 6]), p, q), "gradient.inputs");
    assert_shape(kfac(low_rank([4, 9], [5, 6]), p, q), "gradient.errors");
    assert_scratch(refused([N, N], |out| {
        let (square, gradient) = (Factor::Inverse(view([N, N])), Gradient::Matrix(view([N, N])));
        without_scratch(|stack| foof_step(out, set, gradient, square, par(), stack))
    }));
    let mut exact = |damping, values: [usize; 2], vectors: [usize; 2]| {
        refused(shape, |out| {
            let input = Eigenbasis { values: &data[..values[0]], vectors: view([vectors[0]; 2]) };
            let error = Eigenbasis { values: &data[..values[1]], vectors: view([vectors[1]; 2]) };
            exact_step(out, set, gradient, input, error, damping, par(), MemStack::new(&mut memory))
        })
    };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(exact(bad, [9, 6], [9, 6]), "damping");
    }
    assert_shape(exact(1.0, [8, 6], [9, 6]), "input values");
    assert_shape(exact(1.0, [9, 7], [9, 6]), "error values");
    assert_shape(exact(1.0, [9, 6], [8, 6]), "input vectors");
    assert_shape(exact(1.0, [9, 6], [9, 7]), "error vectors");
}

#[test]
fn dampings_eigenvectors_and_layers() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(damping::heuristic(1.0, 1.0, bad).expect_err("bad"), "damping");
    }
    assert_parameter(damping::heuristic(-1.0, 1.0, 1.0).expect_err("bad"), "mean_a");
    assert_parameter(damping::heuristic(1.0, f64::NAN, 1.0).expect_err("bad"), "mean_b");
    let mut data = vec![1.0; 16];
    let eigen = |data: &[f64], rows: usize| {
        let mut values = vec![7.0; 4];
        let error =
            refused([4, 4], |out| eigen::self_adjoint_eigen_alloc(&mut values, out, matrix(data, [rows, 4]), 1.0));
        assert_eq!(values, [7.0; 4]);
        error
    };
    assert_shape(eigen(&data, 3), "a");
    data[4 * 2 + 1] = f64::NAN;
    assert_eq!(eigen(&data, 4), Error::NotFinite { argument: "a", index: vec![2, 1] });
    assert_parameter(Layer::dense(0, 3).expect_err("no inputs"), "inputs");
    assert_parameter(Layer::dense(3, 0).expect_err("no outputs"), "outputs");
    let layer = Layer::dense(3, 3).expect("sizes");
    assert_parameter(layer.with_positions(0).expect_err("no positions"), "positions");
}

#[test]
fn cholesky_factors() {
    let data = vec![1.0; N * N];
    let a = matrix(&data, [N, N]);
    let factor = |a, scale, damping: f64| {
        move |out: MatMut<'_, f64>| damped_cholesky_alloc(out, a, scale, damping, par()).map(|_| ())
    };
    assert_shape(refused([N, N], factor(matrix(&data, [N, N - 1]), 1.0, 1.0)), "a");
    assert_shape(refused([N, N - 1], factor(a, 1.0, 1.0)), "out");
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        assert_parameter(refused([N, N], factor(a, 1.0, bad)), "damping");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(refused([N, N], factor(a, bad, 1.0)), "scale");
    }
    let mut out = vec![0.0; N * N];
    let error = factor(a, 1.0, 0.0)(MatMut::new(&mut out, [N, N]).expect("a view"));
    assert_eq!(error, Err(Error::NotPositiveDefinite { layer: None, pivot: 1, value: 0.0 }), "all ones: rank one");
}

/// The damping is raised tenfold until the matrix is definite; no damping helps one that is not finite.
#[test]
fn raised_dampings() {
    let mut memory = MemBuffer::new(damped_inverse_scratch::<f64>(2, par()));
    let mut raised = |data: [f64; 4], damping, out: MatMut<'_, f64>| {
        let (stack, damping) = (MemStack::new(&mut memory), Damping::raised_from(damping));
        damped_inverse(out, matrix(&data, [2, 2]), 1.0, damping, Triangle::Full, par(), stack)
    };
    let mut out = [0.0; 4];
    let view = MatMut::new(&mut out, [2, 2]).expect("a view");
    assert_eq!(raised([-6.0, 0.0, 0.0, 6.0], 1.0, view), Ok(10.0));
    assert_eq!(out, [0.25, 0.0, 0.0, 0.0625]);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused([2, 2], |out| raised([1.0, 0.0, 0.0, 1.0], bad, out).map(|_| ()));
        assert_parameter(error, "damping");
    }
    assert_shape(refused([2, 3], |out| raised([1.0; 4], 1.0, out).map(|_| ())), "out");
    let error = raised([f64::NAN; 4], 1.0, MatMut::new(&mut out, [2, 2]).expect("a view"));
    assert_eq!(error, Err(Error::NotFinite { argument: "a", index: vec![0, 0] }));
    // No finite damping reaches as far as this entry is negative.
    let error = raised([-1.5e308, 0.0, 0.0, 1.0], 1.0, MatMut::new(&mut out, [2, 2]).expect("a view"));
    assert!(matches!(error, Err(Error::NotPositiveDefinite { pivot: 0, .. })), "{error:?}");
    let data = vec![1.0; N * N];
    let scarce = refused([N, N], |out| {
        let (a, damping) = (matrix(&data, [N, N]), Damping::raised_from(1.0));
        without_scratch(|stack| damped_inverse(out, a, 1.0, damping, Triangle::Full, par(), stack).map(|_| ()))
    });
    assert_scratch(scarce);
}

/// A list is checked before anything is written, and names every item that is wrong.
#[test]
fn lists_of_inverses() {
    let data = vec![1.0; N * N];
    let square = |n| matrix(&data, [n, n]);
    let mut out = vec![7.0; 3 * N * N];
    let (first, rest) = out.split_at_mut(N * N);
    let (second, third) = rest.split_at_mut(N * N);
    let full = Triangle::Full;
    let mut list = |a: [MatRef<'_, f64>; 3], dampings: [f64; 3], enough: bool| {
        let outs = [&mut *first, &mut *second, &mut *third].map(|out| MatMut::new(out, [N, N]).expect("a view"));
        let arguments = outs.into_iter().zip(a).zip(dampings);
        let item = |((out, a), damping)| DampedInverse::new(out, a, 1.0, damping, full);
        let mut items: Vec<_> = arguments.map(item).collect();
        let result = match enough {
            true => damped_inverses_alloc(&mut items, par()),
            false => without_scratch(|stack| damped_inverses(&mut items, par(), stack)),
        };
        assert!(items.iter().all(|item| item.damped_by().is_none()), "nothing was inverted");
        result.expect_err("bad input")
    };
    let Error::Items { failures } = list([square(N), square(N - 1), square(N)], [-1.0, 1.0, f64::NAN], true) else {
        panic!("a list of failures")
    };
    let [(0, damping), (1, shape), (2, nan)] = &failures[..] else { panic!("{failures:?}") };
    assert_parameter(damping.clone(), "damping");
    assert_shape(shape.clone(), "out");
    assert_parameter(nan.clone(), "damping");
    assert_scratch(list([square(N); 3], [1.0; 3], false));
    assert!(out.iter().all(|&v| v == 7.0), "outputs were written");
    assert_eq!(damped_inverses_alloc::<f64>(&mut [], par()), Ok(()));
}

#[test]
fn estimates_and_certificates() {
    let mut data = vec![0.0; N * N];
    data.iter_mut().step_by(N + 1).for_each(|v| *v = 1.0);
    let (l, narrow) = (matrix(&data, [N, N]), matrix(&data, [N, N - 1]));
    assert_eq!(inverse::log_det(l), Ok(0.0));
    assert_shape(inverse::log_det(narrow).expect_err("not square"), "l");
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut data = data.clone();
        data[3 * (N + 1)] = bad;
        let error = inverse::log_det(matrix(&data, [N, N])).expect_err("no factor");
        assert!(matches!(error, Error::NotPositiveDefinite { pivot: 3, .. }), "{error}");
    }
    assert_shape(inverse::norm1_alloc(narrow, 1.0, 1.0).expect_err("not square"), "a");
    assert_parameter(inverse::norm1_alloc(l, 1.0, -1.0).expect_err("negative"), "damping");
    assert_scratch(without_scratch(|stack| inverse::norm1(l, 1.0, 1.0, stack)).expect_err("no scratch"));
    let estimate = |l, columns| inverse::inverse_norm1_estimate_alloc(l, columns, par());
    assert_eq!(estimate(l, 2), Ok(1.0));
    assert_shape(estimate(narrow, 2).expect_err("not square"), "l");
    assert_parameter(estimate(l, 0).expect_err("none"), "columns");
    assert_scratch(
        without_scratch(|stack| inverse::inverse_norm1_estimate(l, 2, par(), stack)).expect_err("no scratch"),
    );
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(inverse::condition_estimate_alloc(l, bad, 2, par()).expect_err("no norm"), "norm");
    }
    let certify = |a, x, method| residual_certificate_alloc(a, 1.0, 0.0, x, Triangle::Full, method, par());
    assert_shape(certify(narrow, l, Check::Full).expect_err("not square"), "a");
    assert_shape(certify(l, narrow, Check::Full).expect_err("not square"), "x");
    assert_parameter(certify(l, l, Check::Random { vectors: 0, seed: 1 }).expect_err("none"), "vectors");
    data[5 * N + 4] = f64::NAN;
    let bad = matrix(&data, [N, N]);
    for method in [Check::Full, Check::Random { vectors: 2, seed: 1 }] {
        for triangle in [Triangle::Full, Triangle::Lower] {
            let good = vec![1.0; N * N];
            let good = matrix(&good, [N, N]);
            let certify = |a, x| residual_certificate_alloc(a, 1.0, 0.0, x, triangle, method, par());
            assert_eq!(certify(bad, good), Err(Error::NotFinite { argument: "a", index: vec![5, 4] }));
            assert_eq!(certify(good, bad), Err(Error::NotFinite { argument: "x", index: vec![5, 4] }));
            let scarce =
                |stack: &mut MemStack| residual_certificate(good, 1.0, 0.0, good, triangle, method, par(), stack);
            assert_scratch(without_scratch(scarce).expect_err("no scratch"));
        }
    }
    let error = inverse::norm1_alloc(bad, 1.0, 0.0);
    assert_eq!(error, Err(Error::NotFinite { argument: "a", index: vec![5, 4] }));
}

#[test]
fn solves_and_quadratic_forms() {
    let data = vec![2.0; N * N];
    assert_shape(refused([N, 3], |out| inverse::solve_alloc(matrix(&data, [N, N - 1]), out, Side::Left, par())), "l");
    let mut memory = MemBuffer::new(inverse_quadratic_form_scratch::<f64>(3, par()));
    let mut form = |l, x: &[f64]| inverse_quadratic_form(l, x, par(), MemStack::new(&mut memory));
    let diagonal = [2.0, f64::NAN, f64::NAN, 0.0, 2.0, f64::NAN, 0.0, 0.0, 2.0];
    assert_eq!(form(matrix(&diagonal, [3, 3]), &[2.0, 4.0, 6.0]), Ok(14.0));
    assert_shape(form(matrix(&diagonal, [3, 2]), &[1.0; 3]).expect_err("not square"), "l");
    assert_shape(form(matrix(&diagonal, [3, 3]), &[1.0; 2]).expect_err("too short"), "x");
    let l = matrix(&data, [N, N]);
    assert_scratch(
        without_scratch(|stack| inverse_quadratic_form(l, &[1.0; N], par(), stack)).expect_err("no scratch"),
    );
}

#[test]
fn steps_in_eigenbases() {
    let data = vec![1.0; N * N];
    let view = |shape| matrix(&data, shape);
    let (set, shape) = (Blend::set(1.0), [6, 9]);
    let ekfac = |gradient, input, error, moments, damping| {
        refused(shape, |out| {
            ekfac_step_alloc(out, set, gradient, view(input), view(error), view(moments), damping, par())
        })
    };
    let gradient = Gradient::Matrix(view(shape));
    assert_shape(ekfac(gradient, [9, 9], [6, 6], [9, 6], 1.0), "moments");
    assert_shape(ekfac(gradient, [9, 8], [6, 6], shape, 1.0), "input vectors");
    assert_shape(ekfac(gradient, [9, 9], [7, 7], shape, 1.0), "error vectors");
    assert_shape(ekfac(Gradient::Matrix(view([9, 6])), [9, 9], [6, 6], shape, 1.0), "gradient");
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(ekfac(gradient, [9, 9], [6, 6], shape, bad), "damping");
    }
    let square = view([N, N]);
    let gradient = Gradient::Matrix(square);
    assert_scratch(refused([N, N], |out| {
        without_scratch(|stack| ekfac_step(out, set, gradient, square, square, square, 1.0, par(), stack))
    }));
    assert_scratch(refused([N, N], |out| {
        let basis = Eigenbasis { values: &data[..N], vectors: square };
        without_scratch(|stack| exact_step(out, set, gradient, basis, basis, 1.0, par(), stack))
    }));
    let factor = Factor::Inverse(square);
    assert_shape(refused([N, N - 1], |out| foof_step_alloc(out, set, gradient, factor, par())), "input factor");
    assert_shape(refused([N - 1, N], |out| foof_step_alloc(out, set, gradient, factor, par())), "gradient");
}

#[test]
fn eigendecompositions() {
    let data = vec![1.0; 16];
    let decompose = |count: usize, shape, scale, scratch: bool| {
        let mut values = vec![7.0; count];
        let error = refused(shape, |out| match scratch {
            true => eigen::self_adjoint_eigen_alloc(&mut values, out, matrix(&data, [4, 4]), scale),
            false => without_scratch(|stack| {
                eigen::self_adjoint_eigen(&mut values, out, matrix(&data, [4, 4]), scale, stack)
            }),
        });
        assert!(values.iter().all(|&v| v == 7.0), "{error}: the values were written");
        error
    };
    assert_shape(decompose(3, [4, 4], 1.0, true), "values");
    assert_shape(decompose(4, [4, 3], 1.0, true), "vectors");
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(decompose(4, [4, 4], bad, true), "scale");
    }
    assert_scratch(decompose(4, [4, 4], 1.0, false));
}

#[test]
fn cosines() {
    let data = vec![1.0; 9];
    let view = |shape| matrix(&data, shape);
    assert_shape(cosine(view([2, 3]), view([3, 2])).expect_err("other shapes"), "b");
    let metric = |b, factor, damping| metric_cosine(view([2, 3]), view(b), view(factor), 1.0, damping, par());
    assert_shape(metric([3, 2], [3, 3], 1.0).expect_err("other shapes"), "b");
    assert_shape(metric([2, 3], [2, 2], 1.0).expect_err("other shapes"), "factor");
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert_parameter(metric([2, 3], [3, 3], bad).expect_err("bad damping"), "damping");
    }
}
