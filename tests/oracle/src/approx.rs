//! Matrices that carry a bound on their rounding error in norm, for chains of operations too long for a bound by hand.
//!
//! An [`Approx`] of error `e` says: *any* floating-point evaluation of the same expression (whatever the order of its
//! sums) lies within `e` of the exact value in Frobenius norm, to first order in the unit roundoff. Our value is one such
//! evaluation, so another one is within `2 e` of it; [`Approx::assert_matches`] asserts just that. Each operation adds
//! what its operands' errors can do to what its own rounding can do.

use crate::bounds::{self, F64, Format};
use crate::{Dense, compare};

/// A value and how far any evaluation of it may be from exact.
#[derive(Clone, Debug)]
pub struct Approx {
    /// The value, computed in `f64`.
    pub value: Dense,
    /// Bound on the Frobenius distance of an evaluation from the exact value.
    pub error: f64,
    /// The format of the evaluations that are compared.
    pub format: Format,
}

/// A scalar with a bound on its absolute error.
#[derive(Clone, Copy, Debug)]
pub struct Scalar {
    /// The value.
    pub value: f64,
    /// Bound on the distance of an evaluation from the exact value.
    pub error: f64,
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self { value, error: 0.0 }
    }
}

impl Approx {
    /// A matrix that both evaluations start from, computations on it being carried out in `format`.
    pub fn exact(value: Dense, format: Format) -> Self {
        Self { value, error: 0.0, format }
    }

    /// [`Approx::exact`] for evaluations in `f64`.
    pub fn exact_f64(value: Dense) -> Self {
        Self::exact(value, F64)
    }

    /// The same with a known bound on its error.
    pub fn with_error(mut self, error: f64) -> Self {
        self.error = error;
        self
    }

    /// Asserts that another evaluation agrees: `|actual - value|_F <= 2 error`.
    #[track_caller]
    pub fn assert_matches(&self, actual: &Dense, what: &str) {
        compare::assert_close(actual, &self.value, 2.0 * self.error, what);
    }

    /// Bound on the Frobenius norm of any evaluation.
    pub fn norm(&self) -> f64 {
        self.value.frobenius() + self.error
    }

    /// Bound on the largest entry of any evaluation.
    pub fn max_abs(&self) -> f64 {
        self.value.max_abs() + self.error
    }

    fn derived(&self, value: Dense, error: f64) -> Self {
        Self { value, error, format: self.format }
    }

    /// Transpose.
    pub fn transpose(&self) -> Self {
        self.derived(self.value.transpose(), self.error)
    }

    /// The block of all rows and the first `cols` columns.
    pub fn left(&self, cols: usize) -> Self {
        self.derived(self.value.block(0..self.value.rows, 0..cols), self.error)
    }

    /// A constant 1 appended to each row.
    pub fn with_one(&self) -> Self {
        let ones = Dense::from_fn(self.value.rows, 1, |_, _| 1.0);
        self.derived(self.value.beside(&ones), self.error)
    }

    /// The same entries as `[rows, cols]`.
    pub fn unvec(&self, rows: usize, cols: usize) -> Self {
        self.derived(self.value.unvec(rows, cols), self.error)
    }

    /// The product: `gamma_k |A|_F |B|_F` (Higham (3.13) in norm).
    pub fn matmul(&self, rhs: &Self) -> Self {
        let (a, b) = (self.norm(), rhs.norm());
        let rounding = self.format.gamma(self.value.cols) * a * b;
        self.derived(self.value.matmul(&rhs.value), self.error * b + a * rhs.error + rounding)
    }

    /// Kronecker product: one rounding for each entry.
    pub fn kron(&self, rhs: &Self) -> Self {
        let (a, b) = (self.norm(), rhs.norm());
        let rounding = self.format.unit * a * b;
        self.derived(self.value.kron(&rhs.value), self.error * b + a * rhs.error + rounding)
    }

    /// Entrywise product.
    pub fn hadamard(&self, rhs: &Self) -> Self {
        let value = self.value.hadamard(&rhs.value);
        let propagated = self.error * rhs.max_abs() + self.max_abs() * rhs.error;
        let rounding = self.format.unit * (value.frobenius() + propagated);
        self.derived(value, propagated + rounding)
    }

