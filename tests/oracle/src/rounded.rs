//! The formulas of [`crate::fisher`] and [`crate::steps`] once more, on [`Approx`]: what any evaluation of them in
//! floating point can be off by. The values agree with the plain ones up to that.

use crate::approx::{Approx, Scalar};
use crate::bounds;

/// `(1/N) G^T G` of the rows of `g`, also `A` of `X` and `B` of `E` for a dense layer.
pub fn second_moment(g: &Approx, datapoints: usize) -> Approx {
    g.transpose().matmul(g).scaled(1.0 / datapoints as f64)
}

/// [`crate::steps::moving_average`].
pub fn moving_average(old: &Approx, new: &Approx, m: f64) -> Approx {
    old.scaled(m).plus(&new.scaled(1.0 - m))
}

/// [`crate::steps::heuristic_damping`] of factors whose traces are not zero.
///
/// The relative error of each damping is at most half the sum of the traces' relative errors (a square root halves
/// them), taken whole to cover higher orders, and six roundings: two divisions, a quotient, two roots, a product.
pub fn heuristic_damping(a: &Approx, b: &Approx, lambda: f64) -> (Scalar, Scalar) {
    let relative = |m: &Approx| m.trace().error / m.trace().value;
    let relative = relative(a) + relative(b) + a.format.gamma(6);
    let damping = |value| Scalar { value, error: relative * value };
    let (lambda_a, lambda_b) = crate::steps::heuristic_damping(&a.value, &b.value, lambda);
    (damping(lambda_a), damping(lambda_b))
}

/// [`crate::steps::foof_step`].
pub fn foof_step(u: &Approx, a: &Approx, lambda: f64) -> Approx {
    u.matmul(&a.damped_inverse(lambda))
}

/// [`crate::steps::kfac_heuristic_step`].
pub fn kfac_heuristic_step(u: &Approx, a: &Approx, b: &Approx, lambda: f64) -> Approx {
    let (lambda_a, lambda_b) = heuristic_damping(a, b, lambda);
    b.damped_inverse(lambda_b).matmul(u).matmul(&a.damped_inverse(lambda_a))
}

/// [`crate::steps::kfac_exact_step`].
pub fn kfac_exact_step(u: &Approx, a: &Approx, b: &Approx, lambda: f64) -> Approx {
    let (rows, cols) = (u.value.rows, u.value.cols);
    natural_gradient(&b.kron(a), &u.unvec(rows * cols, 1), lambda).unvec(rows, cols)
}

/// [`crate::steps::natural_gradient`].
pub fn natural_gradient(f: &Approx, u: &Approx, lambda: f64) -> Approx {
    f.damped_inverse(lambda).matmul(u)
}

/// [`crate::steps::ekfac_step`] with [`crate::fisher::eigenbasis_moments`] of the datapoints' gradients `g[n]`.
pub fn ekfac_step(u: &Approx, q_a: &Approx, q_b: &Approx, g: &[Approx], lambda: f64) -> Approx {
    let projected = |u: &Approx| q_b.transpose().matmul(u).matmul(q_a);
    let squares: Vec<Approx> = g.iter().map(|g| projected(g).hadamard(&projected(g))).collect();
    let divided = projected(u).divided_by_damped(&Approx::mean(&squares), lambda);
    q_b.matmul(&divided).matmul(&q_a.transpose())
}

/// Eigenvectors of a positive semidefinite matrix, as far as they are determined.
///
/// A computed eigendecomposition is that of a matrix within `d` of the exact one: the factor's own error and
/// [`bounds::eigenvalue_error`]. An eigenvector separated by a gap then moves by at most `2^(3/2) d / gap`, up to its sign;
/// so does the subspace of a cluster, up to a rotation inside it (Davis and Kahan; Yu, Wang and Samworth 2015, Theorem 2).
/// Eigenvalues within `2 d` of each other are one cluster. Only the null space may be one, for there a rotation changes
/// nothing that EK-FAC computes: no gradient has a component in it.
pub fn eigenvectors(a: &Approx) -> Approx {
    let eigen = a.value.symmetric_eigen();
    let d = a.error + bounds::eigenvalue_error(&a.value);
    let values = &eigen.values;
    let n = values.len();
    let null = values.iter().take_while(|&&v| v <= 2.0 * d).count();
    let gap = |k: usize| {
        let below = if k < null {
            f64::INFINITY
        } else {
            values[k] - k.checked_sub(1).map_or(f64::NEG_INFINITY, |j| values[j])
        };
        let next = if k < null { null } else { k + 1 };
        let above = values.get(next).map_or(f64::INFINITY, |v| v - values[k]);
        below.min(above)
    };
    let moved: f64 = (0..n)
        .map(|k| {
            assert!(gap(k) > 2.0 * d, "eigenvalue {k} of {values:?} is clustered");
            (8.0_f64.sqrt() * d / gap(k)).powi(2)
        })
        .sum();
    Approx::exact(eigen.vectors, a.format).with_error(moved.sqrt())
}
