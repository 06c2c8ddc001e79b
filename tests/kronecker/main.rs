//! Preconditioned products against the dense oracles: FOOF, K-FAC, exact damping and EK-FAC; the gradient as a matrix and
//! low-rank, factors as inverses and as Cholesky factors; and end to end against PyTorch's vectors.

mod given;
mod golden;

use foof_oracle::Dense;
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, Format};

fn with_one(x: &Dense, columns: usize) -> Dense {
    x.beside(&Dense::from_fn(x.rows, columns, |_, _| 1.0))
}

/// `(A + lambda I)^-1`, as a kernel finds it whose sweeps round products too.
fn inverse_of(a: &Approx, lambda: f64) -> Approx {
    let eigenvalues: Vec<f64> = a.value.damped(lambda).symmetric_eigen().values;
    let rounding = bounds::inverse_error(a.format, &eigenvalues, 2 * a.value.rows + 4);
    // A moves by its error, its damped inverse by that over lambda squared at most.
    let moved = a.error / (lambda * (lambda - a.error));
    Approx::exact(a.value.damped(lambda).inverse(), a.format).with_error(rounding + moved)
}

/// How far computed eigenvectors are from an orthogonal matrix in norm, and the decomposed matrix from `A`, relative to `|A|`:
/// `bounds::eigenvalue_error`, for any format.
fn eigen_errors(format: Format, n: usize) -> (f64, f64) {
    let relative = 2.0 * n as f64 * format.gamma(10 * n);
    ((n as f64).sqrt() * relative, relative)
}
