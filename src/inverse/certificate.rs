//! Certificates: computed upper bounds of an inverse's residual.

use super::{Damping, check};
use crate::dense::{check_finite, larger, temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::product::product_scratch;
use crate::{Blend, Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::product as kernel;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

/// How a residual is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Check {
    /// The residual is formed: `n³` multiply-adds, `n²` numbers of scratch for it. Certain.
    #[default]
    Full,
    /// The residual is applied to random vectors: `2 n²` multiply-adds each. The bound fails with probability at most `10^-vectors`.
    Random {
        /// `r >= 1` vectors of standard normals.
        vectors: usize,
        /// They are drawn from ChaCha8 with this seed: equal seeds give equal bits. Whoever made the inverse must not have known it.
        seed: u64,
    },
}

/// An upper bound of a residual.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Certificate {
    /// `|(scale A + damping I) X - I|_2` is at most this; infinite where a bound overflows. Below 1, `X` is invertible and
    /// `|X - (scale A + damping I)^-1|_2 <= |X|_2 residual / (1 - residual)`.
    pub residual: f64,
    /// The probability with which it may be wrong: 0 for [`Check::Full`].
    pub failure_probability: f64,
}

/// A certificate for `x` as the inverse of `M = scale A + damping I`: an upper bound of `|M X - I|_2`, the rounding of its own computation
/// included. `a` `[n, n]` is symmetric, its lower triangle is read; `triangle` says what `x` `[n, n]` holds: a lower triangle is read as a
/// symmetric matrix, a full one as it is.
///
/// With `R^ = fl(M X - I)` computed by the engine, whose longest chain of additions is `depth`, and `u` the unit roundoff,
/// `|R^ - R| <= gamma_(depth+3) |M||X| + u |R^|` entry by entry (a product and a sum form `M`; underflow is added).
/// - **Full:** `|R|_2 <= (|R|_1 |R|_inf)^(1/2)`, where the row sums of `|M||X|` are `|M| (|X| e)` and cost `n²`.
/// - **Random:** `|R|_2 <= 10 (2/pi)^(1/2) max_k |R w_k|_2` for `r` independent vectors `w_k` of standard normals, but for a probability of
///   `10^-r`: along the leading left singular vector, `|R w|_2 >= |R|_2 |z|` with `z` standard normal, and `P(|z| <= t) <= t (2/pi)^(1/2)`
///   (Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011, lemma 4.1 with `alpha = 10`). The
///   rounding of `M (X w)`, at most `gamma_(depth+depth'+3) |M||X||w|`, is added.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Parameter`] (no vectors, too); [`Error::NotFinite`] for an entry of `a` or `x`; [`Error::Scratch`].
#[expect(clippy::too_many_arguments, reason = "the matrix is three of them")]
pub fn residual_certificate<T: Element>(
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    x: MatRef<'_, T>,
    triangle: Triangle,
    method: Check,
    par: Par,
    stack: &mut MemStack,
) -> Result<Certificate, Error> {
    let n = a.rows();
    check(a.shape(), a, scale, Damping::from(damping))?;
    check_shape("x", &[n, n], &x.shape())?;
    if let Check::Random { vectors, .. } = method {
        check_parameter("vectors", vectors as f64, vectors > 0, "a positive number")?;
    }
    check_scratch(stack, residual_certificate_scratch::<T>(n, triangle, method, par))?;
    let (mut m, stack) = temporary::<T>(stack, n * n);
    let (mut copy, stack) = temporary::<T>(stack, if triangle == Triangle::Lower { n * n } else { 0 });
    let mut m = MatMut::new(&mut m, [n, n])?;
    fill_symmetric(&mut m, "a", a, |i, j, a| scale * a + if i == j { damping } else { T::zero() })?;
    let magnitude = Magnitudes { m: m.as_ref(), a, scale: scale.to_f64(), damping: damping.to_f64() };
    match triangle {
        Triangle::Full => {
            check_finite("x", x)?;
            bound(&magnitude, x, method, par, stack)
        }
        Triangle::Lower => {
            let mut copy = MatMut::new(&mut copy, [n, n])?;
            fill_symmetric(&mut copy, "x", x, |_, _, x| x)?;
            bound(&magnitude, copy.as_ref(), method, par, stack)
        }
    }
}

/// Scratch of [`residual_certificate`].
pub fn residual_certificate_scratch<T: Element>(n: usize, triangle: Triangle, method: Check, par: Par) -> StackReq {
    let square = temporary_scratch::<T>(n * n);
    let copies = if triangle == Triangle::Lower { square.and(square) } else { square };
    let sums = StackReq::all_of(&[temporary_scratch::<f64>(n); 4]);
    let work = match method {
        Check::Full => square.and(sums).and(product_scratch::<T>(n, n, n, par)),
        Check::Random { vectors, .. } => {
            let block = temporary_scratch::<T>(n * vectors);
            StackReq::all_of(&[block, block, block, sums])
                .and(product_scratch::<T>(n, vectors, n, par).or(product_scratch::<T>(vectors, n, n, par)))
        }
    };
    copies.and(work)
}

