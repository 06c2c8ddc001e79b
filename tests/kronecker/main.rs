//! Preconditioned products against the dense oracles: FOOF, K-FAC, exact damping and EK-FAC; the gradient as a matrix and
//! low-rank, factors as inverses and as Cholesky factors; and end to end against PyTorch's vectors.

mod exact;
mod golden;
mod problem;
mod reals;

use foof_oracle::Dense;
use foof_oracle::bounds::Format;

fn with_one(x: &Dense, columns: usize) -> Dense {
    x.beside(&Dense::from_fn(x.rows, columns, |_, _| 1.0))
}

/// How far computed eigenvectors are from an orthogonal matrix in norm, and the decomposed matrix from `A`, relative to `|A|`:
/// `bounds::eigenvalue_error`, for any format.
fn eigen_errors(format: Format, n: usize) -> (f64, f64) {
    let relative = 2.0 * n as f64 * format.gamma(10 * n);
    ((n as f64).sqrt() * relative, relative)
}
