//! An estimate of the condition number in the 1-norm, from the factor.

use super::solve::order;
use super::{Damping, check};
use crate::dense::{larger, temporary, temporary_scratch, with_scratch};
use crate::eigen::check_finite_lower;
use crate::error::{check_parameter, check_scratch};
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use dyn_stack::DynArray;
use foof_kernels::cholesky as kernel;

/// Rounds of the estimator: it hardly ever takes more than three.
const ROUNDS: usize = 5;

/// `|scale A + damping I|_1`, the largest sum of magnitudes of a column, for symmetric `a` `[n, n]`, of which the lower triangle is read; 0
/// for `n = 0`; infinite where a sum overflows. `n²` additions.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::NotFinite`] of `scale A`, [`Error::Scratch`].
pub fn norm1<T: Element>(a: MatRef<'_, T>, scale: T, damping: T, stack: &mut MemStack) -> Result<T, Error> {
    let n = a.rows();
    check([n, n], a, scale, Damping::from(damping))?;
    check_scratch(stack, norm1_scratch::<T>(n))?;
    let (mut sums, _) = temporary::<T>(stack, n);
    for i in 0..n {
        let mut own = (scale * a.at([i, i]) + damping).abs();
        for (j, sum) in sums[..i].iter_mut().enumerate() {
            let magnitude = (scale * a.at([i, j])).abs();
            *sum += magnitude;
            own += magnitude;
        }
        sums[i] = own;
    }
    let norm = sums.iter().copied().fold(T::zero(), larger);
    match norm.is_finite() {
        true => Ok(norm),
        false => check_finite_lower("a", a, scale).map(|()| norm),
    }
}

/// Scratch of [`norm1`] of an `[n, n]` matrix.
pub fn norm1_scratch<T: Element>(n: usize) -> StackReq {
    temporary_scratch::<T>(n)
}

/// [`norm1`] with scratch of its own.
///
/// # Errors
/// As [`norm1`].
pub fn norm1_alloc<T: Element>(a: MatRef<'_, T>, scale: T, damping: T) -> Result<T, Error> {
    with_scratch(norm1_scratch::<T>(a.rows()), |stack| norm1(a, scale, damping, stack))
}

