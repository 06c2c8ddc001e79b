//! Rounding bounds. "Higham" is *Accuracy and Stability of Numerical Algorithms*, second edition.
//!
//! Every entrywise bound is on the distance between what a kernel returns in some [`Format`] and what the `f64` oracle
//! returns *for the same rounded inputs*, so each includes the oracle's own rounding. A bound is itself evaluated in
//! `f64`; the relative error of that, of order `n 2^-53`, is far below the slack of a worst-case bound.

use crate::Dense;
use num_traits::Float;

/// The two numbers of a floating-point format that bounds need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Unit roundoff `u`: half the distance from 1 to the next number.
    pub unit: f64,
    /// The spacing of subnormal numbers; an operation whose result underflows is off by at most half of it, whole here
    /// to cover the growth `1 + gamma` afterwards (Higham (2.8)).
    pub tiny: f64,
}

/// IEEE double precision, in which the oracles compute.
pub const F64: Format = Format { unit: f64::EPSILON / 2.0, tiny: f64::MIN_POSITIVE * f64::EPSILON };

impl Format {
    /// The format of `T`.
    pub fn of<T: Float>() -> Self {
        let widen = |v: T| v.to_f64().expect("representable in f64");
        Self { unit: widen(T::epsilon()) / 2.0, tiny: widen(T::min_positive_value()) * widen(T::epsilon()) }
    }

    /// `gamma_k = k u / (1 - k u)` (Higham Lemma 3.1). Infinite, and so no bound at all, once `k u >= 1`.
    pub fn gamma(self, k: usize) -> f64 {
        let ku = k as f64 * self.unit;
        if ku < 1.0 { ku / (1.0 - ku) } else { f64::INFINITY }
    }
}

/// `|fl(A B) - A B| <= gamma_depth |A||B| + k tiny` (Higham (3.13), where `depth` is the longest chain of roundings an
/// entry goes through, not necessarily the inner dimension `inner = k`), plus the oracle's `gamma_k |A||B|`.
///
/// `magnitude` is `|A||B|`.
pub fn product(format: Format, magnitude: &Dense, inner: usize, depth: usize) -> Dense {
    let relative = format.gamma(depth) + F64.gamma(inner);
    magnitude.map(|m| relative * m + inner as f64 * format.tiny)
}

/// `out <- beta C + alpha A B`: `gamma_(depth+2) |alpha| |A||B| + gamma_2 |beta||C|` and the underflow of `k` products,
/// two scalings and a sum; the oracle's rounding likewise.
///
/// `magnitude` is `|A||B|`, `old` is `C`, of which nothing is asked when `beta = 0`.
pub fn blended_product(
    format: Format,
    magnitude: &Dense,
    (alpha, beta): (f64, f64),
    old: &Dense,
    inner: usize,
    depth: usize,
) -> Dense {
    let fresh = (format.gamma(depth + 2) + F64.gamma(inner + 2)) * alpha.abs();
    let kept = (format.gamma(2) + F64.gamma(2)) * beta.abs();
    let tiny = (inner as f64 * alpha.abs().max(1.0) + 2.0) * format.tiny;
    magnitude.zip(old, |m, c| {
        let kept = if beta == 0.0 { 0.0 } else { kept * c.abs() };
        fresh * m + kept + tiny
    })
}

/// `A <- m A + (1-m) s X^T X`: `gamma_(depth+4) (1-m) |s| |X|^T|X| + gamma_2 m |A|`. Beyond the depth there are `1 - m`, its
/// product with `s`, the product of that with the sum, and the addition (with a fused one, three); the oracle takes the
/// same rounded `m` and `s`.
///
/// `magnitude` is `|X|^T|X|`, `inner` the number of rows of `X`.
pub fn ema_covariance(
    format: Format,
    magnitude: &Dense,
    (m, s): (f64, f64),
    old: &Dense,
    inner: usize,
    depth: usize,
) -> Dense {
    blended_product(format, magnitude, ((1.0 - m) * s, m), old, inner + 2, depth + 2)
}

