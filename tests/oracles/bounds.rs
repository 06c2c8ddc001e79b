//! Naive kernels in `f32` must keep to every bound, over sizes, conditions and seeds; and the bounds that decide
//! success must decide it.

use foof_oracle::Dense;
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, F64, Format, Outcome};
use foof_oracle::compare::{assert_close, assert_within};
use foof_oracle::generate::{Random, log_spectrum};
use foof_oracle::{rounded, steps};

const SIZES: [usize; 6] = [1, 2, 7, 16, 33, 64];
const CONDITIONS: [f64; 3] = [1.0, 1e2, 1e4];

fn f32_format() -> Format {
    Format::of::<f32>()
}

/// A naive sum of products in `f32`, one rounding for each product and each sum.
fn product(a: &Dense, b: &Dense) -> Dense {
    Dense::from_fn(a.rows, b.cols, |i, j| {
        let term = |k| a[(i, k)] as f32 * b[(k, j)] as f32;
        f64::from((0..a.cols).fold(0.0f32, |sum, k| sum + term(k)))
    })
}

/// Textbook Cholesky in `f32`.
fn cholesky(a: &Dense) -> Option<Dense> {
    let n = a.rows;
    let mut l = vec![0.0f32; n * n];
    for i in 0..n {
        for j in 0..=i {
            let rest = (0..j).fold(a[(i, j)] as f32, |r, k| r - l[i * n + k] * l[j * n + k]);
            if i == j && (rest <= 0.0 || rest.is_nan()) {
                return None;
            }
            l[i * n + j] = if i == j { rest.sqrt() } else { rest / l[j * n + j] };
        }
    }
    Some(Dense::from_slice(n, n, &l))
}

/// `L^-1` in `f32` from the last column to the first, the sweep with a small left residual (Higham 14.2, method 2).
fn triangular_inverse(l: &Dense) -> Dense {
    let n = l.rows;
    let mut y = vec![0.0f32; n * n];
    for j in (0..n).rev() {
        let pivot = 1.0 / l[(j, j)] as f32;
        y[j * n + j] = pivot;
        for i in j + 1..n {
            let sum = (j + 1..=i).fold(0.0f32, |s, k| s + y[i * n + k] * l[(k, j)] as f32);
            y[i * n + j] = -sum * pivot;
        }
    }
    Dense::from_slice(n, n, &y)
}

/// Forward substitution in `f32`.
fn solve_lower(l: &Dense, b: &Dense) -> Dense {
    let (n, cols) = (b.rows, b.cols);
    let mut x = vec![0.0f32; n * cols];
    for j in 0..cols {
        for i in 0..n {
            let rest = (0..i).fold(b[(i, j)] as f32, |r, k| r - l[(i, k)] as f32 * x[k * cols + j]);
            x[i * cols + j] = rest / l[(i, i)] as f32;
        }
    }
    Dense::from_slice(n, cols, &x)
}

/// Back substitution with `L^T`, by reversing the order of both.
fn solve_lower_transposed(l: &Dense, b: &Dense) -> Dense {
    let n = l.rows;
    let reversed = Dense::from_fn(n, n, |i, j| l[(n - 1 - j, n - 1 - i)]);
    let flipped = |m: &Dense| Dense::from_fn(n, m.cols, |i, j| m[(n - 1 - i, j)]);
    flipped(&solve_lower(&reversed, &flipped(b)))
}

/// Calls `test` with a random definite matrix, its eigenvalues (unrounded), and a generator.
fn each_definite(test: impl Fn(&Dense, &[f64], &mut Random)) {
    let mut random = Random::new(20);
    for n in SIZES {
        for condition in CONDITIONS {
            let spectrum = log_spectrum(n, condition);
            let a = random.symmetric(&spectrum).rounded::<f32>();
            test(&a, &spectrum, &mut random);
        }
    }
}

#[test]
fn unit_roundoff_and_subnormals() {
    assert_eq!(f32_format().unit, 2.0f64.powi(-24));
    assert_eq!(f32_format().tiny, f64::from(f32::from_bits(1)));
    assert_eq!(Format::of::<f64>(), F64);
    assert_eq!(F64.tiny, f64::from_bits(1));
    assert_eq!(F64.gamma(0), 0.0);
    assert_eq!(f32_format().gamma(1 << 24), f64::INFINITY);
}

