//! Cases small enough to compute by hand. All numbers are dyadic unless said otherwise, so equality is exact.

use foof_oracle::Dense;
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, F64};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::fisher::{self, Sharing};
use foof_oracle::generate::Random;
use foof_oracle::network::{self, Bias};
use foof_oracle::steps;

/// Two datapoints of two positions: inputs of two features, errors of one.
fn shared() -> (Vec<Dense>, Vec<Dense>) {
    let x = vec![Dense::from_rows(&[[1.0, 2.0], [3.0, 0.0]]), Dense::from_rows(&[[-1.0, 1.0], [1.0, 1.0]])];
    let e = vec![Dense::from_rows(&[[1.0], [2.0]]), Dense::from_rows(&[[3.0], [-1.0]])];
    (x, e)
}

/// Appendix F: inputs (3,1) and (1,0), targets 1 and -1, `W = 0`, loss `(s-y)^2/2`, so the errors are -1 and 1. The
/// descent direction of the sum is (2,1); undamped FOOF steps to (-1,4), which fits both.
#[test]
fn appendix_f() {
    let x = fisher::datapoints(&Dense::from_rows(&[[3.0, 1.0], [1.0, 0.0]]), 1);
    let e = fisher::datapoints(&Dense::from_rows(&[[-1.0], [1.0]]), 1);
    let u = fisher::mean_gradient(&x, &e);
    assert_exact(&u.scaled(-2.0), &Dense::from_rows(&[[2.0, 1.0]]), "descent direction");
    let a = fisher::input_factor(&x, Sharing::Expand);
    assert_exact(&a, &Dense::from_rows(&[[5.0, 1.5], [1.5, 0.5]]), "A");
    let step = steps::foof_step(&u, &a, 0.0).scaled(-1.0);
    // A's entries and the determinant 1/4 are dyadic but 1.5/5 is not: the solve's forward error (Higham Theorem 9.4).
    let lu = a.lu();
    let magnitude = a.inverse().abs().matmul(&lu.l.abs()).matmul(&lu.u.abs());
    let bound = step.abs().matmul(&magnitude.transpose());
    assert_within(&step, &Dense::from_rows(&[[-1.0, 4.0]]), &bound.scaled(2.0 * F64.gamma(6)), "FOOF");
}

#[test]
fn kron_is_entry_by_entry() {
    let b = Dense::from_rows(&[[1.0, 2.0], [3.0, 4.0]]);
    let a = Dense::from_rows(&[[5.0, 6.0, 7.0]]);
    let expected = Dense::from_rows(&[[5.0, 6.0, 7.0, 10.0, 12.0, 14.0], [15.0, 18.0, 21.0, 20.0, 24.0, 28.0]]);
    assert_exact(&b.kron(&a), &expected, "B ⊗ A");
}

/// `vec(B U A) = (B ⊗ A) vec(U)` for symmetric `A`, row-major; `(B ⊗ A^T)` for any.
#[test]
fn kron_acts_on_row_major_vec() {
    let mut random = Random::new(1);
    let (b, u, a) = (random.integers(3, 3, 9), random.integers(3, 2, 9), random.integers(2, 2, 9));
    let left = b.matmul(&u).matmul(&a).vec();
    assert_exact(&b.kron(&a.transpose()).matmul(&u.vec()), &left, "(B ⊗ A^T) vec(U)");
}

#[test]
fn gradients_and_fisher_of_shared_weights() {
    let (x, e) = shared();
    let g = fisher::gradients(&x, &e);
    // g_1 = 1 (1,2) + 2 (3,0); g_2 = 3 (-1,1) - (1,1).
    assert_exact(&g, &Dense::from_rows(&[[7.0, 2.0], [-4.0, 2.0]]), "G");
    assert_exact(&fisher::fisher(&g, 2), &Dense::from_rows(&[[32.5, 3.0], [3.0, 4.0]]), "F");
    assert_exact(&fisher::gram(&g), &Dense::from_rows(&[[26.5, -12.0], [-12.0, 10.0]]), "Gram");
    assert_exact(&fisher::mean_gradient(&x, &e), &Dense::from_rows(&[[1.5, 2.0]]), "U");
}

#[test]
fn factors_expand_and_reduce() {
    let (x, e) = shared();
    let a = fisher::input_factor(&x, Sharing::Expand);
    assert_exact(&a, &Dense::from_rows(&[[6.0, 1.0], [1.0, 3.0]]), "A");
    let b = fisher::error_factor(&e, Sharing::Expand);
    assert_exact(&b, &Dense::from_rows(&[[3.75]]), "B");
    // Means (2,1) and (0,1); sums 3 and 2.
    let a = fisher::input_factor(&x, Sharing::Reduce);
    assert_exact(&a, &Dense::from_rows(&[[2.0, 1.0], [1.0, 1.0]]), "A reduce");
    let b = fisher::error_factor(&e, Sharing::Reduce);
    assert_exact(&b, &Dense::from_rows(&[[6.5]]), "B reduce");
}

