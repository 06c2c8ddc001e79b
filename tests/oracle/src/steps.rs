//! The preconditioned steps, each by a dense solve with the matrix that defines it.

use crate::Dense;

/// `m old + (1 - m) new`.
pub fn moving_average(old: &Dense, new: &Dense, m: f64) -> Dense {
    old.scaled(m).plus(&new.scaled(1.0 - m))
}

/// `1 / (1 - m^k)`: what a moving average that began at zero is multiplied by after `k` updates.
pub fn bias_correction(m: f64, k: u32) -> f64 {
    1.0 / (1.0 - m.powf(f64::from(k)))
}

/// `(lambda_A, lambda_B)` with `lambda_A lambda_B = lambda` and `lambda_A / lambda_B = (tr A / i) / (tr B / o)`;
/// both are `sqrt(lambda)` where a trace is zero.
pub fn heuristic_damping(a: &Dense, b: &Dense, lambda: f64) -> (f64, f64) {
    let (mean_a, mean_b) = (a.trace() / a.rows as f64, b.trace() / b.rows as f64);
    if mean_a == 0.0 || mean_b == 0.0 {
        return (lambda.sqrt(), lambda.sqrt());
    }
    let pi = (mean_a / mean_b).sqrt();
    (lambda.sqrt() * pi, lambda.sqrt() / pi)
}

/// FOOF: `dW = U (A + lambda I)^-1`.
pub fn foof_step(u: &Dense, a: &Dense, lambda: f64) -> Dense {
    a.damped(lambda).solve(&u.transpose()).transpose()
}

/// K-FAC: `dW = (B + lambda_B I)^-1 U (A + lambda_A I)^-1`.
pub fn kfac_step(u: &Dense, a: &Dense, b: &Dense, lambda_a: f64, lambda_b: f64) -> Dense {
    b.damped(lambda_b).solve(&foof_step(u, a, lambda_a))
}

/// K-FAC with heuristic damping.
pub fn kfac_heuristic_step(u: &Dense, a: &Dense, b: &Dense, lambda: f64) -> Dense {
    let (lambda_a, lambda_b) = heuristic_damping(a, b, lambda);
    kfac_step(u, a, b, lambda_a, lambda_b)
}

/// K-FAC with exact damping: `(B ⊗ A + lambda I) vec(dW) = vec(U)`, the Kronecker product formed.
pub fn kfac_exact_step(u: &Dense, a: &Dense, b: &Dense, lambda: f64) -> Dense {
    natural_gradient(&b.kron(a), &u.vec(), lambda).unvec(u.rows, u.cols)
}

/// EK-FAC: `(Q D Q^T + lambda I) vec(dW) = vec(U)` with `Q = Q_B ⊗ Q_A` formed and `D = diag(vec(moments))`.
///
/// For an orthogonal `Q` this is `Q_B ((Q_B^T U Q_A) / (moments + lambda)) Q_A^T`; with `moments = b a^T` it is
/// exact damping.
pub fn ekfac_step(u: &Dense, q_a: &Dense, q_b: &Dense, moments: &Dense, lambda: f64) -> Dense {
    let q = q_b.kron(q_a);
    let projected = q.transpose().matmul(&u.vec());
    let divided = projected.zip(&moments.vec(), |p, d| p / (d + lambda));
    q.matmul(&divided).unvec(u.rows, u.cols)
}

/// [`ekfac_step`] as it is computed, `Q_B ((Q_B^T U Q_A) / (moments + lambda)) Q_A^T`: for layers whose Kronecker
/// product would not fit in memory.
pub fn eigenbasis_step(u: &Dense, q_a: &Dense, q_b: &Dense, moments: &Dense, lambda: f64) -> Dense {
    let projected = q_b.transpose().matmul(u).matmul(q_a);
    let divided = projected.zip(moments, |p, d| p / (d + lambda));
    q_b.matmul(&divided).matmul(&q_a.transpose())
}

/// `b a^T`, `[o, i]`: the eigenvalues of `B ⊗ A` laid out like the weight.
pub fn kronecker_moments(a: &[f64], b: &[f64]) -> Dense {
    Dense::from_fn(b.len(), a.len(), |i, j| b[i] * a[j])
}

/// `(F + lambda I)^-1 u`: the damped natural gradient of any curvature matrix, `[P, 1]`.
pub fn natural_gradient(f: &Dense, u: &Dense, lambda: f64) -> Dense {
    f.damped(lambda).solve(u)
}
