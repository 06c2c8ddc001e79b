//! Products against the dense oracle: exact on integers, within the derived bound on reals, for every shape around the
//! tile edges, every layout, every instruction set and any number of threads.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::product::{depth, product, product_scratch};
use foof_kernels::{Blend, Element, Input, Par};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};
use proptest::prelude::*;

/// One product into a poisoned (or given) output of any layout.
fn run<I: Input + bytemuck::Pod>(
    lhs: &Buffer<I, 2>,
    rhs: &Buffer<I, 2>,
    mut out: Buffer<I::Acc, 2>,
    blend: Blend<I::Acc>,
    par: Par,
) -> Buffer<I::Acc, 2> {
    let ([m, k], n) = (lhs.shape, rhs.shape[1]);
    let mut memory = MemBuffer::new(product_scratch::<I::Acc>(m, n, k, par));
    product(out.view_mut(), blend, lhs.view(), rhs.view(), par, MemStack::new(&mut memory));
    out.assert_margins_intact("product");
    out
}

/// Sizes around every edge: vectors, panels, row steps, macro-tiles.
fn edges() -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..=10).collect();
    for edge in [16, 24, 48] {
        sizes.extend([edge - 1, edge, edge + 1]);
    }
    sizes
}

fn integer_grid<T: Element>() {
    let mut random = Random::new(1);
    for &m in &edges() {
        for &n in &edges() {
            for k in [0, 1, 2, 7] {
                let (a, b) = (random.integers(m, k, 8), random.integers(k, n, 8));
                let expected = a.matmul(&b);
                let (a, b) = (Buffer::<T, 2>::matrix(&a, Layout::RowMajor), Buffer::matrix(&b, Layout::RowMajor));
                for par in isas() {
                    let out = Buffer::poisoned([m, n], Layout::RowMajor);
                    let out = run(&a, &b, out, Blend::set(T::one()), par);
                    assert_exact(&out.dense(), &expected, &format!("{par:?}: {m} x {n} x {k}"));
                }
            }
        }
    }
}

#[test]
fn integers_are_exact_at_every_tile_edge_f32() {
    integer_grid::<f32>();
}

#[test]
fn integers_are_exact_at_every_tile_edge_f64() {
    integer_grid::<f64>();
}

/// Small products have tiles of their own: every shape up to 22 and those around vectors, panels and the largest small extent, with layouts and blends
/// in turn, so that each meets every remainder.
fn small_grid<T: Element>() {
    let mut random = Random::new(6);
    let shapes = |sizes: &[usize]| -> Vec<[usize; 3]> {
        let n = sizes.len();
        (0..n.pow(3)).map(|at| [sizes[at / n / n], sizes[at / n % n], sizes[at % n]]).collect()
    };
    let all = [shapes(&(0..=22).collect::<Vec<_>>()), shapes(&[31, 32, 33, 47, 48, 49])].concat();
    let (a, b, c) = (random.integers(49, 49, 8), random.integers(49, 49, 8), random.integers(49, 49, 8));
    let corner = |x: &Dense, m, n| Dense::from_fn(m, n, |i, j| x[(i, j)]);
    let layouts = Layout::ALL;
    for (turn, [m, n, k]) in all.into_iter().enumerate() {
        let (a, b, c) = (corner(&a, m, k), corner(&b, k, n), corner(&c, m, n));
        let (alpha, beta) = [(1.0, 0.0), (1.0, 1.0), (-3.0, 2.0), (0.0, -1.0)][turn % 4];
        let expected = c.scaled(beta).plus(&a.matmul(&b).scaled(alpha));
        let [left, right, output] = [turn, turn / 7, turn / 49].map(|turn| layouts[turn % layouts.len()]);
        let (a, b) = (Buffer::<T, 2>::matrix(&a, left), Buffer::matrix(&b, right));
        for par in isas() {
            let out = if beta == 0.0 { Buffer::poisoned([m, n], output) } else { Buffer::matrix(&c, output) };
            let out = run(&a, &b, out, Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) }, par);
            assert_exact(&out.dense(), &expected, &format!("{par:?}: {m} x {n} x {k} {left:?} {right:?} {output:?}"));
        }
    }
}

#[test]
fn small_integers_are_exact_in_every_shape() {
    small_grid::<f32>();
    small_grid::<f64>();
}

