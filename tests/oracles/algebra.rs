//! The dense algebra: each decomposition against its own backward error bound.

use foof_oracle::Dense;
use foof_oracle::bounds::{self, F64};
use foof_oracle::compare::{assert_close, assert_exact, assert_positive_semidefinite, assert_within};
use foof_oracle::decompose::NotPositive;
use foof_oracle::generate::{Random, log_spectrum};

#[test]
fn products_and_transposes_of_integers() {
    let a = Dense::from_rows(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    let b = Dense::from_rows(&[[1.0, -1.0], [0.0, 2.0], [3.0, 0.0]]);
    let ab = Dense::from_rows(&[[10.0, 3.0], [22.0, 6.0]]);
    assert_exact(&a.matmul(&b), &ab, "A B");
    assert_exact(&b.transpose().matmul(&a.transpose()), &ab.transpose(), "B^T A^T");
    assert_eq!(ab.trace(), 16.0);
    assert_eq!(Dense::from_rows(&[[3.0, 0.0], [0.0, -4.0]]).frobenius(), 5.0);
    assert_eq!(a.vec().data, a.data);
    assert_exact(&a.vec().unvec(2, 3), &a, "unvec");
    assert_eq!(b.max_abs(), 3.0);
    assert!(Dense::from_rows(&[[1.0, f64::NAN, 2.0]]).max_abs().is_nan());
}

/// `P A = L U`, and a pivot that must be swapped in.
#[test]
fn lu_with_pivoting() {
    let a = Dense::from_rows(&[[0.0, 1.0], [2.0, 3.0]]);
    assert_exact(&a.solve(&Dense::from_rows(&[[1.0], [8.0]])), &Dense::from_rows(&[[2.5], [1.0]]), "solve");
    let mut random = Random::new(10);
    for n in [1, 2, 5, 17, 40] {
        let a = random.normals(n, n);
        let lu = a.lu();
        let permuted = Dense::from_fn(n, n, |i, j| a[(lu.order[i], j)]);
        let magnitude = lu.l.abs().matmul(&lu.u.abs());
        // Higham Theorem 9.3, and forming the product again.
        let bound = magnitude.scaled(2.0 * F64.gamma(n));
        assert_within(&lu.l.matmul(&lu.u), &permuted, &bound, "L U");
        let b = random.normals(n, 3);
        let x = a.solve(&b);
        // Higham Theorem 9.4, and forming the residual.
        let backward = magnitude.matmul(&x.abs()).scaled(F64.gamma(3 * n));
        let own = a.abs().matmul(&x.abs()).plus(&b.abs());
        let ax = a.matmul(&x);
        let permuted = |m: &Dense| Dense::from_fn(n, 3, |i, j| m[(lu.order[i], j)]);
        let bound = backward.plus(&permuted(&own).scaled(F64.gamma(n + 1)));
        assert_within(&permuted(&ax), &permuted(&b), &bound, "A X");
    }
}

#[test]
fn cholesky_and_its_failures() {
    let a = Dense::from_rows(&[[4.0, 2.0, 6.0], [2.0, 10.0, 6.0], [6.0, 6.0, 14.0]]);
    let l = Dense::from_rows(&[[2.0, 0.0, 0.0], [1.0, 3.0, 0.0], [3.0, 1.0, 2.0]]);
    assert_eq!(a.cholesky(), Ok(l));
    let indefinite = Dense::from_rows(&[[4.0, 2.0], [2.0, -1.0]]);
    let expected = NotPositive { index: 1, pivot: -2.0 };
    assert_eq!(indefinite.cholesky(), Err(expected));
    let nan = Dense::from_rows(&[[f64::NAN]]);
    assert_eq!(nan.cholesky().unwrap_err().index, 0);
    let mut random = Random::new(11);
    for n in [1, 3, 20, 50] {
        let a = random.symmetric(&log_spectrum(n, 1e6));
        let l = a.cholesky().expect("definite");
        let bound = bounds::cholesky(F64, &l, &a);
        assert_within(&l.matmul(&l.transpose()), &a, &bound, "L L^T");
    }
}

/// `A Q = Q diag(a)`, `Q^T Q = I`, and the prescribed spectrum comes back.
#[test]
fn jacobi_eigenvalues() {
    let eigen = Dense::from_rows(&[[2.0, 1.0], [1.0, 2.0]]).symmetric_eigen();
    let expected = Dense::diagonal(&[1.0, 3.0]);
    let two = Dense::from_rows(&[[2.0, 1.0], [1.0, 2.0]]);
    assert_close(&Dense::diagonal(&eigen.values), &expected, bounds::eigenvalue_error(&two), "2 by 2");
    let mut random = Random::new(12);
    for spectrum in [log_spectrum(30, 1e8), vec![0.0, 0.0, 0.0, 1.0, 1.0, 5.0], vec![-3.0, -1.0, 0.0, 2.0], vec![7.0]] {
        let n = spectrum.len();
        let a = random.symmetric(&spectrum);
        let error = bounds::eigenvalue_error(&a);
        let eigen = a.symmetric_eigen();
        let q = &eigen.vectors;
        let qtq = q.transpose().matmul(q);
        let orthogonality = bounds::eigenvalue_error(&Dense::identity(n));
        assert_close(&qtq, &Dense::identity(n), orthogonality, "Q^T Q");
        let diagonal = Dense::diagonal(&eigen.values);
        assert_close(&a.matmul(q), &q.matmul(&diagonal), 2.0 * error, "A Q");
        let mut sorted = spectrum.clone();
        sorted.sort_by(f64::total_cmp);
        // Weyl; forming the matrix took reflections too.
        assert_close(&diagonal, &Dense::diagonal(&sorted), (2.0 * error) * (n as f64).sqrt(), "spectrum");
        if spectrum.iter().all(|&v| v >= 0.0) {
            assert_positive_semidefinite(&a, error, "semidefinite");
        }
    }
}

#[test]
fn empty_matrices() {
    let empty = Dense::zeros(0, 0);
    assert_eq!(empty.cholesky(), Ok(empty.clone()));
    assert_eq!(empty.inverse(), empty);
    assert!(empty.symmetric_eigen().values.is_empty());
    assert_exact(&Dense::zeros(2, 0).matmul(&Dense::zeros(0, 3)), &Dense::zeros(2, 3), "no terms");
}
