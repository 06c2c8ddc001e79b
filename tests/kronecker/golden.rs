//! Eigendecompositions, and from activations to steps on the golden networks: against PyTorch's dense solves.

use crate::{eigen_errors, with_one};
use foof::covariance::{FactorOptions, error_factor_alloc, input_factor_alloc};
use foof::inverse::damped_inverse_alloc;
use foof::kronecker::{
    Eigenbasis, Factor, Gradient, ekfac_step_alloc, exact_step_alloc, foof_step_alloc, kfac_step_alloc,
};
use foof::{Bias, Blend, Element, MatMut, MatRef, Par, Triangle, View, damping, eigen};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::case::Case;
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::isas;
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random, network, rounded, steps};

/// With `Q` off by `dQ` from orthogonal, and `A + dA` decomposed: `|Q^T Q - I| <= 2 |dQ| + |dQ|²` and
/// `|A Q - Q diag(a)| <= |dA| + 2 |A| |dQ|`, the checks' own rounding being in `f64`.
fn eigenvectors_within_bound<T: Element>() {
    let mut random = Random::new(6);
    let format = Format::of::<T>();
    for n in (1..=40).chain([64, 65, 100]) {
        let mut spectrum = log_spectrum(n, 1e3);
        spectrum[n / 2] = 1.0;
        let a = random.symmetric(&spectrum).rounded::<T>();
        let above = Dense::from_fn(n, n, |i, j| if j > i { f64::NAN } else { a[(i, j)] });
        let buffer = Buffer::<T, 2>::matrix(&above, Layout::RowMajor);
        let (mut q, mut values) = (Buffer::<T, 2>::poisoned([n, n], Layout::ColumnMajor), vec![T::zero(); n]);
        let scale = T::from_f64(2.0);
        eigen::self_adjoint_eigen_alloc(&mut values, q.view_mut(), buffer.view(), scale).expect("converges");
        q.assert_margins_intact("eigenvectors");
        let values: Vec<f64> = values.iter().map(|&v| foof::Element::to_f64(v)).collect();
        assert!(values.is_sorted(), "n = {n}: ascending");
        let (q, a) = (q.dense(), a.scaled(2.0));
        let (dq, da) = eigen_errors(format, n);
        let check = F64.gamma(2 * n) * n as f64;
        let orthogonality = q.transpose().matmul(&q).minus(&Dense::identity(n)).frobenius();
        assert!(orthogonality <= 2.0 * dq + dq * dq + check, "n = {n}: {orthogonality:e}");
        let residual = a.matmul(&q).minus(&q.matmul(&Dense::diagonal(&values))).frobenius();
        let norm = a.frobenius();
        assert!(residual <= (da + 2.0 * dq + check) * norm, "n = {n}: {residual:e}");
    }
}

#[test]
fn eigendecompositions_are_backward_stable() {
    eigenvectors_within_bound::<f32>();
    eigenvectors_within_bound::<f64>();
}

/// Within the derived tolerance, which is below half the digits of single precision.
#[track_caller]
fn check(derived: &Approx, actual: &Dense, what: &str) {
    derived.assert_matches(actual, what);
    let relative = derived.error / derived.value.frobenius();
    assert!(relative < Format::of::<f32>().unit.sqrt(), "{what}: tolerance {relative:e}");
}

/// One layer of a golden network without weight sharing.
struct GoldenLayer {
    x: Dense,
    e: Dense,
    x_other: Dense,
    e_other: Dense,
    bias: Bias,
    /// Factors with the rounding of any evaluation, `[A, B]`.
    rounded: [Approx; 2],
    /// The gradient as stored, and as formed of the other mini-batch.
    stored: Approx,
    formed: Approx,
}

impl GoldenLayer {
    fn new(case: &Case, l: usize) -> Self {
        let matrix = |tensor: &str| case.golden.matrix(&format!("{tensor}.{l}"));
        let (x, e) = (matrix("input"), matrix("error_mc"));
        let (x_other, e_other) = (matrix("gradient_input"), matrix("gradient_error"));
        let bias = if case.bias == network::Bias::With { Bias::With } else { Bias::Without };
        let one = bias.columns();
        let second_moment = |rows: Dense| rounded::second_moment(&Approx::exact_f64(rows.clone()), rows.rows);
        let rounded = [second_moment(with_one(&x, one)), second_moment(e.clone())];
        let moved = case.input_errors("gradient_input")[l];
        let inputs = Approx::exact_f64(with_one(&x_other, one)).with_error(moved);
        let count = x_other.rows as f64;
        let formed = Approx::exact_f64(e_other.transpose()).matmul(&inputs).scaled(1.0 / count);
        let stored = Approx::exact_f64(matrix("gradient"));
        GoldenLayer { x, e, x_other, e_other, bias, rounded, stored, formed }
    }