/// A lower bound of `|(L L^T)^-1|_1`, up to the rounding of a solve, that is seldom less than a third of it, from the factor `l` `[n, n]`
/// alone: the largest `|(L L^T)^-1 x|_1 / |x|_1` that is found over some `x`, `columns` of them at a time (2 is the usual choice, more
/// are surer; from `n` on all unit vectors are tried and the norm is exact up to rounding). At most eleven solves with `columns`
/// right-hand sides, `11 n² columns` multiply-adds. The start is fixed: equal arguments give equal bits.
///
/// Source: Higham & Tisseur, "A block algorithm for matrix 1-norm estimation, with an application to 1-norm pseudospectra", SIAM J. Matrix
/// Anal. Appl. 21(4), 2000, algorithm 2.4; for symmetric matrices, where the transposed product is the product. Where it starts from and
/// replaces columns by random signs, we take rows of a Hadamard matrix, and as second column LAPACK's alternating vector (Higham 1988).
///
/// # Errors
/// [`Error::Shape`]; [`Error::Parameter`] for `columns = 0`; [`Error::Scratch`].
pub fn inverse_norm1_estimate<T: Element>(
    l: MatRef<'_, T>,
    columns: usize,
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let n = order(l)?;
    check_parameter("columns", columns as f64, columns > 0, "a positive number")?;
    check_scratch(stack, inverse_norm1_estimate_scratch::<T>(n, columns, par))?;
    let t = columns.min(n);
    if n == 0 {
        return Ok(T::zero());
    }
    let (mut x, stack) = temporary::<T>(stack, t * n);
    // Vectors are rows here: each contiguous.
    let solve = |x: &mut [T], stack: &mut MemStack| -> Result<(), Error> {
        kernel::solve_left(l, MatMut::new(x, [t, n])?.transpose(), par, stack);
        Ok(())
    };
    if t == n {
        (0..n).for_each(|i| x[i * n + i] = T::one());
        solve(&mut x, stack)?;
        return Ok(largest_quotient(&x, n, |_| T::one()).1);
    }
    let (mut signs, stack) = temporary::<T>(stack, t * n);
    let (mut old, stack) = temporary::<T>(stack, t * n);
    let (mut height, stack) = temporary::<T>(stack, n);
    let (mut ranked, stack): (DynArray<'_, usize>, _) = stack.make_with(n, |i| i);
    let (mut tried, stack): (DynArray<'_, bool>, _) = stack.make_with(n, |_| false);
    let (mut current, stack): (DynArray<'_, usize>, _) = stack.make_with(t, |_| n);
    start(&mut x, n);
    let alternating = x.chunks(n).nth(1).map_or(T::one(), sum_of_magnitudes);
    let mut estimate = T::zero();
    for round in 0..=ROUNDS {
        solve(&mut x, stack)?;
        let (column, found) = largest_quotient(&x, n, |row| match (round, row) {
            (0, 1) => alternating,
            (0, _) => T::from_f64(n as f64),
            _ => T::one(),
        });
        if found.is_nan() {
            return Ok(found);
        }
        if round > 0 && found <= estimate {
            break;
        }
        estimate = found;
        let best = current[column];
        if round == ROUNDS {
            break;
        }
        old.copy_from_slice(&signs);
        signs.iter_mut().zip(&*x).for_each(|(s, &y)| *s = if y < T::zero() { -T::one() } else { T::one() });
        if round > 0 && signs.chunks(n).all(|s| old.chunks(n).any(|o| parallel(s, o))) {
            break;
        }
        if t > 1 {
            separate(&mut signs, &old, n);
        }
        // The estimate's gradient: where it is largest, a unit vector promises most.
        x.copy_from_slice(&signs);
        solve(&mut x, stack)?;
        height.fill(T::zero());
        for z in x.chunks(n) {
            height.iter_mut().zip(z).for_each(|(h, &z)| *h = h.max(z.abs()));
        }
        let most = height.iter().fold(T::zero(), |most, &h| most.max(h));
        if round > 0 && best < n && most == height[best] {
            break;
        }
        let descending =
            |&a: &usize, &b: &usize| height[b].partial_cmp(&height[a]).unwrap_or(core::cmp::Ordering::Equal);
        ranked.sort_unstable_by(|a, b| descending(a, b).then(a.cmp(b)));
        if ranked[..t].iter().all(|&i| tried[i]) {
            break;
        }
        x.fill(T::zero());
        let mut fresh = ranked.iter().copied().filter(|&i| !tried[i]);
        let chosen = current.iter_mut().zip(x.chunks_mut(n));
        for (current, x) in chosen {
            // All tried: the vector stays zero and adds nothing.
            *current = fresh.next().unwrap_or(n);
            x.iter_mut().skip(*current).take(1).for_each(|x| *x = T::one());
        }
        current.iter().filter(|&&i| i < n).for_each(|&i| tried[i] = true);
    }
    Ok(estimate)
}

/// Scratch of [`inverse_norm1_estimate`] for a factor `[n, n]`.
pub fn inverse_norm1_estimate_scratch<T: Element>(n: usize, columns: usize, par: Par) -> StackReq {
    let t = columns.min(n);
    let vectors = StackReq::all_of(&[temporary_scratch::<T>(t * n); 3]);
    let lists = StackReq::all_of(&[StackReq::new::<usize>(n), StackReq::new::<bool>(n), StackReq::new::<usize>(t)]);
    StackReq::all_of(&[vectors, temporary_scratch::<T>(n), lists, kernel::solve_scratch::<T>(n, t, par)])
}

/// [`inverse_norm1_estimate`] with scratch of its own.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`].
pub fn inverse_norm1_estimate_alloc<T: Element>(l: MatRef<'_, T>, columns: usize, par: Par) -> Result<T, Error> {
    let req = inverse_norm1_estimate_scratch::<T>(l.rows(), columns, par);
    with_scratch(req, |stack| inverse_norm1_estimate(l, columns, par, stack))
}

/// An estimate of `|A|_1 |A^-1|_1`, from the factor `l` of `A` and `norm = |A|_1` ([`norm1`]): `norm` times
/// [`inverse_norm1_estimate`], with its errors, and infinite where that product is. A lower bound up to rounding.
///
/// # Errors
/// As [`inverse_norm1_estimate`]; [`Error::Parameter`] for a norm that is negative or not finite.
pub fn condition_estimate<T: Element>(
    l: MatRef<'_, T>,
    norm: T,
    columns: usize,
    par: Par,
    stack: &mut MemStack,
) -> Result<T, Error> {
    let valid = norm >= T::zero() && norm.is_finite();
    check_parameter("norm", norm.to_f64(), valid, "a finite number, not negative")?;
    inverse_norm1_estimate(l, columns, par, stack).map(|inverse| norm * inverse)
}

/// Scratch of [`condition_estimate`] for a factor `[n, n]`.
pub fn condition_estimate_scratch<T: Element>(n: usize, columns: usize, par: Par) -> StackReq {
    inverse_norm1_estimate_scratch::<T>(n, columns, par)
}

/// [`condition_estimate`] with scratch of its own.
///
/// # Errors
/// As [`condition_estimate`].
pub fn condition_estimate_alloc<T: Element>(l: MatRef<'_, T>, norm: T, columns: usize, par: Par) -> Result<T, Error> {
    let req = condition_estimate_scratch::<T>(l.rows(), columns, par);
    with_scratch(req, |stack| condition_estimate(l, norm, columns, par, stack))
}

fn sum_of_magnitudes<T: Element>(x: &[T]) -> T {
    x.iter().map(|x| x.abs()).sum()
}

/// The row of the largest sum of magnitudes over the row's `norm`, and that quotient; one that is NaN is the largest.
fn largest_quotient<T: Element>(x: &[T], n: usize, norm: impl Fn(usize) -> T) -> (usize, T) {
    let quotients = x.chunks(n).enumerate().map(|(row, x)| (row, sum_of_magnitudes(x) / norm(row)));
    quotients.fold(
        (0, T::zero()),
        |most, found| if larger(most.1, found.1) == most.1 || most.1.is_nan() { most } else { found },
    )
}

/// All ones; then LAPACK's `(-1)^i (1 + i / (n-1))`; then signs.
fn start<T: Element>(x: &mut [T], n: usize) {
    for (row, x) in x.chunks_mut(n).enumerate() {
        for (i, x) in x.iter_mut().enumerate() {
            *x = match row {
                1 => T::from_f64(alternating(i) * (1.0 + i as f64 / (n as f64 - 1.0))),
                _ => sign(row, i),
            };
        }
    }
}

fn alternating(i: usize) -> f64 {
    if i.is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// Entry `i` of row `row` of Sylvester's Hadamard matrix.
fn sign<T: Element>(row: usize, i: usize) -> T {
    T::from_f64(alternating((row & i).count_ones() as usize))
}

fn parallel<T: Element>(a: &[T], b: &[T]) -> bool {
    a == b || a.iter().zip(b).all(|(&a, &b)| a == -b)
}

/// Replaces each row of signs that is parallel to one before it or to an old one, which would tell nothing new, by another.
fn separate<T: Element>(signs: &mut [T], old: &[T], n: usize) {
    let (rows, mut next) = (signs.len() / n, 0);
    for row in 0..rows {
        let (before, own) = signs.split_at_mut(row * n);
        let own = &mut own[..n];
        let known = |own: &[T]| before.chunks(n).chain(old.chunks(n)).any(|other| parallel(own, other));
        // Fewer than `2 rows` are known, each replaced once: only where n is so small that there are no others does this end in vain.
        while known(own) && next < 4 * rows {
            own.iter_mut().enumerate().for_each(|(i, s)| *s = sign(next, i));
            next += 1;
        }
    }
}