#[test]
fn small_half_width_inputs_are_widened_exactly() {
    let mut random = Random::new(7);
    let (a, b) = (random.integers(9, 13, 8), random.integers(13, 18, 8));
    let expected = a.matmul(&b);
    for (left, right) in Layout::ALL.iter().flat_map(|&left| Layout::ALL.map(|right| (left, right))) {
        for par in isas() {
            let (a, b) = (Buffer::<bf16, 2>::matrix(&a, left), Buffer::<bf16, 2>::matrix(&b, right));
            let out = run(&a, &b, Buffer::poisoned([9, 18], Layout::ColumnMajor), Blend::set(1.0), par);
            assert_exact(&out.dense(), &expected, &format!("{par:?} {left:?} {right:?}"));
        }
    }
}

/// Larger than a macro-tile, deeper than a slab, and deep enough to be cut into chunks, which end with a slab or inside one.
fn integer_blocks<T: Element>() {
    let mut random = Random::new(2);
    let chunked = [(97, 49, 2500), (17, 5, 4111), (1, 1, 5000), (33, 70, 2048), (5, 17, 4096)];
    for (m, n, k) in [(250, 241, 129), (3, 500, 260), (500, 3, 127), (9, 60, 128)].into_iter().chain(chunked) {
        let (a, b) = (random.integers(m, k, 4), random.integers(k, n, 4));
        let expected = a.matmul(&b);
        let (a, b) = (Buffer::<T, 2>::matrix(&a, Layout::RowMajor), Buffer::matrix(&b, Layout::ColumnMajor));
        let what = format!("{m} x {n} x {k}");
        for (isa, got) in for_every_par(&what, |par| {
            run(&a, &b, Buffer::poisoned([m, n], Layout::RowMajor), Blend::set(T::one()), par).elements()
        }) {
            assert_exact(&Dense::from_slice(m, n, &got), &expected, &format!("{isa}: {what}"));
        }
    }
}

#[test]
fn integers_are_exact_over_blocks_chunks_and_threads() {
    integer_blocks::<f32>();
    integer_blocks::<f64>();
}

#[test]
fn every_layout_gives_the_same_integers() {
    let mut random = Random::new(3);
    let (m, n, k) = (19, 53, 21);
    let (a, b, c) = (random.integers(m, k, 8), random.integers(k, n, 8), random.integers(m, n, 8));
    let expected = c.scaled(2.0).plus(&a.matmul(&b).scaled(-3.0));
    for left in Layout::ALL {
        for right in Layout::ALL {
            for output in Layout::ALL {
                for par in isas() {
                    let (a, b) = (Buffer::<f32, 2>::matrix(&a, left), Buffer::matrix(&b, right));
                    let out = run(&a, &b, Buffer::matrix(&c, output), Blend { alpha: -3.0, beta: 2.0 }, par);
                    assert_exact(&out.dense(), &expected, &format!("{par:?} {left:?} {right:?} {output:?}"));
                }
            }
        }
    }
}

fn widened<I: Input<Acc = f32> + bytemuck::Pod + num_traits::NumCast + num_traits::ToPrimitive>() {
    let mut random = Random::new(4);
    let (a, b) = (random.integers(37, 70, 8), random.integers(70, 61, 8));
    let expected = a.matmul(&b);
    for left in Layout::ALL {
        for par in isas() {
            let (a, b) = (Buffer::<I, 2>::matrix(&a, left), Buffer::matrix(&b, Layout::RowMajor));
            let out = run(&a, &b, Buffer::poisoned([37, 61], Layout::RowMajor), Blend::set(1.0), par);
            assert_exact(&out.dense(), &expected, &format!("{par:?} {left:?}"));
        }
    }
}

#[test]
fn half_width_inputs_are_widened_exactly() {
    widened::<bf16>();
    widened::<f16>();
}