    /// `[A, B]` as the crate forms them.
    fn factors(&self, par: Par) -> [Dense; 2] {
        let (n, i, o) = (self.x.rows, self.x.cols, self.e.cols);
        let size = i + self.bias.columns();
        let (mut a, mut b) = (vec![0.0; size * size], vec![0.0; o * o]);
        let options = FactorOptions { bias: self.bias, ..FactorOptions::default() };
        let x = View::new(&self.x.data, [n, 1, i]).expect("a view");
        input_factor_alloc(MatMut::new(&mut a, [size; 2]).expect("a view"), x, &options, par).expect("finite");
        let e = View::new(&self.e.data, [n, 1, o]).expect("a view");
        let out = MatMut::new(&mut b, [o; 2]).expect("a view");
        error_factor_alloc(out, e, &FactorOptions::default(), par).expect("finite");
        [Dense::from_slice(size, size, &a), Dense::from_slice(o, o, &b)]
    }

    /// The gradient as a matrix and as low-rank, each with its rounding.
    fn gradients(&self) -> [(Gradient<'_, f64>, &Approx); 2] {
        let scale = 1.0 / self.x_other.rows as f64;
        let (inputs, errors) = (dense_view(&self.x_other), dense_view(&self.e_other));
        let low_rank = match self.bias {
            Bias::With => Gradient::LowRankWithBias { inputs, errors, scale },
            Bias::Without => Gradient::LowRank { inputs, errors, scale },
        };
        [(Gradient::Matrix(dense_view(&self.stored.value)), &self.stored), (low_rank, &self.formed)]
    }
}

fn dense_view(matrix: &Dense) -> MatRef<'_, f64> {
    MatRef::new(&matrix.data, [matrix.rows, matrix.cols]).expect("a view")
}

