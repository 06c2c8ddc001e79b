//! Steps with given factors and eigenvectors on reals: within the derived bound.

use crate::problem::{FORMS, Form, Given, Problem, SCALE, expected, step};
use foof::inverse::{damped_cholesky_alloc, damped_inverse_alloc};
use foof::kronecker::{Eigenbasis, ekfac_step_alloc, exact_step_alloc};
use foof::{Blend, Element, Triangle};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::compare::{assert_close, assert_within};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random, steps};
use proptest::prelude::*;

/// Against given inverses: one chain of all products, whatever their order (any sum of `k` products rounds each term at most
/// `k` times).
fn given_inverses_within_bound<T: Element>(shape: [usize; 3], blend: (f64, f64), seed: u64) {
    let mut random = Random::new(seed);
    let blend = (T::from_f64(blend.0).to_f64(), T::from_f64(blend.1).to_f64());
    let [o, i, _] = shape;
    let (p, q) = (random.symmetric(&log_spectrum(i, 10.0)), random.symmetric(&log_spectrum(o, 10.0)));
    let (p, q) = (p.rounded::<T>(), q.rounded::<T>());
    let old = random.normals(o, i).rounded::<T>();
    for form in FORMS {
        let problem = Problem::new::<T>(shape, form, |rows, cols| random.normals(rows, cols));
        for error in [None, Some(&q)] {
            let what = format!("{shape:?} {form:?}, error factor {}", error.is_some());
            let given = (Given::Inverse(p.clone()), error.cloned().map(Given::Inverse));
            let inner = i + error.map_or(0, |q| q.rows) + problem.depth();
            let up = problem.magnitude.matmul(&p.abs());
            let magnitude = error.map_or(up.clone(), |q| q.abs().matmul(&up));
            let bound = bounds::blended_product(Format::of::<T>(), &magnitude, blend, &old, inner, inner);
            let expected = expected(&problem.u, &p, error, &old, blend);
            for (isa, got) in for_every_par(&what, |par| {
                let factors = (&given.0, given.1.as_ref());
                step::<T>(&problem, factors, &old, blend, [Layout::RowMajor; 2], par).elements()
            }) {
                assert_within(&Dense::from_slice(o, i, &got), &expected, &bound, &format!("{isa}: {what}"));
            }
        }
    }
}

/// `X (L L^T)^-1` by substitution with a given `L`: the residual is within `(2 g + g²) |L||L^T||X|`, `g = gamma_2n` with
/// products rounded too (Higham, Theorem 8.5), so the error is that times `|(L L^T)^-1|`.
fn solved(u: &Approx, l: &Dense, p: &Dense) -> Approx {
    let g = u.format.gamma(2 * l.rows);
    let residual = (2.0 * g + g * g) * l.frobenius().powi(2);
    let shrink = residual * p.frobenius();
    assert!(shrink < 1.0, "the bound says something");
    let value = u.value.matmul(p);
    let computed = (value.frobenius() + u.error * p.frobenius()) / (1.0 - shrink);
    Approx::exact(value, u.format).with_error(p.frobenius() * (u.error + residual * computed))
}

/// A problem's gradient with the rounding of any evaluation.
fn gradient_of(problem: &Problem, format: Format) -> Approx {
    let exact = |matrix: &Dense| Approx::exact(matrix.clone(), format);
    match problem.form {
        Form::Matrix => exact(&problem.u),
        Form::LowRank => exact(&problem.e).transpose().matmul(&exact(&problem.x)).scaled(SCALE),
        Form::LowRankWithBias => exact(&problem.e).transpose().matmul(&exact(&problem.x).with_one()).scaled(SCALE),
    }
}

