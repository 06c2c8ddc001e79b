//! Certificates: never below the residual, and above it where an entry is wrong.

use crate::inverse;
use foof::inverse::{Certificate, Check, residual_certificate_alloc};
use foof::{Element, Par, Triangle};
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};

const DAMPING: f64 = 0.25;

fn certify<T: Element>(a: &Dense, x: &Dense, triangle: Triangle, method: Check, par: Par) -> Certificate {
    let (a, x) = (Buffer::<T, 2>::matrix(a, Layout::RowMajor), Buffer::<T, 2>::matrix(x, Layout::RowMajor));
    let (scale, damping) = (T::from_f64(0.5), T::from_f64(DAMPING));
    residual_certificate_alloc(a.view(), scale, damping, x.view(), triangle, method, par).expect("finite")
}

/// `|M X - I|_2` in `f64`, less what that computation may have added: the product's rounding and the eigensolver's.
fn residual(a: &Dense, x: &Dense) -> f64 {
    let n = a.rows;
    let m = a.scaled(0.5).damped(DAMPING);
    let r = m.matmul(x).minus(&Dense::identity(n));
    let square = r.transpose().matmul(&r);
    let largest = square.symmetric_eigen().values.last().copied().unwrap_or(0.0);
    let off = bounds::eigenvalue_error(&square) + F64.gamma(n) * r.frobenius().powi(2);
    (largest - off).max(0.0).sqrt() - F64.gamma(n + 3) * m.frobenius() * x.frobenius()
}

