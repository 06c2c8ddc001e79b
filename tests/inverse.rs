//! Cholesky factors, triangular inverses, solves and damped inverses against Higham's bounds.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::cholesky::{
    damped_cholesky, damped_inverse, damped_inverse_scratch, potrf, potrf_scratch, solve_left, solve_scratch, trtri,
    trtri_scratch,
};
use foof_kernels::{Element, Par, Triangle};
use foof_oracle::bounds::{self, F64, Format, Outcome};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};

fn factor<T: Element>(a: &Dense, layout: Layout, par: Par) -> Result<Dense, (usize, f64)> {
    let mut l = Buffer::<T, 2>::matrix(a, layout);
    let mut memory = MemBuffer::new(potrf_scratch::<T>(a.rows, par));
    let result = potrf(l.view_mut(), par, MemStack::new(&mut memory));
    l.assert_margins_intact("potrf");
    result.map(|()| l.dense().lower()).map_err(|pivot| (pivot.index, pivot.value.to_f64()))
}

/// Sizes around the leaf, its halvings and the panels.
fn sizes() -> impl Iterator<Item = usize> {
    (0..=70).chain([95, 96, 97, 127, 128, 129, 130, 200])
}

fn factors_within_bound<T: Element>(condition: f64) {
    let mut random = Random::new(7);
    let format = Format::of::<T>();
    for n in sizes() {
        let a = random.symmetric(&log_spectrum(n, condition)).rounded::<T>();
        for par in isas() {
            let l = factor::<T>(&a, Layout::RowMajor, par).expect("positive definite");
            // |A - L L^T| <= gamma_(n+1) |L||L^T|, whatever the order of the sums; the portable path rounds each product
            // of an update too, and chunked sums add twice: n + 3 roundings. The check itself rounds in f64.
            let bound = bounds::cholesky(format, &l, &Dense::zeros(n, n));
            let slack = (format.gamma(n + 3) + F64.gamma(n)) / format.gamma(n + 1).max(f64::MIN_POSITIVE);
            assert_within(&l.matmul(&l.transpose()), &a, &bound.scaled(slack), &format!("{par:?} n = {n}"));
        }
    }
}

#[test]
fn factors_multiply_back_to_the_matrix() {
    factors_within_bound::<f32>(10.0);
    factors_within_bound::<f32>(1e4);
    factors_within_bound::<f64>(10.0);
    factors_within_bound::<f64>(1e10);
}

/// `A = L L^T` with small integers, multiples of their column's pivot: every sum, root and quotient is exact, and a product with the
/// pivot's rounded reciprocal is not (21 times a rounded seventh is not 3 in single precision).
#[test]
fn integer_factors_are_found_exactly() {
    let mut random = Random::new(8);
    for n in sizes() {
        let pivots: Vec<f64> = (0..n).map(|_| 1.0 + random.below(15) as f64).collect();
        let l = Dense::from_fn(n, n, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => pivots[j],
            std::cmp::Ordering::Greater => random.integer(15),
        });
        let a = l.matmul(&l.transpose());
        for par in isas() {
            for layout in Layout::ALL {
                assert_exact(
                    &factor::<f32>(&a, layout, par).expect("definite"),
                    &l,
                    &format!("{par:?} n = {n} {layout:?}"),
                );
            }
        }
    }
}