/// A product of three, `fl(fl(P U) Q)`: `gamma_(d1+d2) |P||U||Q|` (Higham Lemma 3.3), for `depths = d1 + d2` and `inner`
/// the sum of both inner dimensions. Products of more factors add their depths likewise.
///
/// `magnitude` is `|P||U||Q|`. Assumes, like every bound below, that nothing underflows.
pub fn chain(format: Format, magnitude: &Dense, inner: usize, depths: usize) -> Dense {
    magnitude.scaled(format.gamma(depths) + F64.gamma(inner))
}

/// `Q_B ((Q_B^T U Q_A) / (moments + lambda)) Q_A^T` for given `Q`, non-negative `moments` and `lambda > 0`: all four
/// products and three roundings of the denominator (a product `b_i a_j`, the sum, the quotient) are one chain.
///
/// `depths` sums the four products' depths.
pub fn eigenbasis_step(
    format: Format,
    (u, q_a, q_b): (&Dense, &Dense, &Dense),
    moments: &Dense,
    lambda: f64,
    depths: usize,
) -> Dense {
    let (u, q_a, q_b) = (u.abs(), q_a.abs(), q_b.abs());
    let magnitude = crate::steps::eigenbasis_step(&u, &q_a, &q_b, moments, lambda);
    chain(format, &magnitude, 2 * (q_a.rows + q_b.rows) + 3, depths + 3)
}

/// Cholesky's backward error: `|A - L L^T| <= gamma_(n+1) |L||L^T|` for the computed `L` (Higham Theorem 10.3), plus
/// `gamma_2 |A|` where `A = c A_0 + lambda I` is formed by the kernel (a product and, on the diagonal, a sum of two
/// non-negative numbers), plus the oracle's rounding when it forms `L L^T`.
///
/// `l` is the computed factor and `damped` is `A`.
pub fn cholesky(format: Format, l: &Dense, damped: &Dense) -> Dense {
    let n = l.rows;
    let relative = format.gamma(n + 1) + F64.gamma(n + 1);
    let magnitude = l.abs().matmul(&l.abs().transpose());
    magnitude.zip(damped, |m, a| relative * m + format.gamma(2) * a.abs())
}

/// The same in norm, before `L` is known: `|A - L L^T|_F <= gamma_(n+1) tr(A) / (1 - gamma_(n+1))`, as
/// `| |L||L^T| |_F <= |L|_F^2` and each row of the computed `L` has `(1 - gamma_(n+1)) |l_i|^2 <= a_ii`.
pub fn cholesky_norm(format: Format, n: usize, trace: f64) -> f64 {
    let gamma = format.gamma(n + 1);
    gamma * trace / (1.0 - gamma)
}

/// What Higham's Theorem 10.7 says of Cholesky in floating point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It must succeed.
    Succeeds,
    /// It must meet a pivot that is not positive.
    Fails,
    /// It may do either.
    Either,
}

impl Outcome {
    /// Asserts that a Cholesky factorisation that failed, or did not, was allowed to.
    #[track_caller]
    pub fn assert_allows(self, failed: bool, what: &str) {
        match self {
            Outcome::Succeeds => assert!(!failed, "{what} is definite"),
            Outcome::Fails => assert!(failed, "{what} is indefinite"),
            Outcome::Either => {}
        }
    }
}

/// Higham Theorem 10.7: with `H = D^-1 A D^-1`, `D = diag(A)^(1/2)`, Cholesky succeeds if
/// `lambda_min(H) > t = n gamma_(n+1) / (1 - gamma_(n+1))` and fails if `lambda_min(H) < -t`. A diagonal entry that is
/// not positive fails by itself.
///
/// `H` and its eigenvalue are computed in `f64`, so the threshold is widened by Jacobi's error, at most
/// `20 n^2 u |H|_F` ([`eigenvalue_error`]).
pub fn cholesky_outcome(format: Format, a: &Dense) -> Outcome {
    cholesky_outcome_of(format, a, a.rows + 1)
}

/// The same with `gamma_terms` for `gamma_(n+1)`: for a kernel that rounds an entry of the factor more often.
pub fn cholesky_outcome_of(format: Format, a: &Dense, terms: usize) -> Outcome {
    let n = a.rows;
    let d = a.diag();
    if d.iter().any(|&v| v <= 0.0) {
        return Outcome::Fails;
    }
    let h = Dense::from_fn(n, n, |i, j| {
        let (i, j) = (i.max(j), i.min(j));
        a[(i, j)] / (d[i] * d[j]).sqrt()
    });
    let gamma = format.gamma(terms);
    let threshold = n as f64 * gamma / (1.0 - gamma) + eigenvalue_error(&h);
    match h.symmetric_eigen().values.first() {
        Some(&least) if least < -threshold => Outcome::Fails,
        Some(&least) if least <= threshold => Outcome::Either,
        _ => Outcome::Succeeds,
    }
}