fn never_below_the_residual<T: Element>() {
    let mut random = Random::new(51);
    for n in [0, 1, 2, 15, 33, 64, 80] {
        for condition in [1.0, 1e3, 1e8] {
            let a = random.symmetric(&log_spectrum(n, condition)).rounded::<T>();
            for par in isas() {
                let half = a.scaled(0.5);
                let x = inverse::<T>(&half, T::from_f64(DAMPING), par).expect("definite").0;
                // Also what is no inverse at all.
                for x in [x, random.normals(n, n).rounded::<T>()] {
                    let symmetric = Dense::from_fn(n, n, |i, j| x[(i.max(j), i.min(j))]);
                    for (triangle, seen) in [(Triangle::Full, &x), (Triangle::Lower, &symmetric)] {
                        let truth = residual(&a, seen);
                        let full = certify::<T>(&a, &x, triangle, Check::Full, par);
                        assert_eq!(full.failure_probability, 0.0);
                        assert!(full.residual >= truth, "{par:?} n = {n}: {full:?} below {truth:e}");
                        // 10^-16 is beyond what any run will see.
                        let random = certify::<T>(&a, &x, triangle, Check::Random { vectors: 16, seed: 7 }, par);
                        assert_eq!(random.failure_probability, 1e-16);
                        assert!(random.residual >= truth, "{par:?} n = {n}: {random:?} below {truth:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn never_below_the_residual_f32() {
    never_below_the_residual::<f32>();
}

#[test]
fn never_below_the_residual_f64() {
    never_below_the_residual::<f64>();
}

/// A good inverse is certified as such: the residual's own bound, for the norm of a whole row or column instead (at most `n^(1/2)` times), and
/// the certificate's rounding, are below one.
#[test]
fn a_good_inverse_is_certified() {
    let mut random = Random::new(52);
    for n in [1, 20, 100] {
        let a = random.symmetric(&log_spectrum(n, 10.0)).rounded::<f64>();
        let m = a.scaled(0.5).damped(DAMPING);
        let (trace, trace_inverse) = (m.trace(), m.inverse().trace());
        let format = Format::of::<f64>();
        let own = format.gamma(2 * n + 10) * m.frobenius() * (trace_inverse + 1.0) * n as f64;
        let bound = (n as f64).sqrt() * bounds::inverse_residual(format, trace, trace_inverse, bounds::sweep(n)) + own;
        assert!(bound < 1.0, "the bound says something: {bound:e}");
        for par in isas() {
            let x = inverse::<f64>(&a.scaled(0.5), DAMPING, par).expect("definite").0;
            let full = certify::<f64>(&a, &x, Triangle::Full, Check::Full, par);
            assert!(full.residual <= bound, "{par:?} n = {n}: {full:?}, bound {bound:e}");
            // Every normal number drawn from ChaCha8 is below 10: |R w| <= 10 n^(1/2) |R|.
            let random = certify::<f64>(&a, &x, Triangle::Full, Check::Random { vectors: 4, seed: 3 }, par);
            assert!(
                random.residual <= 80.0 * (n as f64).sqrt() * bound,
                "{par:?} n = {n}: {random:?}, bound {bound:e}"
            );
        }
    }
}

/// One entry that is off by `e` makes a residual of `e |M e_i|`: both certificates show it, and rounding does not hide it.
#[test]
fn a_wrong_entry_is_seen() {
    let mut random = Random::new(53);
    let n = 50;
    let a = random.symmetric(&log_spectrum(n, 10.0)).rounded::<f32>();
    let x = inverse::<f32>(&a.scaled(0.5), DAMPING as f32, Par::seq()).expect("definite").0;
    let methods = [Check::Full, Check::Random { vectors: 3, seed: 9 }];
    for method in methods {
        let good = certify::<f32>(&a, &x, Triangle::Full, method, Par::seq()).residual;
        assert!(good < 0.01, "{method:?}: {good:e}");
        for (i, j) in [(0, 0), (0, 49), (49, 0), (31, 32), (49, 49), (17, 40)] {
            let mut wrong = x.clone();
            wrong[(i, j)] += 0.5;
            let seen = certify::<f32>(&a, &wrong, Triangle::Full, method, Par::seq()).residual;
            assert!(seen >= residual(&a, &wrong) && seen > 10.0 * good, "{method:?} ({i}, {j}): {seen:e}");
        }
    }
}

/// With one vector the bound `10 (2/pi)^(1/2) |R w|` may fail with probability 1/10. For `R` of rank one it fails as often as a normal number
/// is below `1 / (10 (2/pi)^(1/2))`: with probability 0.0997. Over 2000 seeds the count is binomial, within six deviations of its mean.
#[test]
fn the_stated_probability_is_that_of_rank_one() {
    let n = 12;
    let mut random = Random::new(54);
    // M = I: X = I + e_0 v^T leaves the residual e_0 v^T.
    let zero = Dense::zeros(n, n);
    let (v, first) = (random.normals(n, 1), Dense::from_fn(n, 1, |i, _| f64::from(u8::from(i == 0))));
    let x = Dense::identity(n).plus(&first.matmul(&v.transpose()));
    let (a, x) = (Buffer::<f64, 2>::matrix(&zero, Layout::RowMajor), Buffer::<f64, 2>::matrix(&x, Layout::RowMajor));
    let truth = v.frobenius();
    let mut fails = 0;
    for seed in 0..2000 {
        let method = Check::Random { vectors: 1, seed };
        let certificate = residual_certificate_alloc(a.view(), 1.0, 1.0, x.view(), Triangle::Full, method, Par::seq())
            .expect("finite");
        assert_eq!(certificate.failure_probability, 0.1);
        fails += usize::from(certificate.residual < truth);
    }
    let (mean, deviation) = (2000.0 * 0.0997, (2000.0 * 0.0997 * 0.9003f64).sqrt());
    assert!((fails as f64 - mean).abs() <= 6.0 * deviation, "{fails} of 2000 fail, {mean} +- {deviation}");
}

#[test]
fn threads_change_no_bit_of_a_certificate() {
    let mut random = Random::new(55);
    let a = random.symmetric(&log_spectrum(150, 10.0)).rounded::<f32>();
    let x = inverse::<f32>(&a.scaled(0.5), DAMPING as f32, Par::seq()).expect("definite").0;
    for_every_par("certificate", |par| {
        let methods = [Check::Full, Check::Random { vectors: 5, seed: 9 }];
        methods.map(|method| certify::<f32>(&a, &x, Triangle::Full, method, par).residual).to_vec()
    });
}

/// What overflows is infinite, not an error and never small.
#[test]
fn an_overflowing_residual_is_infinite() {
    let huge = Dense::identity(3).scaled(1e30);
    for method in [Check::Full, Check::Random { vectors: 2, seed: 9 }] {
        let certificate = certify::<f32>(&huge, &huge, Triangle::Full, method, Par::seq());
        assert_eq!(certificate.residual, f64::INFINITY, "{method:?}");
    }
}