/// A negative pivot at every position is reported with its index and value.
/// A factor of several strips, in place and into another matrix, whose layout is another: of integers exactly.
#[test]
fn factors_of_several_strips_are_exact() {
    let mut random = Random::new(12);
    for n in [530, 1100] {
        let pivots: Vec<f64> = (0..n).map(|_| 1.0 + random.below(15) as f64).collect();
        let l = Dense::from_fn(n, n, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => pivots[j],
            std::cmp::Ordering::Greater if (7 * i + 3 * j) % 23 < 2 => pivots[j] * (random.below(5) as f64 - 2.0),
            std::cmp::Ordering::Greater => 0.0,
        });
        let a = l.matmul(&l.transpose());
        // 2 (A - 3 I), of which half and 3 I are A.
        let doubled = Buffer::<f32, 2>::matrix(&a.damped(-3.0).scaled(2.0), Layout::RowMajor);
        for (isa, factors) in for_every_par("strips", |par: Par| {
            let within = factor::<f32>(&a, Layout::RowMajor, par).expect("positive definite");
            let mut out = Buffer::<f32, 2>::matrix(&Dense::zeros(n, n), Layout::ColumnMajor);
            let mut memory = MemBuffer::new(potrf_scratch::<f32>(n, par));
            damped_cholesky(out.view_mut(), doubled.view(), 0.5, 3.0, par, MemStack::new(&mut memory))
                .expect("positive definite");
            [within, out.dense().lower()].map(|l| l.to_vec::<f32>()).concat()
        }) {
            for part in factors.chunks_exact(n * n) {
                assert_exact(&Dense::from_slice(n, n, part), &l, &format!("{isa}, n = {n}"));
            }
        }
        // The pivot of a later strip is named by its place in the whole.
        let index = n - 3;
        let mut indefinite = a.clone();
        indefinite[(index, index)] -= pivots[index] * pivots[index];
        let (got, value) = factor::<f32>(&indefinite, Layout::RowMajor, Par::threads(2)).expect_err("a zero pivot");
        assert_eq!((got, value), (index, 0.0));
    }
}

#[test]
fn an_indefinite_matrix_names_its_pivot() {
    for n in [1, 2, 31, 32, 33, 64, 65, 100] {
        for at in 0..n {
            let a = Dense::from_fn(n, n, |i, j| {
                if i != j {
                    0.0
                } else if i == at {
                    -3.0
                } else {
                    4.0
                }
            });
            for par in isas() {
                assert_eq!(factor::<f32>(&a, Layout::RowMajor, par), Err((at, -3.0)), "n = {n}");
            }
        }
    }
}

/// Success and failure where Theorem 10.7 decides them.
#[test]
fn definiteness_is_decided_as_the_theorem_says() {
    let mut random = Random::new(9);
    let (mut succeeded, mut failed) = (0, 0);
    for n in [2, 8, 33, 60] {
        for least in [-0.1, -1e-3, -1e-5, 0.0, 1e-5, 1e-3, 0.1] {
            let mut spectrum = vec![1.0; n];
            spectrum[0] = least;
            let a = random.symmetric(&spectrum).rounded::<f32>();
            let outcome = bounds::cholesky_outcome(Format::of::<f32>(), &a);
            for par in isas() {
                let result = factor::<f32>(&a, Layout::RowMajor, par);
                match outcome {
                    Outcome::Succeeds => assert!(result.is_ok(), "{par:?} n = {n}, {least:e}: {result:?}"),
                    Outcome::Fails => assert!(result.is_err(), "{par:?} n = {n}, {least:e}"),
                    Outcome::Either => {}
                }
                succeeded += usize::from(outcome == Outcome::Succeeds);
                failed += usize::from(outcome == Outcome::Fails);
            }
        }
    }
    assert!(succeeded > 0 && failed > 0, "both cases occur");
}

fn inverse<T: Element>(a: &Dense, damping: T, triangle: Triangle, layout: Layout, par: Par) -> Buffer<T, 2> {
    let n = a.rows;
    let a = Buffer::<T, 2>::matrix(a, layout);
    let mut out = Buffer::poisoned([n, n], layout);
    let mut memory = MemBuffer::new(damped_inverse_scratch::<T>(n, par));
    let stack = MemStack::new(&mut memory);
    damped_inverse(out.view_mut(), a.view(), T::one(), damping, triangle, par, stack).expect("positive definite");
    out.assert_margins_intact("damped_inverse");
    out
}

/// `|Y L - I| <= gamma |Y||L|`, entry by entry: what the inverse's own residual rests on (Higham section 14.3). For the triangle of a
/// mild matrix, and for a steep one, whose inverse grows exponentially: there the right residual `|L Y - I|` may be anything, and a
/// sweep that keeps that one small instead is far outside the bound.
fn triangular_inverses_have_small_left_residuals<T: Element>() {
    let mut random = Random::new(15);
    for n in sizes().filter(|&n| n > 0) {
        let mild = random.symmetric(&log_spectrum(n, 1e4)).cholesky().expect("positive definite");
        let steep = random.normals(n, n).lower().plus(&Dense::identity(n).scaled(1.5));
        for (kind, l) in [("mild", mild), ("steep", steep)] {
            let l = l.rounded::<T>();
            for par in isas() {
                let mut y = Buffer::<T, 2>::matrix(&l, Layout::RowMajor);
                let mut memory = MemBuffer::new(trtri_scratch::<T>(n, par));
                trtri(y.view_mut(), par, MemStack::new(&mut memory));
                y.assert_margins_intact("trtri");
                let y = y.dense().lower();
                let bound = bounds::triangular_inverse(Format::of::<T>(), &y, &l, bounds::sweep(n));
                assert_within(&y.matmul(&l), &Dense::identity(n), &bound, &format!("{par:?}: {kind}, n = {n}"));
            }
        }
    }
}