#[test]
fn products_and_blends() {
    let mut random = Random::new(21);
    let f = f32_format();
    for k in [1, 2, 10, 100, 1000] {
        for scale in [1.0, 1e-21] {
            // At 1e-21 every product underflows.
            let a = random.normals(5, k).scaled(scale).rounded::<f32>();
            let b = random.normals(k, 6).scaled(scale).rounded::<f32>();
            let magnitude = a.abs().matmul(&b.abs());
            let computed = product(&a, &b);
            let bound = bounds::product(f, &magnitude, k, k);
            assert_within(&computed, &a.matmul(&b), &bound, "product");
            if scale == 1.0 {
                // Bounds in norm leave underflow out.
                let exact = |m: &Dense| Approx::exact(m.clone(), f);
                exact(&a).matmul(&exact(&b)).assert_matches(&computed, "product in norm");
            }

            let old = random.normals(5, 6).scaled(scale).rounded::<f32>();
            let (m, s) = (0.95f32, 1.0 / k as f32);
            let wide = (f64::from(m), f64::from(s));
            let ema = |new: f64, old: f64| f64::from(m * old as f32 + (1.0 - m) * s * new as f32);
            let expected = old.zip(&a.matmul(&b), |c, p| wide.0 * c + (1.0 - wide.0) * wide.1 * p);
            let bound = bounds::ema_covariance(f, &magnitude, wide, &old, k, k);
            assert_within(&computed.zip(&old, ema), &expected, &bound, "average");
        }
    }
}

/// `beta = 0` asks nothing of the old value, not even that it be a number.
#[test]
fn blend_without_the_old_value() {
    let magnitude = Dense::from_rows(&[[1.0]]);
    let old = Dense::from_rows(&[[f64::NAN]]);
    let bound = bounds::blended_product(f32_format(), &magnitude, (1.0, 0.0), &old, 4, 4);
    assert!(bound[(0, 0)] < f32_format().gamma(7));
}

#[test]
fn chains_of_products() {
    let mut random = Random::new(22);
    let [p, u, q] = [(4, 5), (5, 6), (6, 7)].map(|(r, c)| random.normals(r, c).rounded::<f32>());
    let magnitude = p.abs().matmul(&u.abs()).matmul(&q.abs());
    let bound = bounds::chain(f32_format(), &magnitude, 11, 11);
    let computed = product(&product(&p, &u), &q);
    assert_within(&computed, &p.matmul(&u).matmul(&q), &bound, "chain");
}

#[test]
fn steps_in_an_eigenbasis() {
    let mut random = Random::new(23);
    let q_a = random.orthogonal(6).rounded::<f32>();
    let q_b = random.orthogonal(4).rounded::<f32>();
    let u = random.normals(4, 6).rounded::<f32>();
    for lambda in [1.0, 2.0f64.powi(-10)] {
        let moments = random.normals(4, 6).abs().rounded::<f32>();
        let projected = product(&product(&q_b.transpose(), &u), &q_a);
        let divided = projected.zip(&moments, |p, d| f64::from(p as f32 / (d as f32 + lambda as f32)));
        let computed = product(&product(&q_b, &divided), &q_a.transpose());
        let operands = (&u, &q_a, &q_b);
        let bound = bounds::eigenbasis_step(f32_format(), operands, &moments, lambda, 20);
        let expected = steps::eigenbasis_step(&u, &q_a, &q_b, &moments, lambda);
        assert_within(&computed, &expected, &bound, "eigenbasis");
    }
}

#[test]
fn cholesky_solves_and_inverses() {
    let f = f32_format();
    each_definite(|a, spectrum, random| {
        let n = a.rows;
        let l = cholesky(a).expect("well conditioned");
        let llt = l.matmul(&l.transpose());
        assert_within(&llt, a, &bounds::cholesky(f, &l, a), "Cholesky");
        let norm = bounds::cholesky_norm(f, n, a.trace());
        assert_close(&llt, a, norm, "Cholesky in norm");

        let b = random.normals(n, 3).rounded::<f32>();
        let half = solve_lower(&l, &b);
        let bound = bounds::triangular_solve(f, &l, &half, &b);
        assert_within(&l.matmul(&half), &b, &bound, "forward substitution");
        let x = solve_lower_transposed(&l, &half);
        let bound = bounds::solve(f, &l, a, &x, &b);
        assert_within(&a.matmul(&x), &b, &bound, "solve");

        let y = triangular_inverse(&l);
        let bound = bounds::triangular_inverse(f, &y, &l, n + 1);
        let identity = Dense::identity(n);
        assert_within(&y.matmul(&l), &identity, &bound, "triangular inverse");
        let x = product(&y.transpose(), &y);
        let trace_inverse = a.inverse().trace();
        let bound = bounds::inverse_residual(f, a.trace(), trace_inverse, n + 1);
        assert_close(&a.matmul(&x), &identity, bound, "inverse");
        let bound = bounds::inverse_error(f, spectrum, n + 3); // the spectrum is that before rounding
        assert_close(&x, &a.inverse(), bound, "inverse, forward");
    });
}