/// The backward error of a symmetric eigensolver in `f64` that applies orthogonal transformations: each of at most `2 n`
/// Householder reflections (or as many sweeps' worth of rotations) adds `gamma_(c n) |A|_F` (Higham Lemmas 19.3, 19.9).
/// Counting the operations of one reflection gives `c < 10`: `n` for the vector, `n` for the inner product with it,
/// each met twice, and a few for the scalar factor.
pub fn eigenvalue_error(a: &Dense) -> f64 {
    2.0 * a.rows as f64 * F64.gamma(10 * a.rows) * a.frobenius()
}

/// The backward error of a batched eigensolver (Householder's reduction, then implicit QL) in any format, relative to `|A|_F`: it diagonalises
/// `A + dA` by a matrix within `sqrt(n)` times as much of an orthogonal one.
///
/// The reduction and its reflections are those of [`eigenvalue_error`]: `2 n gamma_(10 n)`. The rotations of `s` successive sweeps over `n` rows
/// are at most `n + 2 s` stages of rotations in disjoint planes, because a sweep may follow two rows behind the one before; a stage adds
/// `gamma_c` (Higham Lemma 19.9). Counting for one rotation: `c` and `s` by a square (2), a root, a reciprocal and a product are off by `gamma_5`,
/// an entry that is rotated by `gamma_7`, times `sqrt 2` in norm; the diagonal entries, through three sums and three products of such, by
/// `gamma_15`, each met from both sides. So `c <= 30`, which also covers the entry that is deflated after a stage (`2 u` of its
/// neighbours), and rotations that are left out because they would turn less than `u²` of the matrix. A kernel gives up after `s = 30 n` sweeps.
pub fn batched_eigen(format: Format, n: usize) -> f64 {
    let sweeps = 30 * n;
    2.0 * n as f64 * format.gamma(10 * n) + (n + 2 * sweeps) as f64 * format.gamma(30)
}

/// One triangular solve: `|B - L X| <= gamma_n |L||X|` (Higham Theorem 8.5), plus the oracle's rounding of the residual.
///
/// `l`, `x` and `b` are the factor, the computed solution and the right-hand side.
pub fn triangular_solve(format: Format, l: &Dense, x: &Dense, b: &Dense) -> Dense {
    let n = l.rows;
    let magnitude = l.abs().matmul(&x.abs());
    magnitude.zip(b, |m, b| format.gamma(n) * m + F64.gamma(n + 1) * (m + b.abs()))
}

/// `A X = B` by the Cholesky factor `L` computed from `A`: `|B - A X| <= gamma_(3n+1) |L||L^T||X|` (Higham Theorem 10.4),
/// plus `gamma_2 |A||X|` where the kernel forms `A = c A_0 + lambda I`, plus the oracle's rounding of the residual.
pub fn solve(format: Format, l: &Dense, damped: &Dense, x: &Dense, b: &Dense) -> Dense {
    let n = l.rows;
    let backward = l.abs().matmul(&l.abs().transpose()).matmul(&x.abs());
    let formed = damped.abs().matmul(&x.abs());
    let residual = formed.plus(&b.abs());
    backward
        .scaled(format.gamma(3 * n + 1))
        .plus(&formed.scaled(format.gamma(2)))
        .plus(&residual.scaled(F64.gamma(n + 1)))
}

/// Roundings that an entry passes in a sweep of a Cholesky inverse of order `n` (the factor, its inverse, the product of that with
/// its transpose), however the sweep is blocked: `2 n + 4`.
///
/// A chain is one sum `(c - sum_k a_k b_k) / b`; in any order of its terms, products rounded or fused, it costs one rounding a
/// term and one for the pivot (Higham Lemma 8.4), so blocking alone adds nothing. But an entry may pass two chains of up to `n`
/// terms, one after the other: the block below the diagonal of an inverse is multiplied on one side and solved for on the other, and a kernel that
/// multiplies by the inverse of a diagonal block meets that block's chain before its own. Two pivots or square roots end them; two
/// roundings form `c A + lambda I`.
pub fn sweep(n: usize) -> usize {
    2 * n + 4
}