#[test]
fn triangular_inverses() {
    triangular_inverses_have_small_left_residuals::<f32>();
    triangular_inverses_have_small_left_residuals::<f64>();
}

/// The bound grows as n³ u: `largest` is where it still says something.
fn inverses_within_bound<T: Element>(condition: f64, largest: usize) {
    let mut random = Random::new(10);
    let format = Format::of::<T>();
    for n in sizes().filter(|n| (1..=largest).contains(n)) {
        let spectrum = log_spectrum(n, condition);
        let a = random.symmetric(&spectrum).rounded::<T>();
        let damping = T::from_f64(0.25);
        let damped = a.damped(0.25);
        let oracle = damped.inverse();
        let (trace, trace_inverse) = (damped.trace(), oracle.trace());
        let residual_bound = bounds::inverse_residual(format, trace, trace_inverse, bounds::sweep(n));
        assert!(residual_bound < 1.0, "n = {n}: the bound says nothing: {residual_bound:e}");
        for (isa, got) in for_every_par(&format!("n = {n}"), |par| {
            inverse(&a, damping, Triangle::Full, Layout::RowMajor, par).elements()
        }) {
            let x = Dense::from_slice(n, n, &got);
            let residual = damped.matmul(&x).minus(&Dense::identity(n)).frobenius();
            assert!(residual <= residual_bound, "{isa} n = {n}: residual {residual:e}, bound {residual_bound:e}");
            assert!(x.is_symmetric(), "{isa} n = {n}: symmetric to the bit");
        }
    }
}

#[test]
fn inverses_have_small_residuals() {
    inverses_within_bound::<f32>(4.0, 100);
    inverses_within_bound::<f64>(100.0, 200);
    inverses_within_bound::<f64>(1e6, 200);
}

#[test]
fn every_layout_gives_the_same_inverse() {
    let mut random = Random::new(11);
    let a = random.symmetric(&log_spectrum(75, 10.0)).rounded::<f64>();
    for par in isas() {
        let expected = inverse::<f64>(&a, 0.5, Triangle::Full, Layout::RowMajor, par).dense();
        for layout in Layout::ALL {
            // Layouts choose which side of a product is the panel's, and so the order of sums: equal up to both residuals.
            let got = inverse::<f64>(&a, 0.5, Triangle::Full, layout, par).dense();
            let damped = a.damped(0.5);
            let bound = 2.0
                * bounds::inverse_residual(Format::of::<f64>(), damped.trace(), expected.trace(), bounds::sweep(75));
            let off = damped.matmul(&got.minus(&expected)).frobenius();
            assert!(off <= bound, "{par:?} {layout:?}: off by {off:e}, bound {bound:e}");
        }
    }
}

/// `4^k A` has a root that is `2^k` times as large and an inverse that is `4^-k` times, to the bit.
#[test]
fn scaling_by_powers_of_four_is_exact() {
    let mut random = Random::new(14);
    for n in [1, 7, 33, 75] {
        let a = random.symmetric(&log_spectrum(n, 10.0)).rounded::<f32>();
        for par in isas() {
            for power in [-20i32, -3, 5, 16] {
                let (root, scale) = (f64::from(power).exp2(), f64::from(2 * power).exp2());
                let factor = |a: &Dense| factor::<f32>(a, Layout::RowMajor, par).expect("positive definite");
                assert_exact(&factor(&a.scaled(scale)), &factor(&a).scaled(root), "factor");
                let inverse =
                    |a: &Dense, damping: f64| inverse(a, damping as f32, Triangle::Full, Layout::RowMajor, par).dense();
                assert_exact(&inverse(&a.scaled(scale), 0.3 * scale).scaled(scale), &inverse(&a, 0.3), "inverse");
            }
        }
    }
}

