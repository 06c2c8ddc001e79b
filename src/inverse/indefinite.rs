//! What is done where a damped matrix is not positive definite.

use crate::eigen::check_finite_lower;
use crate::error::check_parameter;
use crate::{Element, Error, MatRef};
use foof_kernels::cholesky::Pivot;

/// What is done where a pivot is not positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Indefinite {
    /// The error names the pivot.
    #[default]
    Error,
    /// The damping, which must be positive, is multiplied by 10 until the factorisation succeeds: the result is that of the smallest
    /// `damping * 10^k` that succeeds in the element type's own precision, and that damping is returned.
    RaiseDamping,
}

/// The damping of a matrix, and what is done where it is too small. A number is that damping, with [`Indefinite::Error`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Damping<T> {
    /// `lambda`, finite and not negative.
    pub lambda: T,
    /// What is done if the matrix damped by it is not positive definite.
    pub indefinite: Indefinite,
}

impl<T: Element> From<T> for Damping<T> {
    fn from(lambda: T) -> Self {
        Damping { lambda, indefinite: Indefinite::Error }
    }
}

impl<T: Element> Damping<T> {
    /// [`Indefinite::RaiseDamping`] from `lambda` on.
    pub fn raised_from(lambda: T) -> Self {
        Damping { lambda, indefinite: Indefinite::RaiseDamping }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        let Damping { lambda, indefinite } = self;
        let (least, expected) = match indefinite {
            Indefinite::Error => (lambda >= T::zero(), "a finite number, not negative"),
            Indefinite::RaiseDamping => (lambda > T::zero(), "a positive finite number"),
        };
        check_parameter("damping", lambda.to_f64(), least && lambda.is_finite(), expected)
    }

    /// Calls `factor` with the damping, and under [`Indefinite::RaiseDamping`] with larger ones, until it succeeds; returns the damping
    /// that did. A matrix is looked at only where a pivot failed.
    pub(super) fn attempt(
        self,
        a: MatRef<'_, T>,
        scale: T,
        mut factor: impl FnMut(T) -> Result<(), Pivot<T>>,
    ) -> Result<T, Error> {
        let mut lambda = self.lambda;
        loop {
            let Err(pivot) = factor(lambda) else { return Ok(lambda) };
            if lambda == self.lambda {
                // NaN and infinity always reach a pivot: a row's entries are subtracted from its own, squared.
                check_finite_lower("a", a, scale)?;
            }
            match self.indefinite {
                Indefinite::Error => return Err(Error::pivot(pivot)),
                Indefinite::RaiseDamping => lambda = next(a, scale, lambda).ok_or_else(|| Error::pivot(pivot))?,
            }
        }
    }
}

/// The next damping that may succeed, if it is finite. A pivot is its damped diagonal entry less a sum of squares, and rounding is monotone:
/// where that entry is not positive, nothing need be factored to know that it fails.
fn next<T: Element>(a: MatRef<'_, T>, scale: T, mut lambda: T) -> Option<T> {
    let least = (0..a.rows()).map(|i| scale * a.at([i, i])).fold(T::infinity(), T::min);
    loop {
        lambda *= T::from_f64(10.0);
        if !lambda.is_finite() {
            return None;
        }
        if least + lambda > T::zero() {
            return Some(lambda);
        }
    }
}