    /// Sum.
    pub fn plus(&self, rhs: &Self) -> Self {
        let value = self.value.plus(&rhs.value);
        let propagated = self.error + rhs.error;
        let rounding = self.format.unit * (value.frobenius() + propagated);
        self.derived(value, propagated + rounding)
    }

    /// The mean of several: a sum of `n` terms and a division, `gamma_n sum |A_k|_F / n`.
    pub fn mean(terms: &[Self]) -> Self {
        let (first, rest) = terms.split_first().expect("at least one term");
        let n = terms.len() as f64;
        let value = rest.iter().fold(first.value.clone(), |sum, term| sum.plus(&term.value)).scaled(1.0 / n);
        let propagated: f64 = terms.iter().map(|t| t.error).sum();
        let norms: f64 = terms.iter().map(Self::norm).sum();
        // One more rounding than a division for those who multiply by a rounded 1/n.
        let rounding = first.format.gamma(terms.len() + 1) * norms;
        first.derived(value, (propagated + rounding) / n)
    }

    /// `factor * self`, the factor rounded once by whoever computes it, multiplied once.
    pub fn scaled(&self, factor: f64) -> Self {
        let rounding = self.format.gamma(2) * self.norm();
        self.derived(self.value.scaled(factor), factor.abs() * (self.error + rounding))
    }

    /// `self / (moments + lambda)` entrywise, `moments` non-negative: the quotient moves by at most
    /// `e_self / lambda + |self|_max e_moments / lambda^2`, and two operations round.
    pub fn divided_by_damped(&self, moments: &Self, lambda: f64) -> Self {
        let value = self.value.zip(&moments.value, |p, d| p / (d + lambda));
        let propagated = self.error / lambda + self.max_abs() * moments.error / (lambda * lambda);
        let rounding = self.format.gamma(2) * (value.frobenius() + propagated);
        self.derived(value, propagated + rounding)
    }

    /// The trace: `|tr dA| <= sqrt(n) |dA|_F`, and `gamma_n` of the absolute diagonal.
    pub fn trace(&self) -> Scalar {
        let n = self.value.rows;
        let diagonal: f64 = self.value.diag().iter().map(|v| v.abs()).sum();
        let propagated = (n as f64).sqrt() * self.error;
        Scalar { value: self.value.trace(), error: propagated + self.format.gamma(n) * (diagonal + propagated) }
    }

    /// `(A + lambda I)^-1` of a positive semidefinite `A`, `lambda > 0`, by LU or by Cholesky, with or without forming the
    /// inverse (a product with this value bounds a solve too).
    ///
    /// With `M` the rounded sum, `|M - (A + lambda I)| <= d = e_A + sqrt(n) (e_lambda + u |M|_max)` and
    /// `|M^-1|_2 <= 1 / (lambda - d)`. A computed inverse with residual `R` is off by `|R| |M^-1|`, and `M^-1` itself by
    /// `d |M^-1| / lambda`. By LU `|R| <= gamma_(3n+4) | |X||L||U| |_F` (Higham section 14.3.2: `n + 1` for the
    /// inverse of `U`, `n` for the solve with `L`, `n` for the factors, rounded up); by Cholesky
    /// [`bounds::inverse_residual`] with the roundings of a blocked [`bounds::sweep`]. The larger is taken.
    pub fn damped_inverse(&self, lambda: impl Into<Scalar>) -> Self {
        let Scalar { value: lambda, error: lambda_error } = lambda.into();
        let n = self.value.rows;
        let matrix = self.value.damped(lambda);
        let lu = matrix.lu();
        let value = lu.solve(&Dense::identity(n));
        let by_lu = value.abs().matmul(&lu.l.abs()).matmul(&lu.u.abs());
        let by_lu = self.format.gamma(3 * n + 4) * by_lu.frobenius();
        let (trace, trace_inverse) = (matrix.trace(), value.trace());
        let by_cholesky = bounds::inverse_residual(self.format, trace, trace_inverse, bounds::sweep(n));
        let shift = self.error + (n as f64).sqrt() * (lambda_error + self.format.unit * matrix.max_abs());
        assert!(shift < lambda, "the error exceeds the damping");
        let inverse_norm = 1.0 / (lambda - shift);
        let error = inverse_norm * (by_lu.max(by_cholesky) + shift / lambda);
        self.derived(value, error)
    }
}
