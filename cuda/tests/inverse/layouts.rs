//! Where matrices lie, which triangle is read and which is written.

use crate::{How, definite, embed, invert, run, rungs, stream};
use foof::Element;
use foof_kernels::Triangle;
use foof_oracle::Random;
use foof_oracle::compare::assert_same_bits;
use foof_oracle::layout::{Buffer, Layout, poison};

/// The same matrices, of which the rows are columns in memory: each matrix column-major where the layout has contiguous rows.
fn transposed<T>(mut buffer: Buffer<T, 3>) -> Buffer<T, 3> {
    buffer.strides.swap(1, 2);
    buffer
}

/// Every layout, as it is and with rows and columns exchanged, which of a symmetric matrix holds the same values.
fn layouts() -> impl Iterator<Item = (Layout, bool)> + Clone {
    Layout::ALL.into_iter().flat_map(|layout| [(layout, false), (layout, true)])
}

fn turned<T>(buffer: Buffer<T, 3>, turn: bool) -> Buffer<T, 3> {
    if turn { transposed(buffer) } else { buffer }
}

fn layouts_agree<T: Element>(orders: &[usize]) {
    let stream = stream!();
    let mut random = Random::new(34);
    for &n in orders {
        let a = definite::<T>(&mut random, 5, n, 10.0);
        let shape = [5, n, n];
        for rung in rungs::<T>(n, &stream) {
            let (expected, _) = invert::<T>(rung, &a, n, How::same(0.5), &stream);
            for ((from, turn_from), (to, turn_to)) in layouts().flat_map(|from| layouts().map(move |to| (from, to))) {
                let source = turned(embed::<T>(&a, shape, from), turn_from);
                let mut out = turned(Buffer::poisoned(shape, to), turn_to);
                let failures = run(rung, &source, &mut out, How::same(0.5), &stream);
                assert_eq!(failures, [], "positive definite");
                let what = format!("{rung:?} n = {n} from {from:?} {turn_from} to {to:?} {turn_to}");
                assert_same_bits(&out.elements(), &expected.elements(), &what);
            }
        }
    }
}

#[test]
fn every_layout_gives_the_same_bits() {
    layouts_agree::<f32>(&[1, 3, 12, 21]);
    layouts_agree::<f64>(&[2, 8, 19]);
}

/// The upper triangles of the inputs are NaN, those of the outputs are left alone.
#[test]
fn a_triangle_is_read_and_a_triangle_written() {
    let stream = stream!();
    let mut random = Random::new(35);
    for n in [1, 2, 5, 8, 16, 30, 40] {
        let a = definite::<f32>(&mut random, 6, n, 10.0);
        let shape = [6, n, n];
        let upper: Vec<bool> = (0..6 * n * n).map(|k| k % n > k / n % n).collect();
        for rung in rungs::<f32>(n, &stream) {
            let (expected, _) = invert::<f32>(rung, &a, n, How::same(0.25), &stream);
            for ((layout, turn), triangle) in layouts().flat_map(|l| [Triangle::Lower, Triangle::Full].map(|t| (l, t)))
            {
                let mut from = turned(embed::<f32>(&a, shape, layout), turn);
                let places = from.places();
                places.iter().zip(&upper).filter(|(_, upper)| **upper).for_each(|(&k, _)| from.data[k] = f32::NAN);
                let mut out = turned(Buffer::<f32, 3>::poisoned(shape, layout), turn);
                let failures = run(rung, &from, &mut out, How { triangle, ..How::same(0.25) }, &stream);
                assert_eq!(failures, [], "positive definite");
                let mut wanted = expected.elements();
                if triangle == Triangle::Lower {
                    wanted.iter_mut().zip(&upper).filter(|(_, upper)| **upper).for_each(|(v, _)| *v = poison());
                }
                let what = format!("{rung:?} n = {n} {layout:?} {turn} {triangle:?}");
                assert_same_bits(&out.elements(), &wanted, &what);
            }
        }
    }
}