fn within_bound<T: Element>((m, n, k): (usize, usize, usize), alpha: f64, beta: f64, seed: u64) {
    let mut random = Random::new(seed);
    let (a, b) = (random.normals(m, k).rounded::<T>(), random.normals(k, n).rounded::<T>());
    let c = random.normals(m, n).rounded::<T>();
    let (alpha, beta) = (T::from_f64(alpha), T::from_f64(beta));
    let (alpha64, beta64) = (alpha.to_f64(), beta.to_f64());
    let expected = c.scaled(beta64).plus(&a.matmul(&b).scaled(alpha64));
    let magnitude = a.abs().matmul(&b.abs());
    let (a, b) = (Buffer::<T, 2>::matrix(&a, Layout::RowMajor), Buffer::matrix(&b, Layout::RowMajor));
    let what = format!("{m} x {n} x {k}");
    for (isa, got) in for_every_par(&what, |par| {
        run(&a, &b, Buffer::matrix(&c, Layout::RowMajor), Blend { alpha, beta }, par).elements()
    }) {
        let par = Par::seq().with_isa(isa);
        // The portable path rounds each product too: one more than the chain of additions.
        let depth = depth::<T>(m, n, k, par) + 1;
        let bound = bounds::blended_product(Format::of::<T>(), &magnitude, (alpha64, beta64), &c, k, depth);
        assert_within(&Dense::from_slice(m, n, &got), &expected, &bound, &format!("{isa}: {what}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reals_are_within_the_bound(
        m in 1usize..130, n in 1usize..130, k in 1usize..400, alpha in -2.0..2.0f64, beta in -2.0..2.0f64, seed: u64,
    ) {
        within_bound::<f32>((m, n, k), alpha, beta, seed);
        within_bound::<f64>((m, n, k), alpha, beta, seed);
    }

    #[test]
    fn small_reals_are_within_the_bound(
        m in 1usize..49, n in 1usize..49, k in 1usize..49, alpha in -2.0..2.0f64, beta in -2.0..2.0f64, seed: u64,
    ) {
        within_bound::<f32>((m, n, k), alpha, beta, seed);
        within_bound::<f64>((m, n, k), alpha, beta, seed);
    }

    /// Powers of two scale without rounding, so scaling an operand scales the result's bits.
    #[test]
    fn scaling_by_powers_of_two_is_exact(m in 1usize..60, n in 1usize..60, k in 1usize..60, power in -20i32..20, seed: u64) {
        let mut random = Random::new(seed);
        let (a, b) = (random.normals(m, k).rounded::<f32>(), random.normals(k, n).rounded::<f32>());
        let factor = f64::from(power).exp2();
        for par in isas() {
            let right = Buffer::<f32, 2>::matrix(&b, Layout::RowMajor);
            let result = |a: &Dense| {
                let a = Buffer::matrix(a, Layout::RowMajor);
                run(&a, &right, Buffer::poisoned([m, n], Layout::RowMajor), Blend::set(1.0), par).dense()
            };
            assert_exact(&result(&a.scaled(factor)), &result(&a).scaled(factor), "scaled");
        }
    }
}

/// At the sizes the benchmarks use: `C v` against `A (B v)` for random `v`, in f64, by the bound times `|v|`.
#[test]
fn benchmark_sizes_pass_a_random_vector_check() {
    let (m, n, k) = (1000, 1000, 1000);
    let mut random = Random::new(5);
    let (a, b) = (random.normals(m, k).rounded::<f32>(), random.normals(k, n).rounded::<f32>());
    let v = random.normals(n, 1);
    let expected = a.matmul(&b.matmul(&v));
    let magnitude = a.abs().matmul(&b.abs().matmul(&v.abs()));
    let (left, right) = (Buffer::<f32, 2>::matrix(&a, Layout::RowMajor), Buffer::matrix(&b, Layout::RowMajor));
    for par in isas() {
        let c = run(&left, &right, Buffer::poisoned([m, n], Layout::RowMajor), Blend::set(1.0), par).dense();
        let depth = depth::<f32>(m, n, k, par) + 1;
        // The oracle multiplies twice and the check once in f64: gamma_(n + k) of that format each.
        let oracle = bounds::F64.gamma(2 * (n + k));
        let bound = bounds::product(Format::of::<f32>(), &magnitude, k, depth).plus(&magnitude.scaled(oracle));
        let bound = bound.plus(&Dense::from_fn(m, 1, |_, _| {
            k as f64 * Format::of::<f32>().tiny * v.abs().frobenius() * (n as f64).sqrt()
        }));
        assert_within(&c.matmul(&v), &expected, &bound, &format!("{par:?}"));
    }
}