fn solves_within_bound<T: Element>() {
    let mut random = Random::new(12);
    let format = Format::of::<T>();
    for n in sizes().filter(|&n| n > 0) {
        let a = random.symmetric(&log_spectrum(n, 50.0)).rounded::<T>();
        let b = random.normals(n, 37).rounded::<T>();
        for par in isas() {
            let l = factor::<T>(&a, Layout::RowMajor, par).expect("positive definite");
            let l_buffer = Buffer::<T, 2>::matrix(&l, Layout::RowMajor);
            for layout in [Layout::RowMajor, Layout::ColumnMajor] {
                let mut x = Buffer::<T, 2>::matrix(&b, layout);
                let mut memory = MemBuffer::new(solve_scratch::<T>(n, 37, par));
                solve_left(l_buffer.view(), x.view_mut(), par, MemStack::new(&mut memory));
                x.assert_margins_intact("solve_left");
                // Against L itself: (L + dL)(L^T + dL') x = b, each |dL| <= gamma_n |L| (Theorem 8.5), so the residual is
                // within (2 gamma + gamma²) |L||L^T||x|; with products rounded too on the portable path, gamma_2n.
                let x = x.dense();
                let g = format.gamma(2 * n) + F64.gamma(2 * n);
                let magnitude = l.abs().matmul(&l.abs().transpose().matmul(&x.abs()));
                let residual = l.matmul(&l.transpose().matmul(&x));
                assert_within(
                    &residual,
                    &b,
                    &magnitude.scaled(2.0 * g + g * g),
                    &format!("{par:?} n = {n} {layout:?}"),
                );
            }
        }
    }
}

#[test]
fn solves_have_small_residuals() {
    solves_within_bound::<f32>();
    solves_within_bound::<f64>();
}

/// Large enough that every way of sharing the sweeps out is taken: tiles of products, columns of right-hand sides, forked halves.
#[test]
fn threads_change_no_bit_of_a_shared_sweep() {
    let (n, cols) = (600, 300);
    let mut random = Random::new(14);
    let x = random.normals(n, n).scaled(1.0 / (n as f64).sqrt());
    let (a, b) = (x.transpose().matmul(&x), random.normals(n, cols));
    for_every_par("inverse", |par| inverse::<f32>(&a, 0.125, Triangle::Full, Layout::RowMajor, par).elements());
    let damped = a.damped(0.125);
    for_every_par("solve", |par| {
        let l = factor::<f32>(&damped, Layout::RowMajor, par).expect("positive definite");
        let (l, mut x) = (Buffer::<f32, 2>::matrix(&l, Layout::RowMajor), Buffer::matrix(&b, Layout::RowMajor));
        let mut memory = MemBuffer::new(solve_scratch::<f32>(n, cols, par));
        solve_left(l.view(), x.view_mut(), par, MemStack::new(&mut memory));
        x.elements()
    });
}

/// At a benchmark's size: the residual of a random vector, in f64, where the bound is below one.
#[test]
fn a_large_inverse_passes_a_random_vector_check() {
    let n = 1024;
    let mut random = Random::new(13);
    let x = random.normals(2 * n, n).scaled(1.0 / (2.0 * n as f64).sqrt());
    let a = x.transpose().matmul(&x);
    let v = random.normals(n, 1);
    let damped = a.damped(0.125);
    // Every eigenvalue is at least 0.125 up to the rounding of A, which a ninth more covers.
    let bound = bounds::inverse_residual(Format::of::<f64>(), damped.trace(), 9.0 * n as f64, bounds::sweep(n));
    assert!(bound < 1.0, "the bound says something: {bound:e}");
    for par in isas() {
        let inverse = inverse::<f64>(&a, 0.125, Triangle::Full, Layout::RowMajor, par).dense();
        let residual = damped.matmul(&inverse.matmul(&v)).minus(&v).frobenius();
        assert!(residual <= bound * v.frobenius(), "{par:?}: {residual:e}, bound {:e}", bound * v.frobenius());
    }
}