/// [`residual_certificate`] with scratch of its own.
///
/// # Errors
/// As [`residual_certificate`].
pub fn residual_certificate_alloc<T: Element>(
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    x: MatRef<'_, T>,
    triangle: Triangle,
    method: Check,
    par: Par,
) -> Result<Certificate, Error> {
    let req = residual_certificate_scratch::<T>(a.rows(), triangle, method, par);
    with_scratch(req, |stack| residual_certificate(a, scale, damping, x, triangle, method, par, stack))
}

/// `to_ij <- f(i, j, from_ij)` below the diagonal and its mirror image above; the first result that is not finite is an error.
fn fill_symmetric<T: Element>(
    to: &mut MatMut<'_, T>,
    argument: &'static str,
    from: MatRef<'_, T>,
    f: impl Fn(usize, usize, T) -> T,
) -> Result<(), Error> {
    for i in 0..from.rows() {
        for j in 0..=i {
            let value = f(i, j, from.at([i, j]));
            if !value.is_finite() {
                return Err(Error::NotFinite { argument, index: vec![i, j] });
            }
            to.set([i, j], value);
            to.set([j, i], value);
        }
    }
    Ok(())
}

/// The computed `M` and what bounds its rounding: `G = |scale A| + damping I`, at most `|M|` but for the diagonal of an `a` with negative
/// entries there.
struct Magnitudes<'a, T> {
    m: MatRef<'a, T>,
    a: MatRef<'a, T>,
    scale: f64,
    damping: f64,
}

impl<T: Element> Magnitudes<'_, T> {
    /// `out <- G v` for `v >= 0`, in `f64`: less than the exact one by at most `n + 3` roundings.
    fn apply(&self, out: &mut [f64], v: &[f64]) {
        absolute_product(out, self.m, v);
        for (i, (out, &v)) in out.iter_mut().zip(v).enumerate() {
            let g = self.scale * self.a.at([i, i]).to_f64().abs() + self.damping;
            *out += (g - self.m.at([i, i]).to_f64().abs()).max(0.0) * v;
        }
    }
}

/// `out <- |M| v`, in `f64`.
fn absolute_product<T: Element>(out: &mut [f64], m: MatRef<'_, T>, v: &[f64]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = match m.row(i) {
            Some(row) => absolute_dot(row, v),
            None => v.iter().enumerate().map(|(j, &v)| m.at([i, j]).to_f64().abs() * v).sum(),
        };
    }
}

/// `sum_j |row_j| v_j`, in partial sums that compilers make vectors of.
fn absolute_dot<T: Element>(row: &[T], v: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((rows, row_rest), (vs, v_rest)) = (row.as_chunks::<8>(), v.as_chunks::<8>());
    for (row, v) in rows.iter().zip(vs) {
        for lane in 0..8 {
            lanes[lane] += row[lane].to_f64().abs() * v[lane];
        }
    }
    let rest = row_rest.iter().zip(v_rest).map(|(&row, &v)| row.to_f64().abs() * v).sum::<f64>();
    lanes.iter().sum::<f64>() + rest
}

/// `gamma_k` of `T`, rounded upwards.
fn gamma<T: Element>(k: usize) -> f64 {
    let ku = k as f64 * T::UNIT_ROUNDOFF.to_f64();
    if ku < 1.0 { (1.0 + 4.0 * f64::EPSILON) * ku / (1.0 - ku) } else { f64::INFINITY }
}

/// What sums of up to `4 n` non-negative terms and a few products of them, computed in `f64`, may have lost.
fn inflated(value: f64, n: usize) -> f64 {
    value * (1.0 + 8.0 * (n as f64 + 8.0) * f64::EPSILON)
}

/// The spacing of subnormal numbers: a product that underflows is off by at most half of it.
fn tiny<T: Element>() -> f64 {
    T::min_positive_value().to_f64() * 2.0 * T::UNIT_ROUNDOFF.to_f64()
}

/// An upper bound that is NaN says nothing.
fn certificate(residual: f64, failure_probability: f64) -> Certificate {
    Certificate { residual: if residual.is_nan() { f64::INFINITY } else { residual }, failure_probability }
}

fn bound<T: Element>(
    magnitudes: &Magnitudes<'_, T>,
    x: MatRef<'_, T>,
    method: Check,
    par: Par,
    stack: &mut MemStack,
) -> Result<Certificate, Error> {
    match method {
        Check::Full => full(magnitudes, x, par, stack),
        Check::Random { vectors, seed } => random(magnitudes, x, vectors, seed, par, stack),
    }
}