#[test]
fn bias_appends_a_one_and_centring_comes_first() {
    let (x, _) = shared();
    let with_one = fisher::with_one(&x);
    let a = fisher::input_factor(&with_one, Sharing::Expand);
    // One constraint for each of two positions: the corner counts 2, the border twice the mean (1,1).
    let expected = Dense::from_rows(&[[6.0, 1.0, 2.0], [1.0, 3.0, 2.0], [2.0, 2.0, 2.0]]);
    assert_exact(&a, &expected, "A with bias");
    // Covariance = second moment less, for each of two positions, the mean's outer product.
    let centred = fisher::input_factor(&fisher::centred(&x), Sharing::Expand);
    assert_exact(&centred, &Dense::from_rows(&[[4.0, -1.0], [-1.0, 1.0]]), "A centred");
    let both = fisher::with_one(&fisher::centred(&x));
    let both = fisher::input_factor(&both, Sharing::Expand);
    let expected = Dense::from_rows(&[[4.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]);
    assert_exact(&both, &expected, "A centred, with bias");
}

#[test]
fn datapoints_and_stacked_are_inverse() {
    let rows = Random::new(2).normals(6, 3);
    assert_eq!(fisher::stacked(&fisher::datapoints(&rows, 2)), rows);
}

#[test]
fn heuristic_damping_by_hand() {
    let a = Dense::diagonal(&[8.0, 24.0]); // mean 16
    let b = Dense::diagonal(&[1.0, 1.0, 1.0]);
    assert_eq!(steps::heuristic_damping(&a, &b, 0.25), (2.0, 0.125));
    let zero = Dense::zeros(3, 3);
    assert_eq!(steps::heuristic_damping(&a, &zero, 0.25), (0.5, 0.5));
    assert_eq!(steps::heuristic_damping(&zero, &a, 0.25), (0.5, 0.5));
}

/// Diagonal factors make every step a division: rows by `b_i + lambda_B`, columns by `a_j + lambda_A`, or entries by
/// `b_i a_j + lambda`. Transposing a factor or swapping the two would show.
#[test]
fn steps_with_diagonal_factors() {
    let a = Dense::diagonal(&[3.0, 7.0]);
    let b = Dense::diagonal(&[1.0, 0.0, 15.0]);
    let u = Dense::from_rows(&[[8.0, 16.0], [32.0, 8.0], [64.0, 128.0]]);
    assert_exact(&steps::foof_step(&u, &a, 1.0), &Dense::from_rows(&[[2.0, 2.0], [8.0, 1.0], [16.0, 16.0]]), "FOOF");
    assert_exact(
        &steps::kfac_step(&u, &a, &b, 1.0, 1.0),
        &Dense::from_rows(&[[1.0, 1.0], [8.0, 1.0], [1.0, 1.0]]),
        "K-FAC",
    );
    let divided = Dense::from_fn(3, 2, |i, j| {
        u[(i, j)] / (b[(i, i)] * a[(j, j)] + 1.0) // not dyadic, but one rounding on both sides
    });
    assert_exact(&steps::kfac_exact_step(&u, &a, &b, 1.0), &divided, "exact damping");
    let moments = steps::kronecker_moments(&a.diag(), &b.diag());
    let (q_a, q_b) = (Dense::identity(2), Dense::identity(3));
    assert_exact(&steps::ekfac_step(&u, &q_a, &q_b, &moments, 1.0), &divided, "EK-FAC in the standard basis");
}

/// A rotation that is not symmetric tells `Q_B^T U Q_A` from `Q_B U Q_A`: turning the data turns the answer.
#[test]
fn ekfac_projects_with_the_right_transposes() {
    let mut random = Random::new(3);
    let turn = Dense::from_rows(&[[0.0, -1.0], [1.0, 0.0]]);
    let cycle = Dense::from_rows(&[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
    let (u, moments) = (random.integers(3, 2, 9), random.integers(3, 2, 9).abs());
    let plain = u.zip(&moments, |u, d| u / (d + 1.0));
    let turned = cycle.matmul(&u).matmul(&turn.transpose());
    let expected = cycle.matmul(&plain).matmul(&turn.transpose());
    let dense = steps::ekfac_step(&turned, &turn, &cycle, &moments, 1.0);
    assert_exact(&dense, &expected, "with Q_B ⊗ Q_A");
    let folded = steps::eigenbasis_step(&turned, &turn, &cycle, &moments, 1.0);
    assert_exact(&folded, &expected, "in the eigenbasis");
}

/// Moments of rank-one gradients are `(1/N) ((E Q_B)^2)^T ((X Q_A)^2)`.
#[test]
fn moments_of_rank_one_gradients() {
    let mut random = Random::new(4);
    let (x, e) = (random.integers(5, 3, 4), random.integers(5, 2, 4));
    let (q_a, q_b) = (random.integers(3, 3, 2), random.integers(2, 2, 2));
    let squared = |m: Dense| m.hadamard(&m);
    let fast = squared(e.matmul(&q_b)).transpose().matmul(&squared(x.matmul(&q_a))).scaled(1.0 / 5.0);
    let (x, e) = (fisher::datapoints(&x, 1), fisher::datapoints(&e, 1));
    let moments = fisher::eigenbasis_moments(&x, &e, &q_a, &q_b);
    assert_exact(&moments, &fast, "moments");
}

/// With moments `b a^T` and true eigenvectors EK-FAC is exact damping: three forms of one step, each within the bound.
#[test]
fn exact_damping_in_three_forms() {
    let mut random = Random::new(5);
    let a = random.symmetric(&[0.0, 0.5, 1.0, 2.0]);
    let b = random.symmetric(&[0.1, 1.0, 3.0]);
    let u = random.normals(3, 4);
    let (eigen_a, eigen_b) = (a.symmetric_eigen(), b.symmetric_eigen());
    let moments = steps::kronecker_moments(&eigen_a.values, &eigen_b.values);
    let (q_a, q_b) = (&eigen_a.vectors, &eigen_b.vectors);
    let dense = steps::ekfac_step(&u, q_a, q_b, &moments, 0.1);
    let folded = steps::eigenbasis_step(&u, q_a, q_b, &moments, 0.1);
    // Both are evaluations of one formula with the same Q and moments; the dense one's chains are longer: 3 * 4 terms each.
    let bound = bounds::eigenbasis_step(F64, (&u, q_a, q_b), &moments, 0.1, 2 * 12 + 2);
    assert_within(&folded, &dense, &bound, "folded against dense");
    // Against the linear solve the decompositions' errors count: backward, so through the condition number.
    let d = bounds::eigenvalue_error(&a) * b.frobenius() + a.frobenius() * bounds::eigenvalue_error(&b);
    let curvature = Approx::exact_f64(b.kron(&a)).with_error(d);
    let bound = foof_oracle::rounded::natural_gradient(&curvature, &Approx::exact_f64(u.vec()), 0.1);
    bound.assert_matches(&dense.vec(), "eigenbasis against solve");
    bound.assert_matches(&steps::kfac_exact_step(&u, &a, &b, 0.1).vec(), "kron solve");
}

/// K-FAC's two-sided solve is a solve with the Kronecker product of the damped factors.
#[test]
fn kfac_is_a_kronecker_solve() {
    let mut random = Random::new(6);
    let a = random.symmetric(&[0.25, 0.5, 1.0, 2.0]);
    let b = random.symmetric(&[0.1, 1.0, 3.0]);
    let u = random.normals(3, 4);
    let (lambda_a, lambda_b) = steps::heuristic_damping(&a, &b, 0.01);
    let kron = b.damped(lambda_b).kron(&a.damped(lambda_a));
    let solved = kron.solve(&u.vec()).unvec(3, 4);
    let exact = Approx::exact_f64;
    foof_oracle::rounded::kfac_heuristic_step(&exact(u.clone()), &exact(a), &exact(b), 0.01)
        .assert_matches(&solved, "K-FAC");
}

#[test]
fn moving_average_and_its_correction() {
    let (old, new) = (Dense::from_rows(&[[8.0]]), Dense::from_rows(&[[4.0]]));
    assert_eq!(steps::moving_average(&old, &new, 0.75)[(0, 0)], 7.0);
    // From zero, one update of 4 with m = 1/2 gives 2; corrected, 4 again. Two updates leave 3/4 of it.
    assert_eq!(steps::bias_correction(0.5, 1), 2.0);
    assert_eq!(steps::bias_correction(0.5, 2), 4.0 / 3.0);
}

/// Zero weights give uniform probabilities and `e = 1/C - onehot`; a zero output weight stops every error below it.
#[test]
fn network_of_zero_weights() {
    let exact = |w: Dense| Approx::exact_f64(w);
    let weights = [exact(Dense::zeros(3, 3)), exact(Dense::zeros(4, 4))];
    let x = exact(Dense::from_rows(&[[1.0, 2.0]]));
    let pass = network::pass(&weights, Bias::With, &x, &[2]);
    assert_exact(&pass.errors[1].value, &Dense::from_rows(&[[0.25, 0.25, -0.75, 0.25]]), "output error");
    assert_exact(&pass.errors[0].value, &Dense::zeros(1, 3), "hidden error");
    assert_exact(&pass.inputs[1].value, &Dense::zeros(1, 3), "hidden input");
    let u = pass.mean_gradient(1, Bias::With).value;
    let expected = Dense::from_rows(&[[0.25], [0.25], [-0.75], [0.25]]);
    assert_exact(&u.block(0..4, 3..4), &expected, "gradient of the bias");
    assert_exact(&u.block(0..4, 0..3), &Dense::zeros(4, 3), "gradient");
}