/// Small orders are inverted by kernels of their own: every one of them, every layout, both triangles, above the diagonal poison that must not be used.
fn small_inverses_within_bound<T: Element>() {
    let mut random = Random::new(16);
    let format = Format::of::<T>();
    for n in 1..=40 {
        let a = random.symmetric(&log_spectrum(n, 8.0)).rounded::<T>();
        let (scale, damping) = (0.75, 0.25);
        let damped = a.scaled(scale).damped(damping);
        let bound = bounds::inverse_residual(format, damped.trace(), damped.inverse().trace(), bounds::sweep(n));
        assert!(bound < 1.0, "n = {n}: the bound says nothing: {bound:e}");
        let lower = Dense::from_fn(n, n, |i, j| if i >= j { a[(i, j)] } else { f64::NAN });
        for (at, layout) in Layout::ALL.into_iter().enumerate() {
            // Over the orders each layout meets every other.
            let (lower, out_layout) =
                (Buffer::<T, 2>::matrix(&lower, layout), Layout::ALL[(at + n) % Layout::ALL.len()]);
            for par in isas() {
                let what = format!("{par:?} n = {n} {layout:?} {out_layout:?}");
                let invert = |triangle| {
                    let mut out = Buffer::<T, 2>::poisoned([n, n], out_layout);
                    let mut memory = MemBuffer::new(damped_inverse_scratch::<T>(n, par));
                    let (scale, damping) = (T::from_f64(scale), T::from_f64(damping));
                    let stack = MemStack::new(&mut memory);
                    damped_inverse(out.view_mut(), lower.view(), scale, damping, triangle, par, stack)
                        .expect("positive definite");
                    out.assert_margins_intact(&what);
                    out
                };
                let x = invert(Triangle::Full).dense();
                let residual = damped.matmul(&x).minus(&Dense::identity(n)).frobenius();
                assert!(residual <= bound, "{what}: residual {residual:e}, bound {bound:e}");
                assert!(x.is_symmetric(), "{what}: symmetric to the bit");
                let triangle = invert(Triangle::Lower).dense();
                for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let (got, full) = (triangle[(i, j)], x[(i, j)]);
                    assert!(
                        if i >= j { got == full } else { got.is_nan() },
                        "{what}: ({i}, {j}) is {got}, full {full}"
                    );
                }
            }
        }
    }
}

#[test]
fn small_inverses_have_small_residuals_in_every_layout() {
    small_inverses_within_bound::<f32>();
    small_inverses_within_bound::<f64>();
}

/// An indefinite matrix at every pivot of every small order: the pivot is named, with what was left of the diagonal there.
#[test]
fn a_small_indefinite_matrix_names_its_pivot() {
    // L L^T has ones below a diagonal of powers of two: integers, exact however they are summed.
    for n in 1..=40usize {
        let l = Dense::from_fn(n, n, |i, j| if i == j { 2.0 } else { f64::from(u8::from(i > j)) });
        let a = l.matmul(&l.transpose());
        for at in 0..n {
            for (fault, left) in [(7.0, -3.0), (4.0, 0.0), (f64::NAN, f64::NAN), (f64::NEG_INFINITY, f64::INFINITY)] {
                let broken = Dense::from_fn(n, n, |i, j| a[(i, j)] - if (i, j) == (at, at) { fault } else { 0.0 });
                for (par, layout) in
                    isas().into_iter().flat_map(|par| [(par, Layout::RowMajor), (par, Layout::ColumnMajor)])
                {
                    let a = Buffer::<f32, 2>::matrix(&broken, layout);
                    let mut out = Buffer::<f32, 2>::poisoned([n, n], layout);
                    let mut memory = MemBuffer::new(damped_inverse_scratch::<f32>(n, par));
                    let stack = MemStack::new(&mut memory);
                    let result = damped_inverse(out.view_mut(), a.view(), 1.0, 0.0, Triangle::Full, par, stack);
                    out.assert_margins_intact("damped_inverse");
                    let pivot = result.expect_err("indefinite");
                    let same = f64::from(pivot.value) == left || (pivot.value.is_nan() && left.is_nan());
                    assert!(pivot.index == at && same, "{par:?} n = {n}, {at} by {fault}: {pivot:?}");
                    assert!(out.elements().iter().all(|v| v.is_nan()), "{par:?} n = {n}: the output is as it was");
                }
            }
        }
    }
}
