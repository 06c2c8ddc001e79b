//! Which matrices have a factor: Higham's Theorem 10.7, at every pivot; what a raised damping is.

use crate::{factor, inverse};
use foof::inverse::Damping;
use foof::{Element, Error};
use foof_oracle::bounds::{self, F64, Format, Outcome};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random};

/// `A` agrees with `L L^T` up to the bound, or the theorem allows that there is no `L`.
fn decided<T: Element>(a: &Dense, what: &str) -> Outcome {
    let format = Format::of::<T>();
    let (n, outcome) = (a.rows, bounds::cholesky_outcome(format, a));
    for par in isas() {
        match (outcome, factor::<T>(a, T::zero(), par)) {
            (Outcome::Succeeds | Outcome::Either, Ok((l, _))) => {
                // n + 3: the portable path rounds each product too, and a sum may be cut in two.
                let bound = bounds::cholesky(format, &l, a);
                let slack = (format.gamma(n + 3) + F64.gamma(n)) / format.gamma(n + 1);
                assert_within(&l.matmul(&l.transpose()), a, &bound.scaled(slack), &format!("{par:?}: {what}"));
            }
            (Outcome::Fails | Outcome::Either, Err(Error::NotPositiveDefinite { layer: None, pivot, value })) => {
                assert!(pivot < n && (value <= 0.0 || !value.is_finite()), "{par:?}: {what}: pivot {pivot} is {value}");
            }
            (outcome, result) => panic!("{par:?}: {what}: {outcome:?}, but {result:?}"),
        }
    }
    outcome
}

/// Condition numbers from 1 past `1/u`, singular and indefinite ones; both certain outcomes occur.
fn spectra<T: Element>() {
    let mut random = Random::new(21);
    let u = T::UNIT_ROUNDOFF.to_f64();
    let (mut succeeded, mut failed) = (0, 0);
    for n in [1, 2, 5, 31, 32, 33, 64, 65, 90] {
        for power in 0..=8 {
            let condition = u.powf(-f64::from(power) / 8.0);
            let outcome = decided::<T>(&random.symmetric(&log_spectrum(n, condition)).rounded::<T>(), "spectrum");
            succeeded += usize::from(outcome == Outcome::Succeeds);
        }
        for least in [0.0, -u, -1e-3, -0.5] {
            let mut spectrum = log_spectrum(n, 10.0);
            spectrum[n - 1] = least;
            let outcome = decided::<T>(&random.symmetric(&spectrum).rounded::<T>(), "indefinite");
            failed += usize::from(outcome == Outcome::Fails);
        }
    }
    assert!(succeeded >= 30 && failed >= 9, "{succeeded} must succeed, {failed} must fail");
}

#[test]
fn spectra_f32() {
    spectra::<f32>();
}

#[test]
fn spectra_f64() {
    spectra::<f64>();
}

/// Dense matrices `L D L^T` with one negative, zero or tiny pivot, at every position: integers, so that the pivot's value is exact.
#[test]
fn every_pivot_is_found_and_valued() {
    let mut random = Random::new(22);
    for n in [1, 2, 3, 31, 32, 33, 63, 64, 65, 97, 130] {
        for at in (0..n).step_by(if n > 65 { 3 } else { 1 }) {
            // Few entries below the diagonal, so that sums stay exact in f32.
            let l = Dense::from_fn(n, n, |i, j| match i.cmp(&j) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Greater => random.integer(1),
            });
            for pivot in [-3.0, 0.0, 4.0] {
                let mut d = vec![1.0; n];
                d[at] = pivot;
                let a = l.matmul(&Dense::diagonal(&d)).matmul(&l.transpose());
                for par in isas() {
                    let result = factor::<f32>(&a, 0.0, par).map(|(l, _)| l);
                    if pivot > 0.0 {
                        let root = Dense::diagonal(&d.iter().map(|d| d.sqrt()).collect::<Vec<_>>());
                        assert_exact(&result.expect("definite"), &l.matmul(&root), "factor");
                    } else {
                        let error = Error::NotPositiveDefinite { layer: None, pivot: at, value: pivot };
                        assert_eq!(result, Err(error), "{par:?} n = {n}");
                    }
                }
            }
        }
    }
}