/// From factor to step: Cholesky factors and inverses of the same damped matrices give the step of the dense solve.
fn cholesky_factors_and_inverses_within_bound<T: Element>(shape: [usize; 3], lambda: f64, seed: u64) {
    let mut random = Random::new(seed);
    let format = Format::of::<T>();
    let [o, i, _] = shape;
    let a = random.symmetric(&log_spectrum(i, 100.0)).rounded::<T>();
    let b = random.symmetric(&log_spectrum(o, 100.0)).rounded::<T>();
    let old = Dense::zeros(o, i);
    for form in FORMS {
        let problem = Problem::new::<T>(shape, form, |rows, cols| random.normals(rows, cols));
        let oracle = steps::kfac_step(&problem.u, &a, &b, lambda, lambda);
        for par in isas() {
            let (a_buffer, b_buffer) = (Buffer::matrix(&a, Layout::RowMajor), Buffer::matrix(&b, Layout::RowMajor));
            let prepared = [a_buffer, b_buffer].map(|matrix: Buffer<T, 2>| {
                let mut l = Buffer::<T, 2>::poisoned(matrix.shape, Layout::RowMajor);
                let mut p = l.clone();
                let (one, lambda, triangle) = (T::one(), T::from_f64(lambda), Triangle::Full);
                damped_cholesky_alloc(l.view_mut(), matrix.view(), one, lambda, par).expect("positive definite");
                damped_inverse_alloc(p.view_mut(), matrix.view(), one, lambda, triangle, par).expect("definite");
                (l.dense().lower(), p.dense())
            });
            let [(l_a, p_a), (l_b, p_b)] = &prepared;
            let u = gradient_of(&problem, format);
            let format_matrix = |matrix: &Dense| Approx::exact(matrix.clone(), format);
            // Order of the products does not matter to these norms, up to rounding that the doubled error covers.
            let by_inverse =
                format_matrix(&b).damped_inverse(lambda).matmul(&u).matmul(&format_matrix(&a).damped_inverse(lambda));
            let what = format!("{par:?}: {shape:?} {form:?}");
            let layouts = [Layout::RowMajor; 2];
            let inverses = (Given::Inverse(p_a.clone()), Given::Inverse(p_b.clone()));
            let factors = (&inverses.0, Some(&inverses.1));
            let got = step::<T>(&problem, factors, &old, (1.0, 0.0), layouts, par).dense();
            assert_close(&got, &oracle, 2.0 * by_inverse.error, &format!("{what}: inverses"));
            let dense = |l: &Dense| l.matmul(&l.transpose()).inverse();
            let (d_a, d_b) = (dense(l_a), dense(l_b));
            let by_solve = solved(&solved(&u, l_a, &d_a).transpose(), l_b, &d_b).transpose();
            let cholesky = (Given::Cholesky(l_a.clone()), Given::Cholesky(l_b.clone()));
            let factors = (&cholesky.0, Some(&cholesky.1));
            let got = step::<T>(&problem, factors, &old, (1.0, 0.0), layouts, par).dense();
            by_solve.assert_matches(&got, &format!("{what}: Cholesky factors"));
            // Against the same solve, an explicit inverse for one side.
            let factors = (&inverses.0, Some(&cholesky.1));
            let got = step::<T>(&problem, factors, &old, (1.0, 0.0), layouts, par).dense();
            let mixed = solved(&u.matmul(&format_matrix(p_a)).transpose(), l_b, &d_b).transpose();
            mixed.assert_matches(&got, &format!("{what}: inverse and Cholesky factor"));
        }
    }
}

/// Exact damping and EK-FAC with given eigenvectors: the oracle forms `Q_B ⊗ Q_A`.
fn eigenbases_within_bound<T: Element>(shape: [usize; 3], (alpha, beta): (f64, f64), lambda: f64, seed: u64) {
    let mut random = Random::new(seed);
    let format = Format::of::<T>();
    let (alpha, beta, lambda) = (T::from_f64(alpha).to_f64(), T::from_f64(beta).to_f64(), T::from_f64(lambda).to_f64());
    let [o, i, _] = shape;
    let (q_a, q_b) = (random.orthogonal(i).rounded::<T>(), random.orthogonal(o).rounded::<T>());
    let (a, b) = (random.normals(i, 1).abs().rounded::<T>(), random.normals(o, 1).abs().rounded::<T>());
    let products = steps::kronecker_moments(&a.data, &b.data);
    let moments = random.normals(o, i).abs().rounded::<T>();
    let old = random.normals(o, i).rounded::<T>();
    let blend = Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) };
    let buffer = |matrix: &Dense| Buffer::<T, 2>::matrix(matrix, Layout::ColumnMajor);
    let (qa_buffer, qb_buffer, moments_buffer) = (buffer(&q_a), buffer(&q_b), buffer(&moments));
    let (a_values, b_values): (Vec<T>, Vec<T>) =
        (a.data.iter().map(|&v| T::from_f64(v)).collect(), b.data.iter().map(|&v| T::from_f64(v)).collect());
    for form in FORMS {
        let problem = Problem::new::<T>(shape, form, |rows, cols| random.normals(rows, cols));
        for exact in [true, false] {
            let denominators = if exact { &products } else { &moments };
            let fresh = steps::ekfac_step(&problem.u, &q_a, &q_b, denominators, lambda);
            let expected = fresh.scaled(alpha).plus(&old.scaled(beta));
            // Four products and three roundings of the denominator, as one chain.
            let inner = 2 * (o + i) + 3 + problem.depth();
            let magnitude = steps::eigenbasis_step(&problem.magnitude, &q_a.abs(), &q_b.abs(), denominators, lambda);
            let bound = bounds::blended_product(format, &magnitude, (alpha, beta), &old, inner, inner);
            let what = format!("{shape:?} {form:?}, exact {exact}");
            for (isa, got) in for_every_par(&what, |par| {
                let mut out = Buffer::<T, 2>::matrix(&old, Layout::Reversed);
                let (view, lambda) = (out.view_mut(), T::from_f64(lambda));
                problem
                    .with(Layout::WideRows, |gradient| match exact {
                        true => {
                            let input = Eigenbasis { values: &a_values, vectors: qa_buffer.view() };
                            let error = Eigenbasis { values: &b_values, vectors: qb_buffer.view() };
                            exact_step_alloc(view, blend, gradient, input, error, lambda, par)
                        }
                        false => {
                            let (q_a, q_b) = (qa_buffer.view(), qb_buffer.view());
                            ekfac_step_alloc(view, blend, gradient, q_a, q_b, moments_buffer.view(), lambda, par)
                        }
                    })
                    .expect("shapes agree");
                out.assert_margins_intact(&what);
                out.elements()
            }) {
                assert_within(&Dense::from_slice(o, i, &got), &expected, &bound, &format!("{isa}: {what}"));
            }
        }
    }
}