/// Sums to `c A_0 + lambda I` in `f32` before the factorisation.
#[test]
fn damping_formed_by_the_kernel() {
    let f = f32_format();
    each_definite(|a, _, random| {
        let (c, lambda) = (1.3f32, 0.01f32);
        let n = a.rows;
        let formed = Dense::from_fn(n, n, |i, j| {
            let scaled = c * a[(i, j)] as f32;
            f64::from(if i == j { scaled + lambda } else { scaled })
        });
        let exact = a.scaled(f64::from(c)).damped(f64::from(lambda));
        let l = cholesky(&formed).expect("definite");
        let bound = bounds::cholesky(f, &l, &exact);
        assert_within(&l.matmul(&l.transpose()), &exact, &bound, "Cholesky");
        let b = random.normals(n, 2).rounded::<f32>();
        let x = solve_lower_transposed(&l, &solve_lower(&l, &b));
        let bound = bounds::solve(f, &l, &exact, &x, &b);
        assert_within(&exact.matmul(&x), &b, &bound, "solve");
    });
}

/// Theorem 10.7 is right about naive Cholesky wherever it decides, and decides both ways.
#[test]
fn outcomes_of_cholesky() {
    let mut random = Random::new(24);
    let mut seen = Vec::new();
    for n in [1, 2, 5, 20] {
        for least in [1.0, 1e-3, 1e-7, 0.0, -1e-7, -1e-3] {
            let mut spectrum = vec![1.0; n];
            spectrum[0] = least;
            let a = random.symmetric(&spectrum).rounded::<f32>();
            let outcome = bounds::cholesky_outcome(f32_format(), &a);
            seen.push(outcome);
            match outcome {
                Outcome::Succeeds => assert!(cholesky(&a).is_some(), "n = {n}, {least}"),
                Outcome::Fails => assert!(cholesky(&a).is_none(), "n = {n}, {least}"),
                Outcome::Either => {}
            }
        }
    }
    for outcome in [Outcome::Succeeds, Outcome::Fails, Outcome::Either] {
        assert!(seen.contains(&outcome), "{outcome:?}");
    }
}

/// An ill-conditioned problem has no bound, rather than a wrong one.
#[test]
fn no_bound_beyond_the_condition() {
    let bound = bounds::inverse_residual(f32_format(), 1e4, 1e4, 10);
    assert_eq!(bound, f64::INFINITY);
    let bound = bounds::inverse_residual(f32_format(), f64::NAN, 1.0, 10);
    assert!(bound.is_nan(), "which nothing is below");
}

/// Whole steps in `f32` stay within the bounds carried by [`Approx`].
#[test]
fn whole_steps() {
    let exact = |m: &Dense| Approx::exact(m.clone(), f32_format());
    let inverse = |a: &Dense, lambda: f64| {
        let damped = a.damped(lambda).rounded::<f32>();
        let y = triangular_inverse(&cholesky(&damped).expect("definite"));
        product(&y.transpose(), &y)
    };
    let mut random = Random::new(25);
    let (x, e) = (random.normals(40, 8).rounded::<f32>(), random.normals(40, 5).rounded::<f32>());
    let u = random.normals(5, 8).rounded::<f32>();
    let moment = |m: &Dense| product(&m.transpose(), m).scaled(1.0 / 40.0).rounded::<f32>();
    let rounded_moment = |m: &Dense| rounded::second_moment(&exact(m), 40);
    let (a, b) = (moment(&x), moment(&e));
    rounded_moment(&x).assert_matches(&a, "A");
    for lambda in [1.0, 0.125] {
        let step = product(&u, &inverse(&a, lambda));
        rounded::foof_step(&exact(&u), &rounded_moment(&x), lambda).assert_matches(&step, "FOOF");
        let (lambda_a, lambda_b) = steps::heuristic_damping(&a, &b, lambda);
        let step = product(&inverse(&b, lambda_b), &product(&u, &inverse(&a, lambda_a)));
        let (a, b) = (rounded_moment(&x), rounded_moment(&e));
        rounded::kfac_heuristic_step(&exact(&u), &a, &b, lambda).assert_matches(&step, "K-FAC");
    }
}