/// Indefinite by one negative eigenvalue among the first `k + 1` rows, the others being definite: decided by the theorem.
#[test]
fn indefinite_leading_blocks_are_decided_by_the_theorem() {
    let mut random = Random::new(23);
    let mut failed = 0;
    for n in [4, 33, 48] {
        for k in 0..n {
            let mut spectrum = vec![1.0; k + 1];
            spectrum[0] = -0.01;
            let leading = random.symmetric(&spectrum);
            let a = Dense::from_fn(n, n, |i, j| match i.max(j) <= k {
                true => leading[(i, j)],
                false => f64::from(u8::from(i == j)),
            });
            let a = a.rounded::<f32>();
            let outcome = decided::<f32>(&a, &format!("n = {n}, k = {k}"));
            failed += usize::from(outcome == Outcome::Fails);
            if outcome == Outcome::Fails {
                for par in isas() {
                    let error = factor::<f32>(&a, 0.0, par).expect_err("fails");
                    let Error::NotPositiveDefinite { pivot, .. } = error else { panic!("{error}") };
                    assert!(pivot <= k, "{par:?}: the leading {k} and one rows are at fault, not {pivot}");
                }
            }
        }
    }
    assert!(failed > 40, "{failed} must fail");
}

/// At the ends of the range: `4^k A` has the root `2^k L` and the inverse `4^-k X` to the bit while nothing underflows; where entries are
/// subnormal, each is off by at most half a spacing and the factor's bound grows by as much.
#[test]
fn huge_and_tiny_scales() {
    let mut random = Random::new(24);
    for n in [1, 9, 40, 100] {
        let a = random.symmetric(&log_spectrum(n, 30.0)).rounded::<f32>();
        for par in isas() {
            let (l, _) = factor::<f32>(&a, 0.0, par).expect("definite");
            let (x, _) = inverse::<f32>(&a, 0.0, par).expect("definite");
            for power in [-30, 30, 62] {
                let scale = 4f64.powi(power);
                let (scaled, _) = factor::<f32>(&a.scaled(scale), 0.0, par).expect("definite");
                assert_exact(&scaled, &l.scaled(2f64.powi(power)), &format!("{par:?} n = {n}, 4^{power}"));
                if power < 50 {
                    let (scaled, _) = inverse::<f32>(&a.scaled(scale), 0.0, par).expect("definite");
                    assert_exact(&scaled, &x.scaled(1.0 / scale), &format!("{par:?} n = {n}, 4^{power}"));
                }
            }
            let tiny = a.scaled(2f64.powi(-134)).rounded::<f32>();
            let (l, _) = factor::<f32>(&tiny, 0.0, par).expect("definite");
            let format = Format::of::<f32>();
            let bound = bounds::cholesky(format, &l, &tiny);
            let slack = (format.gamma(n + 3) + F64.gamma(n)) / format.gamma(n + 1);
            let bound = bound.scaled(slack).map(|bound| bound + 2.0 * n as f64 * format.tiny);
            assert_within(&l.matmul(&l.transpose()), &tiny, &bound, &format!("{par:?} n = {n}: subnormal"));
        }
    }
}

/// The damping returned is `lambda 10^k`; the same call with a tenth of it fails, and the result is that of it alone.
#[test]
fn the_smallest_damping_that_succeeds() {
    let mut random = Random::new(25);
    let mut raised = 0;
    for n in [1, 3, 32, 50] {
        for least in [1.0, -1e-4, -0.03, -2.0, -700.0] {
            let mut spectrum = log_spectrum(n, 10.0);
            spectrum[n - 1] = least;
            let a = random.symmetric(&spectrum).rounded::<f32>();
            for par in isas() {
                let (x, used) = inverse::<f32>(&a, Damping::raised_from(1e-3), par).expect("some damping succeeds");
                let (l, used_by_factor) = factor::<f32>(&a, Damping::raised_from(1e-3), par).expect("some damping");
                assert_eq!(used, used_by_factor);
                assert_exact(&x, &inverse::<f32>(&a, used, par).expect("that damping").0, "the inverse with it");
                assert_exact(&l, &factor::<f32>(&a, used, par).expect("that damping").0, "the factor with it");
                let (mut lambda, mut k) = (1e-3f32, 0);
                while factor::<f32>(&a, lambda, par).is_err() {
                    lambda *= 10.0;
                    k += 1;
                }
                assert_eq!(used, lambda, "{par:?} n = {n}, least eigenvalue {least}: after {k}");
                raised += k;
            }
        }
    }
    assert!(raised > 0, "some were raised");
}
