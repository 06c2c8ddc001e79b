//! The determinant and quadratic forms, from the factor.

use crate::factor;
use foof::inverse::{inverse_quadratic_form_alloc, inverse_quadratic_forms_alloc, log_det};
use foof::{Element, Par};
use foof_oracle::bounds::{F64, Format};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};

/// `2 sum log l_ii` in `f64` for the same factor. Each logarithm is within an ulp, `2 u`, in the system's library (glibc's manual, "Errors
/// in Math Functions"); up to `n` additions follow; the last doubling is exact.
fn log_dets<T: Element>() {
    let mut random = Random::new(31);
    let format = Format::of::<T>();
    for n in (0..=40).chain([64, 100, 130]) {
        for scale in [1e-30, 1.0, 1e30] {
            let a = random.symmetric(&log_spectrum(n, 100.0)).scaled(scale).rounded::<T>();
            let (l, _) = factor::<T>(&a, T::zero(), Par::seq()).expect("definite");
            let logs: Vec<f64> = l.diag().iter().map(|l| l.ln()).collect();
            let magnitude = 2.0 * logs.iter().map(|log| log.abs()).sum::<f64>();
            let got = log_det(Buffer::<T, 2>::matrix(&l, Layout::RowMajor).view()).expect("a factor").to_f64();
            let bound = (format.gamma(n + 2) + F64.gamma(n + 2)) * magnitude;
            let off = (got - 2.0 * logs.iter().sum::<f64>()).abs();
            assert!(off <= bound, "n = {n}, scale {scale:e}: off by {off:e}, bound {bound:e}");
        }
    }
}

#[test]
fn log_determinants() {
    log_dets::<f32>();
    log_dets::<f64>();
    // det [[4, 2], [2, 5]] = 16, L = [[2, 0], [1, 2]].
    let l = Dense::from_rows(&[[2.0, 0.0], [1.0, 2.0]]);
    let got = log_det(Buffer::<f64, 2>::matrix(&l, Layout::ColumnMajor).view()).expect("a factor");
    assert!((got - 16f64.ln()).abs() <= 8.0 * f64::EPSILON, "{got}");
}

/// `|y|²` with `L y = x`: the computed `y` has `(L + dL) y = x`, `|dL| <= gamma_2n |L|` with products rounded too (Higham, Theorem 8.5), so
/// `|y - y*| <= g |L^-1||L||y|`, here in norm; the sum of squares adds `gamma_n |y|²`.
fn forms<T: Element>() {
    let mut random = Random::new(32);
    let format = Format::of::<T>();
    for (n, m) in [(1, 1), (7, 3), (32, 40), (33, 300), (65, 5), (130, 17)] {
        let a = random.symmetric(&log_spectrum(n, 30.0)).rounded::<T>();
        let x = random.normals(m, n).rounded::<T>();
        for par in isas() {
            let (l, _) = factor::<T>(&a, T::zero(), par).expect("definite");
            let y = l.solve(&x.transpose());
            let inverse = l.inverse().frobenius();
            let grown = format.gamma(2 * n) * inverse * l.frobenius();
            assert!(grown < 0.5, "the bound says something: {grown}");
            let (l_view, x_view) =
                (Buffer::<T, 2>::matrix(&l, Layout::RowMajor), Buffer::matrix(&x, Layout::ColumnMajor));
            let mut got = vec![T::nan(); m];
            inverse_quadratic_forms_alloc(&mut got, l_view.view(), x_view.view(), par).expect("shapes agree");
            for (k, &got) in got.iter().enumerate() {
                let size: f64 = (0..n).map(|i| y[(i, k)].powi(2)).sum();
                // |y| grows by 1 / (1 - grown) at most, and is off by grown of that; likewise the oracle in f64.
                let off = grown / (1.0 - grown) + F64.gamma(4 * n * n) * inverse * l.frobenius();
                let bound = size * ((1.0 + off).powi(2) * (1.0 + format.gamma(n + 2)) - 1.0);
                assert!((got.to_f64() - size).abs() <= bound, "{par:?} n = {n}, row {k}: {got} for {size}, {bound:e}");
            }
        }
    }
}

#[test]
fn quadratic_forms() {
    forms::<f32>();
    forms::<f64>();
}

/// Integers: `L` with a unit diagonal, `x = L y`, so that `|y|²` is exact, one row or many, in blocks and on any threads.
#[test]
fn integer_forms_are_exact() {
    let mut random = Random::new(33);
    for (n, m) in [(0, 3), (1, 0), (1, 2), (40, 600), (100, 257)] {
        // Few entries below the diagonal: sums stay exact.
        let l = Dense::from_fn(n, n, |i, j| {
            let below = if i == j + 1 || i == j + 7 { random.integer(2) } else { 0.0 };
            if i == j { 1.0 } else { below }
        });
        let y = random.integers(n, m, 3);
        let x = l.matmul(&y).transpose();
        let expected: Vec<f64> = (0..m).map(|k| (0..n).map(|i| y[(i, k)].powi(2)).sum()).collect();
        let (l, x) = (Buffer::<f32, 2>::matrix(&l, Layout::RowMajor), Buffer::<f32, 2>::matrix(&x, Layout::RowMajor));
        for (isa, got) in for_every_par("forms", |par| {
            let mut out = vec![f32::NAN; m];
            inverse_quadratic_forms_alloc(&mut out, l.view(), x.view(), par).expect("shapes agree");
            out
        }) {
            assert!(got.iter().map(|&v| f64::from(v)).eq(expected.iter().copied()), "{isa} n = {n}, m = {m}");
        }
        if m > 0 {
            let row: Vec<f32> = (0..n).map(|j| x.view().at([0, j])).collect();
            let one = inverse_quadratic_form_alloc(l.view(), &row, Par::seq()).expect("shapes agree");
            assert_eq!(f64::from(one), expected[0]);
        }
    }
}
