//! EK-FAC's second moments `sum_n (E_n^T X_n)²` against the oracle: exact on integers, within the derived bound on reals, for every
//! layout, instruction set and number of threads.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::covariance::{second_moments, second_moments_depth, second_moments_scratch};
use foof_kernels::{Blend, Element, Par};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random, fisher};
use proptest::prelude::*;

/// `[N, T, o]` and `[N, T, i]`.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n: usize,
    t: usize,
    o: usize,
    i: usize,
}

impl Shape {
    fn buffer<T: Element>(self, rows: &Dense, layout: Layout) -> Buffer<T, 3> {
        Buffer::embed(&rows.data, [self.n, self.t, rows.cols], layout)
    }

    /// `sum_n (E_n^T X_n)²`, every gradient formed.
    fn moments(self, e: &Dense, x: &Dense) -> Dense {
        let pairs = fisher::datapoints(e, self.t).into_iter().zip(fisher::datapoints(x, self.t));
        pairs.fold(Dense::zeros(self.o, self.i), |sum, (e, x)| {
            let g = e.transpose().matmul(&x);
            sum.plus(&g.hadamard(&g))
        })
    }
}

fn run<T: Element>(
    shape: Shape,
    e: &Buffer<T, 3>,
    x: &Buffer<T, 3>,
    mut out: Buffer<T, 2>,
    blend: Blend<T>,
    par: Par,
) -> Buffer<T, 2> {
    let Shape { n, t, o, i } = shape;
    let mut memory = MemBuffer::new(second_moments_scratch::<T>([n, t, o], i, par));
    second_moments(out.view_mut(), blend, e.view(), x.view(), par, MemStack::new(&mut memory));
    out.assert_margins_intact("moments");
    out
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for t in [1, 2, 3, 7] {
        for (o, i) in [(1, 1), (3, 5), (8, 48), (9, 47), (49, 7), (50, 97)] {
            shapes.extend([0, 1, 3].map(|n| Shape { n, t, o, i }));
        }
    }
    // Tiles on every side of an edge, groups longer than a slab, and work that threads share.
    let more = [(2, 129, 5, 6), (2, 256, 10, 30), (5, 16, 97, 191), (5, 9, 193, 260), (40, 3, 200, 300)];
    shapes.extend(more.map(|(n, t, o, i)| Shape { n, t, o, i }));
    shapes
}

fn integers_are_exact_in<T: Element>() {
    let mut random = Random::new(1);
    for shape in shapes() {
        let Shape { n, t, o, i } = shape;
        let (e, x, old) = (random.integers(n * t, o, 2), random.integers(n * t, i, 2), random.integers(o, i, 8));
        let expected = shape.moments(&e, &x);
        let blended = old.scaled(2.0).plus(&expected.scaled(-3.0));
        let (e, x) = (shape.buffer::<T>(&e, Layout::RowMajor), shape.buffer::<T>(&x, Layout::RowMajor));
        for (blend, expected) in [((1.0, 0.0), expected), ((-3.0, 2.0), blended)] {
            let old = if blend.1 == 0.0 { old.map(|_| f64::NAN) } else { old.clone() };
            let blend = Blend { alpha: T::from_f64(blend.0), beta: T::from_f64(blend.1) };
            for (isa, got) in for_every_par(&format!("{shape:?}"), |par| {
                run(shape, &e, &x, Buffer::matrix(&old, Layout::RowMajor), blend, par).elements()
            }) {
                assert_exact(&Dense::from_slice(o, i, &got), &expected, &format!("{isa}: {shape:?} {blend:?}"));
            }
        }
    }
}

#[test]
fn integers_are_exact() {
    integers_are_exact_in::<f32>();
    integers_are_exact_in::<f64>();
}

#[test]
fn every_layout_gives_the_same_integers() {
    let mut random = Random::new(2);
    for t in [1, 4] {
        let shape = Shape { n: 3, t, o: 19, i: 53 };
        let (e, x) = (random.integers(3 * t, 19, 2), random.integers(3 * t, 53, 2));
        let expected = shape.moments(&e, &x);
        for left in Layout::ALL {
            for right in Layout::ALL {
                for output in [Layout::RowMajor, Layout::ColumnMajor, Layout::Reversed, Layout::Scattered] {
                    for par in isas() {
                        let (e, x) = (shape.buffer::<f32>(&e, left), shape.buffer(&x, right));
                        let out = run(shape, &e, &x, Buffer::poisoned([19, 53], output), Blend::set(1.0), par);
                        assert_exact(&out.dense(), &expected, &format!("{par:?} {t} {left:?} {right:?} {output:?}"));
                    }
                }
            }
        }
    }
}

fn within_bound<T: Element>(shape: Shape, (alpha, beta): (f64, f64), seed: u64) {
    let Shape { n, t, o, i } = shape;
    let mut random = Random::new(seed);
    let (e, x) = (random.normals(n * t, o).rounded::<T>(), random.normals(n * t, i).rounded::<T>());
    let old = random.normals(o, i).rounded::<T>();
    let blend = Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) };
    let (alpha, beta) = (blend.alpha.to_f64(), blend.beta.to_f64());
    let expected = old.scaled(beta).plus(&shape.moments(&e, &x).scaled(alpha));
    let magnitude = shape.moments(&e.abs(), &x.abs());
    let (e, x) = (shape.buffer::<T>(&e, Layout::RowMajor), shape.buffer(&x, Layout::RowMajor));
    let run = |par| run(shape, &e, &x, Buffer::matrix(&old, Layout::RowMajor), blend, par).elements();
    for (isa, got) in for_every_par(&format!("{shape:?}"), run) {
        // The portable path rounds the products of both factors of a square too.
        let depth = second_moments_depth::<T>([n, t, o], i, Par::seq().with_isa(isa)) + 2;
        let bound = bounds::blended_product(Format::of::<T>(), &magnitude, (alpha, beta), &old, 2 * t + n + 1, depth);
        assert_within(&Dense::from_slice(o, i, &got), &expected, &bound, &format!("{isa}: {shape:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reals_are_within_the_bound(
        n in 1usize..12, t in 1usize..20, o in 1usize..120, i in 1usize..120, alpha in -2.0..2.0f64, beta in 0.0..1.0f64, seed: u64,
    ) {
        within_bound::<f32>(Shape { n, t, o, i }, (alpha, beta), seed);
        within_bound::<f64>(Shape { n, t, o, i }, (alpha, beta), seed);
    }
}