/// `[o, i, M]` on either side of each other, so that each side of a low-rank gradient takes either order.
fn shapes(largest: usize) -> impl Strategy<Value = [usize; 3]> {
    [1..largest, 1..largest, 1..largest]
}

/// Factors of a result and of what was there; the second also zero.
fn blends() -> impl Strategy<Value = (f64, f64)> {
    (-2.0..2.0f64, prop_oneof![Just(0.0), -2.0..2.0f64])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn given_inverses(shape in shapes(70), blend in blends(), seed: u64) {
        given_inverses_within_bound::<f32>(shape, blend, seed);
        given_inverses_within_bound::<f64>(shape, blend, seed);
    }

    #[test]
    fn cholesky_factors_and_inverses_of_damped_matrices(shape in shapes(50), power in -2i32..3, seed: u64) {
        let lambda = f64::from(power).exp2();
        cholesky_factors_and_inverses_within_bound::<f32>(shape, lambda, seed);
        cholesky_factors_and_inverses_within_bound::<f64>(shape, lambda, seed);
    }

    #[test]
    fn given_eigenbases(shape in shapes(24), blend in blends(), lambda in 0.01..4.0f64, seed: u64) {
        eigenbases_within_bound::<f32>(shape, blend, lambda, seed);
        eigenbases_within_bound::<f64>(shape, blend, lambda, seed);
    }
}

/// At the benchmarks' size: `D v` against `Q (U (P v))` and `Q (E^T (X (P v)))` for a random `v`, in `O(n^2)`. Its own chains are those
/// of the step and one of `i` terms more; so is the check's.
#[test]
fn benchmark_sizes_pass_a_random_vector_check() {
    let (o, i) = (1000, 1000);
    let mut random = Random::new(7);
    let format = Format::of::<f32>();
    let v = random.normals(i, 1);
    let [p, q] = [i, o].map(|n| random.normals(n, n).rounded::<f32>());
    let given = [&p, &q].map(|m| Given::Inverse(m.clone()));
    let old = Dense::zeros(o, i);
    for (form, m) in [(Form::Matrix, 1), (Form::LowRank, 100)] {
        let (x, e) = (random.normals(m, i).rounded::<f32>(), random.normals(m, o).rounded::<f32>());
        let u = if form == Form::Matrix { random.normals(o, i).rounded::<f32>() } else { Dense::zeros(o, i) };
        let apply = |x: &Dense, e: &Dense, u: &Dense, pv: &Dense| match form {
            Form::Matrix => u.matmul(pv),
            _ => e.transpose().matmul(&x.matmul(pv)).scaled(SCALE),
        };
        let expected = q.matmul(&apply(&x, &e, &u, &p.matmul(&v)));
        let magnitude = q.abs().matmul(&apply(&x.abs(), &e.abs(), &u.abs(), &p.abs().matmul(&v.abs())));
        let depths = i + o + if form == Form::Matrix { 0 } else { m + 2 };
        let bound = magnitude.scaled(format.gamma(depths) + F64.gamma(2 * (depths + i)));
        let problem = Problem { form, x, e, magnitude: old.clone(), u };
        for par in isas() {
            let got = step::<f32>(&problem, (&given[0], Some(&given[1])), &old, (1.0, 0.0), [Layout::RowMajor; 2], par);
            assert_within(&got.dense().matmul(&v), &expected, &bound, &format!("{par:?}: {form:?}"));
        }
    }
}