/// The left residual of a triangular inverse, `|Y L - I| <= gamma_terms |Y||L|` (Higham section 14.2, method 2 and its
/// blocked form), plus the oracle's rounding.
///
/// `terms` is `n + 1` when `y_jj = fl(1/l_jj)` and each column is one dot product of length below `n` scaled by `y_jj`;
/// a blocked sweep has up to [`sweep`].
pub fn triangular_inverse(format: Format, y: &Dense, l: &Dense, terms: usize) -> Dense {
    let own = F64.gamma(l.rows + 1);
    let magnitude = y.abs().matmul(&l.abs());
    let identity = Dense::identity(l.rows);
    magnitude.zip(&identity, |m, i| format.gamma(terms) * m + own * (m + i))
}

/// `|A X - I|_F` for `X = Y^T Y` with `Y` the inverse of the Cholesky factor, `A = L L^T - dA`:
/// `A X - I = (L Y - I) + L (Y L - I)^T Y + L L^T E - dA X`, where `E` is the rounding of `Y^T Y` and
/// `L Y - I = L (Y L - I) L^-1`. Each of the four is at most `gamma_terms` times
/// `(|L|_F |L^-1|_F)^2 = tr(A) tr(A^-1)`, up to the factors computed below; the left residual is what makes the
/// second one so (Higham section 14.3; Du Croz and Higham 1992).
///
/// `trace` and `trace_inverse` are of the exact (damped) matrix and its inverse; `terms >= n + 1` as in
/// [`triangular_inverse`], and two more cover a kernel that forms `c A_0 + lambda I`: [`sweep`] has both. Infinite where the
/// problem is too ill-conditioned for a bound: test the backward error then.
pub fn inverse_residual(format: Format, trace: f64, trace_inverse: f64, terms: usize) -> f64 {
    let c = format.gamma(terms);
    let kappa = trace * trace_inverse;
    let shift = c * kappa / (1.0 - c); // |A^-1| |dA|, by which tr((A + dA)^-1) grows
    let kappa = kappa / ((1.0 - c) * (1.0 - shift)); // of the computed L
    let growth = 1.0 / (1.0 - c * kappa.sqrt()); // |Y| against |L^-1|
    if c >= 1.0 || shift >= 1.0 || growth <= 0.0 {
        return f64::INFINITY;
    }
    growth * growth * kappa * (4.0 * c + c * c)
}

/// `|X - A^-1|_F <= |A^-1|_2 |A X - I|_F`: the forward error that [`inverse_residual`] implies.
pub fn inverse_error(format: Format, eigenvalues: &[f64], terms: usize) -> f64 {
    let trace = eigenvalues.iter().sum();
    let trace_inverse = eigenvalues.iter().map(|v| v.recip()).sum();
    let norm = eigenvalues.iter().map(|v| v.recip()).fold(0.0, f64::max);
    norm * inverse_residual(format, trace, trace_inverse, terms)
}

/// What the bounds of a solve by Woodbury's identity, [`WoodburyErrors`], depend on.
#[derive(Clone, Copy, Debug)]
pub struct Woodbury {
    /// `|G|_F`.
    pub norm: f64,
    /// The Frobenius norm of `G` made of absolute inputs and errors: the sums' magnitude.
    pub magnitude: f64,
    /// Rows.
    pub rows: usize,
    /// `lambda`.
    pub lambda: f64,
    /// Roundings of a term in each of the three sums, those of `1/sqrt N` and of sums over layers among them.
    pub depths: [usize; 3],
    /// The format of the first and the last sum, and that of the system, whose own sum the second is.
    pub formats: [Format; 2],
    /// What the system is solved with.
    pub solver: Solver,
}

/// What a system is solved with.
#[derive(Clone, Copy, Debug)]
pub enum Solver {
    /// Its Cholesky factor.
    Factor,
    /// Its computed inverse.
    Inverse,
}