/// Calls `f` with an output and returns it.
fn filled(rows: usize, cols: usize, f: impl FnOnce(MatMut<'_, f64>) -> Result<(), foof::Error>) -> Dense {
    let mut out = vec![f64::NAN; rows * cols];
    f(MatMut::new(&mut out, [rows, cols]).expect("a view")).expect("shapes agree");
    Dense::from_slice(rows, cols, &out)
}

fn each_golden_layer(f: impl Fn(&Case, usize, &GoldenLayer, Par, &str)) {
    for name in ["mlp", "logistic"] {
        let case = Case::load(name);
        for l in 0..case.layers.len() {
            for par in isas() {
                f(&case, l, &GoldenLayer::new(&case, l), par, &format!("{par:?}: {name}, layer {l}"));
            }
        }
    }
}

#[test]
fn golden_foof_and_kfac_steps() {
    each_golden_layer(|case, l, layer, par, what| {
        let [a, b] = layer.factors(par);
        let (o, i) = (b.rows, a.rows);
        let lambda = case.lambda;
        let [a_rounded, b_rounded] = &layer.rounded;
        let golden = |tensor: &str| case.golden.matrix(&format!("{tensor}.{l}"));
        let inverse = |matrix: &Dense, lambda: f64| {
            filled(matrix.rows, matrix.rows, |out| {
                damped_inverse_alloc(out, dense_view(matrix), 1.0, lambda, Triangle::Full, par).map(|_| ())
            })
        };
        let p = inverse(&a, lambda);
        let means = [&a, &b].map(|m| damping::trace(dense_view(m)) / m.rows as f64);
        let (lambda_a, lambda_b) = damping::heuristic(means[0], means[1], lambda).expect("positive");
        let (p_a, p_b) = (inverse(&a, lambda_a), inverse(&b, lambda_b));
        for (gradient, u) in layer.gradients() {
            let foof = filled(o, i, |out| {
                foof_step_alloc(out, Blend::set(1.0), gradient, Factor::Inverse(dense_view(&p)), par)
            });
            let derived = u.matmul(&a_rounded.damped_inverse(lambda));
            check(&derived, &foof, &format!("{what}: FOOF"));
            check(&derived, &golden("foof"), &format!("{what}: PyTorch's FOOF"));
            let factors = [&p_a, &p_b].map(|p| Factor::Inverse(dense_view(p)));
            let kfac = filled(o, i, |out| kfac_step_alloc(out, Blend::set(1.0), gradient, factors[0], factors[1], par));
            let (la, lb) = rounded::heuristic_damping(a_rounded, b_rounded, lambda);
            let derived = b_rounded.damped_inverse(lb).matmul(u).matmul(&a_rounded.damped_inverse(la));
            check(&derived, &kfac, &format!("{what}: K-FAC"));
            check(&derived, &golden("kfac_heuristic"), &format!("{what}: PyTorch's K-FAC"));
        }
    });
}

/// Exact damping by eigendecompositions of `A + dA` and `B + dB`: the dense solve of the Kronecker product moves with them, and
/// each of four products with eigenvectors that are off by `dQ`.
#[test]
fn golden_exact_damping_and_ekfac_steps() {
    each_golden_layer(|case, l, layer, par, what| {
        let [a, b] = layer.factors(par);
        let (o, i) = (b.rows, a.rows);
        let lambda = case.lambda;
        let golden = |tensor: &str| case.golden.matrix(&format!("{tensor}.{l}"));
        let decomposed = [&a, &b].map(|m| {
            let mut values = vec![0.0; m.rows];
            let q = filled(m.rows, m.rows, |out| eigen::self_adjoint_eigen_alloc(&mut values, out, dense_view(m), 1.0));
            values.iter_mut().for_each(|v| *v = v.max(0.0));
            (values, q)
        });
        let [(a_values, q_a), (b_values, q_b)] = &decomposed;
        let moved = layer.rounded.clone().map(|m| {
            let error = m.error + eigen_errors(F64, m.value.rows).1 * m.norm();
            m.with_error(error)
        });
        for (gradient, u) in layer.gradients() {
            let got = filled(o, i, |out| {
                let input = Eigenbasis { values: a_values, vectors: dense_view(q_a) };
                let error = Eigenbasis { values: b_values, vectors: dense_view(q_b) };
                exact_step_alloc(out, Blend::set(1.0), gradient, input, error, lambda, par)
            });
            let solve = rounded::kfac_exact_step(u, &moved[0], &moved[1], lambda);
            let vectors = |q: &Dense| Approx::exact_f64(q.clone()).with_error(eigen_errors(F64, q.rows).0);
            let (v_a, v_b) = (vectors(q_a), vectors(q_b));
            let denominators = Approx::exact_f64(steps::kronecker_moments(a_values, b_values));
            let projected = v_b.transpose().matmul(u).matmul(&v_a);
            let back = projected.divided_by_damped(&denominators, lambda);
            let evaluation = v_b.matmul(&back).matmul(&v_a.transpose());
            let error = solve.error + evaluation.error;
            let derived = solve.with_error(error);
            check(&derived, &got, &format!("{what}: exact damping"));
            check(&derived, &golden("kfac_exact"), &format!("{what}: PyTorch's exact damping"));

            let x = with_one(&layer.x, layer.bias.columns());
            let (xq, eq) = (x.matmul(q_a), layer.e.matmul(q_b));
            let squares = |m: &Dense| m.hadamard(m);
            let moments = squares(&eq).transpose().matmul(&squares(&xq)).scaled(1.0 / x.rows as f64);
            let got = filled(o, i, |out| {
                let (q_a, q_b, moments) = (dense_view(q_a), dense_view(q_b), dense_view(&moments));
                ekfac_step_alloc(out, Blend::set(1.0), gradient, q_a, q_b, moments, lambda, par)
            });
            let determined = [(0, q_a), (1, q_b)].map(|(k, q)| {
                let vectors = rounded::eigenvectors(&layer.rounded[k]);
                let error = vectors.error + eigen_errors(F64, q.rows).0;
                vectors.with_error(error)
            });
            let x_moved = case.input_errors("input")[l];
            let g: Vec<Approx> = (0..x.rows)
                .map(|n| {
                    let row = |m: &Dense| Approx::exact_f64(m.block(n..n + 1, 0..m.cols));
                    row(&layer.e).transpose().matmul(&row(&x).with_error(x_moved))
                })
                .collect();
            let derived = rounded::ekfac_step(u, &determined[0], &determined[1], &g, lambda);
            check(&derived, &got, &format!("{what}: EK-FAC"));
            check(&derived, &golden("ekfac"), &format!("{what}: PyTorch's EK-FAC"));
        }
    });
}