fn full<T: Element>(
    magnitudes: &Magnitudes<'_, T>,
    x: MatRef<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<Certificate, Error> {
    let n = x.rows();
    let (mut r, stack) = temporary::<T>(stack, n * n);
    let (mut inner, stack) = temporary::<f64>(stack, n);
    let (mut rounding, stack) = temporary::<f64>(stack, n);
    let (mut rows, stack) = temporary::<f64>(stack, n);
    let (mut cols, stack) = temporary::<f64>(stack, n);
    let mut view = MatMut::new(&mut r, [n, n])?;
    kernel::product(view.rb_mut(), Blend::set(T::one()), magnitudes.m, x, par, stack);
    let u = T::UNIT_ROUNDOFF.to_f64();
    for (i, row) in r.chunks_exact_mut(n.max(1)).enumerate() {
        row[i] -= T::one();
        for (&r, col) in row.iter().zip(&mut *cols) {
            let r = r.to_f64().abs();
            rows[i] += r;
            *col += r;
        }
        // The difference on the diagonal was rounded.
        let diagonal = u * row[i].to_f64().abs();
        rows[i] += diagonal;
        cols[i] += diagonal;
    }
    let gamma = gamma::<T>(kernel::depth::<T>(n, n, n, par) + 3);
    // Row sums of |M||X| are |M| (|X| e), column sums |X|^T (|M| e), M being symmetric; each entry's products may have underflowed, those
    // that form M before they meet X.
    let ones = |v: &mut [f64]| v.fill(1.0);
    ones(&mut inner);
    absolute_product(&mut rounding, x, &inner);
    let underflow = tiny::<T>() * ((n * n) as f64 + rounding.iter().sum::<f64>());
    magnitudes.apply(&mut inner, &rounding);
    rows.iter_mut().zip(&*inner).for_each(|(row, &size)| *row += gamma * size + underflow);
    ones(&mut rounding);
    magnitudes.apply(&mut inner, &rounding);
    absolute_product(&mut rounding, x.transpose(), &inner);
    cols.iter_mut().zip(&*rounding).for_each(|(col, &size)| *col += gamma * size + underflow);
    let largest = |sums: &[f64]| sums.iter().copied().fold(0.0, larger);
    // Roots first: the product may leave the range.
    Ok(certificate(inflated(largest(&rows).sqrt() * largest(&cols).sqrt(), n), 0.0))
}

fn random<T: Element>(
    magnitudes: &Magnitudes<'_, T>,
    x: MatRef<'_, T>,
    vectors: usize,
    seed: u64,
    par: Par,
    stack: &mut MemStack,
) -> Result<Certificate, Error> {
    let n = x.rows();
    let (mut w, stack) = temporary::<T>(stack, n * vectors);
    let (mut y, stack) = temporary::<T>(stack, n * vectors);
    let (mut z, stack) = temporary::<T>(stack, n * vectors);
    let (mut inner, stack) = temporary::<f64>(stack, n);
    let (mut rounding, stack) = temporary::<f64>(stack, n);
    let (mut row_sums, stack) = temporary::<f64>(stack, n);
    let (mut ones, stack) = temporary::<f64>(stack, n);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    w.iter_mut().for_each(|w| *w = T::from_f64(rng.sample(StandardNormal)));
    // Vectors are rows.
    let shape = [vectors, n];
    let set = Blend::set(T::one());
    let w_columns = MatRef::new(&w, shape)?.transpose();
    kernel::product(MatMut::new(&mut y, shape)?.transpose(), set, x, w_columns, par, stack);
    let y_columns = MatRef::new(&y, shape)?.transpose();
    kernel::product(MatMut::new(&mut z, shape)?.transpose(), set, magnitudes.m, y_columns, par, stack);
    // Transposed views: the engine may take either side for the left.
    let depth = kernel::depth::<T>(n, vectors, n, par).max(kernel::depth::<T>(vectors, n, n, par));
    let (gamma, u, tiny) = (gamma::<T>(2 * depth + 3), T::UNIT_ROUNDOFF.to_f64(), tiny::<T>());
    ones.fill(1.0);
    magnitudes.apply(&mut row_sums, &ones);
    let mut most = 0.0f64;
    for (w, z) in w.chunks_exact(n.max(1)).zip(z.chunks_exact(n.max(1))) {
        ones.iter_mut().zip(w).for_each(|(v, &w)| *v = w.to_f64().abs());
        absolute_product(&mut inner, x, &ones);
        let formed = inner.iter().sum::<f64>();
        magnitudes.apply(&mut rounding, &inner);
        let (mut sum, mut slack) = (0.0, 0.0);
        for ((&z, &w), (&size, &row)) in z.iter().zip(w).zip(rounding.iter().zip(&*row_sums)) {
            let r = (z - w).to_f64();
            sum += r * r;
            let off = gamma * size + u * r.abs() + tiny * (n as f64 * (row + 1.0) + formed);
            slack += off * off;
        }
        most = larger(most, sum.sqrt() + slack.sqrt());
    }
    let factor = 10.0 * core::f64::consts::FRAC_2_PI.sqrt();
    let power = -(vectors.min(400) as i32);
    Ok(certificate(inflated(factor * most, n), 10f64.powi(power)))
}