/// Bounds in Euclidean norm.
#[derive(Clone, Copy, Debug)]
pub struct WoodburyErrors {
    /// `|x - (F + lambda I)^-1 u|`.
    pub forward: f64,
    /// `|(F + lambda I) x - u|`.
    pub residual: f64,
}

impl Woodbury {
    /// The computed `x = (1/lambda)(u - G w)`, `(lambda I + G^T G) w = G^T u`, for `u` of norm `u` and magnitude `u_abs` (larger only where it is
    /// low-rank). `None` where the system's error reaches the damping, for which there is no bound.
    ///
    /// With `M` the magnitude, `b = G^T u` is off by `gamma_d1 M u_abs`. The system is off by `gamma_(d2+2) M²` (and two roundings of `lambda`), its
    /// solve adds `gamma_(3R+1) tr(K + lambda I)` (Higham Theorem 10.4, `|L|_F² = tr`): `D` together. So `(K + lambda I) w' = b + rho` with
    /// `|rho| <= gamma_d1 M u_abs + D |w'|`, and `|w| <= u / (2 sqrt lambda)`, as `|(K + lambda I)^-1 G^T| <= 1 / (2 sqrt lambda)`. The last
    /// step rounds `gamma_(d3+4) (u_abs + M |w'|) / lambda`, which is `eta`. An inverse `Z` of residual `R = K Z - I` and its product, `gamma_R |Z| |b|`,
    /// put `(|R| + |K| gamma_R |Z|) |b|`, `|b| <= |K| |w|` and `|Z| <= (1 + |R|) sqrt(R) / lambda`, in the place of the solve's term. Then `x' - x = -G (K + lambda I)^-1 rho / lambda + eta`; and
    /// `(F + lambda I) G = G (K + lambda I)` turns the first term of the residual into `-G rho / lambda`.
    pub fn errors(&self, u: f64, u_abs: f64) -> Option<WoodburyErrors> {
        let Woodbury { norm, magnitude: m, rows, lambda, depths, formats: [format, system], solver } = *self;
        let [d1, d3] = [depths[0], depths[2]].map(|depth| format.gamma(depth + 4));
        let d2 = system.gamma(depths[1] + 4);
        let trace = norm * norm + rows as f64 * lambda;
        let (formed, order) = (trace + d2 * m * m, rows as f64);
        let solve = match solver {
            Solver::Factor => system.gamma(3 * rows + 1) / (1.0 - system.gamma(3 * rows + 1)),
            Solver::Inverse => {
                let residual = inverse_residual(system, formed, order / lambda, sweep(rows));
                residual + formed * system.gamma(rows) * (1.0 + residual) * order.sqrt() / lambda
            }
        };
        let d = d2 * (m * m + lambda) + solve * formed;
        if d.is_nan() || d >= lambda {
            return None;
        }
        let w = (u / (2.0 * lambda.sqrt()) + d1 * m * u_abs / lambda) / (1.0 - d / lambda);
        // Rounded to the sums' format where the system has another.
        let rho = d1 * m * u_abs + d * w;
        let eta = d3 * (u_abs + m * w) / lambda;
        Some(WoodburyErrors {
            forward: rho / (2.0 * lambda.powf(1.5)) + eta,
            residual: norm * rho / lambda + (norm * norm + lambda) * eta,
        })
    }

    /// After one step of refinement with the same factor, `x` the norm of the answer: the residual `r` is computed to within
    /// `gamma_(d1+d3+8) (u_abs + (M² + lambda) |x'|)`, and the correction is [`errors`](Woodbury::errors) of `r`, which is small; one more
    /// rounding adds it.
    pub fn refined(&self, u: f64, u_abs: f64, x: f64) -> Option<WoodburyErrors> {
        let Woodbury { norm, magnitude: m, lambda, depths, formats: [format, _], .. } = *self;
        let first = self.errors(u, u_abs)?;
        let x = x + first.forward;
        let rounding = format.gamma(depths[0] + depths[2] + 8) * (u_abs + (m * m + lambda) * x);
        let residual = first.residual + rounding;
        let second = self.errors(residual, residual)?;
        let added = format.gamma(2) * (x + residual / lambda);
        Some(WoodburyErrors {
            forward: rounding / lambda + second.forward + added,
            residual: rounding + second.residual + (norm * norm + lambda) * added,
        })
    }
}
