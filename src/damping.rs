//! How the damping of a Kronecker product is split between its factors.

use crate::error::check_parameter;
use crate::{Element, Error, MatRef};

/// `tr A` of the leading square of `a`.
pub fn trace<T: Element>(a: MatRef<'_, T>) -> T {
    (0..a.rows().min(a.cols())).map(|i| a.at([i, i])).sum()
}

/// K-FAC's heuristic (Martens & Grosse 2015, section 6.3; Benzing 2022, equations 2 and 4): `(lambda_A, lambda_B)` with
/// `lambda_A lambda_B = lambda` and `lambda_A / lambda_B = (tr A / i) / (tr B / o)`, for `mean_a = tr A / i`, `mean_b = tr B / o`.
/// Where a trace is zero, both are `sqrt(lambda)`.
///
/// # Errors
/// [`Error::Parameter`] for damping that is not positive and finite, or traces that are negative or not finite.
pub fn heuristic<T: Element>(mean_a: T, mean_b: T, damping: T) -> Result<(T, T), Error> {
    let positive = damping > T::zero() && damping.is_finite();
    check_parameter("damping", damping.to_f64(), positive, "a positive finite number")?;
    for (name, value) in [("mean_a", mean_a), ("mean_b", mean_b)] {
        check_parameter(
            name,
            value.to_f64(),
            value >= T::zero() && value.is_finite(),
            "a finite number, not negative",
        )?;
    }
    let root = damping.sqrt();
    if mean_a == T::zero() || mean_b == T::zero() {
        return Ok((root, root));
    }
    // Roots before the quotient: the quotient of tiny or huge traces may leave the range.
    let ratio = mean_a.sqrt() / mean_b.sqrt();
    Ok((root * ratio, root / ratio))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        assert_eq!(heuristic(16.0, 1.0, 9.0), Ok((12.0, 0.75)));
        assert_eq!(heuristic(0.0, 1.0, 9.0), Ok((3.0, 3.0)));
        assert!(heuristic(1.0, 1.0, 0.0).is_err() && heuristic(1.0, f64::NAN, 1.0).is_err());
    }
}
