//! Small integers, which are exact in every precision: every rung gives the oracle's bits.

use crate::run::{Number, embedded, padded, plain, rounds, rows_of, run, rungs, stream_in_order};
use foof_cuda::covariance::{Rung, Spec};
use foof_cuda::tile::{Cut, Math, Tile};
use foof_emulation::for_every_order;
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Blend, Element, Triangle};
use foof_oracle::compare::{assert_exact, assert_same_bits};
use foof_oracle::layout::{Buffer, Layout, poison};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};

/// Every rung and option, layouts and orders of threads in turn, outputs poisoned.
fn every_option<I: Number>() {
    let mut random = Random::new(1);
    let mut turn = 0;
    let number = |v: f64| <I::Acc as Element>::from_f64(v);
    for [n, t, d] in [[1, 1, 1], [5, 1, 9], [3, 4, 17], [2, 3, 66]] {
        let x = random.integers(n * t, d, 4);
        for choice in 0..8 {
            let [reduced, with_bias, centred] = [1, 2, 4].map(|bit| choice & bit != 0);
            let spec = Spec {
                sharing: if reduced { Sharing::Reduce } else { Sharing::Expand },
                bias: if with_bias { Bias::With } else { Bias::Without },
                reduce_scale: number(2.0),
                // Not the mean: an integer.
                centre_scale: centred.then_some(number(3.0)),
                ..plain(Blend::set(number(1.0)))
            };
            let rows = rows_of(&x, [n, t, d], &spec);
            let expected = rows.transpose().matmul(&rows);
            for rung in rungs::<I>(reduced || centred) {
                // Rows that are sums have more bits than a rung that rounds keeps.
                if rounds(rung) && (reduced || centred) {
                    continue;
                }
                turn += 1;
                let Some(stream) = stream_in_order(turn) else { return };
                let layout = Layout::ALL[turn % Layout::ALL.len()];
                let out = Buffer::poisoned([rows.cols, rows.cols], layout);
                let out = run(&stream, rung, &embedded::<I>(&x, [n, t, d], turn), &spec, out);
                assert_exact(&out.dense(), &expected, &format!("[{n}, {t}, {d}] {spec:?} {rung:?} turn {turn}"));
            }
        }
    }
}

#[test]
fn every_option_is_exact_f32() {
    every_option::<f32>();
}

#[test]
fn every_option_is_exact_f64() {
    every_option::<f64>();
}

#[test]
fn every_option_is_exact_half() {
    every_option::<bf16>();
    every_option::<f16>();
}

/// Sizes around every edge, and depths over three stages; the rungs of tiles in turn.
fn every_edge(sizes: impl Iterator<Item = usize>, depths: impl Iterator<Item = usize> + Clone, rungs: &[Rung]) {
    let mut random = Random::new(2);
    let mut turn = 0;
    for d in sizes {
        for n in depths.clone() {
            let x = random.integers(n, d, 4);
            let expected = x.transpose().matmul(&x);
            turn += 1;
            let Some(stream) = stream_in_order(turn / rungs.len()) else { return };
            let spec = plain(Blend::set(1.0));
            let out = Buffer::poisoned([d, d], Layout::RowMajor);
            let rung = rungs[turn % rungs.len()];
            let out = run(&stream, rung, &embedded::<f32>(&x, [n, 1, d], turn), &spec, out);
            assert_exact(&out.dense(), &expected, &format!("N = {n}, d = {d}, {rung:?}, turn {turn}"));
        }
    }
}

fn tiles(tile: Tile, all: &[Math]) -> Vec<Rung> {
    all.iter().map(|&math| Rung::Tiles { math, tile }).collect()
}

#[test]
fn every_edge_of_small_tiles_is_exact() {
    let rungs = tiles(Tile::SMALL, &[Math::Fma, Math::Tf32x3, Math::Tf32, Math::Bf16]);
    every_edge((0..=20).chain(60..=70), 0..=40, &rungs);
    every_edge(126..=132, (0..=40).step_by(3), &rungs);
}

#[test]
fn every_edge_of_large_tiles_is_exact() {
    let rungs = tiles(Tile::LARGE, &[Math::Fma, Math::Tf32x3, Math::Tf32, Math::Bf16]);
    every_edge((1..=20).step_by(4).chain(60..=66), (1..=40).step_by(5), &rungs);
    every_edge(126..=132, (1..=40).step_by(6), &rungs);
    every_edge([255, 256, 257].into_iter(), [15, 17].into_iter(), &rungs);
}

/// Deep sums are cut into chunks, whose slots are added.
#[test]
fn chunks_are_exact() {
    let mut random = Random::new(3);
    for (turn, (n, d)) in [(511, 3), (512, 65), (513, 20), (800, 63), (1300, 5)].into_iter().enumerate() {
        let x = random.integers(n, d, 2);
        let expected = x.transpose().matmul(&x);
        let buffer = embedded::<f32>(&x, [n, 1, d], turn * 3);
        for rung in rungs::<f32>(false) {
            let Some(stream) = stream_in_order(turn) else { return };
            if let Rung::Tiles { tile, .. } = rung {
                assert_eq!(Cut::with_tile(tile, d, n).chunks > 1, n >= 512, "what this test is about");
            }
            for triangle in [Triangle::Full, Triangle::Lower] {
                let spec = Spec { triangle, ..plain(Blend::set(1.0)) };
                let out = run(&stream, rung, &buffer, &spec, Buffer::poisoned([d, d], Layout::ColumnMajor));
                let got = Dense::from_fn(d, d, |i, j| match triangle {
                    Triangle::Full => out.dense()[(i, j)],
                    Triangle::Lower => out.dense()[(i.max(j), i.min(j))],
                });
                assert_exact(&got, &expected, &format!("N = {n}, d = {d}, {rung:?} {triangle:?}"));
            }
        }
    }
}

#[test]
fn the_upper_triangle_is_left_alone_when_one_is_asked() {
    let mut random = Random::new(4);
    for d in [1, 7, 65] {
        let x = padded::<f32>(&random.integers(5, d, 4).data, [5, 1, d]);
        for rung in rungs::<f32>(false) {
            for layout in [Layout::RowMajor, Layout::ColumnMajor, Layout::Scattered] {
                let Some(stream) = stream_in_order(d) else { return };
                let spec = plain(Blend::set(1.0));
                let full = run(&stream, rung, &x, &spec, Buffer::poisoned([d, d], layout));
                let spec = Spec { triangle: Triangle::Lower, ..spec };
                let lower = run(&stream, rung, &x, &spec, Buffer::poisoned([d, d], layout));
                let (full, lower) = (full.elements(), lower.elements());
                for i in 0..d {
                    assert_same_bits(&lower[i * d..=i * d + i], &full[i * d..=i * d + i], "lower");
                    let untouched = vec![poison::<f32>(); d - i - 1];
                    assert_same_bits(&lower[i * d + i + 1..(i + 1) * d], &untouched, "upper");
                }
            }
        }
    }
}

/// Order and grouping of the batch cannot matter by a bit where sums are exact.
#[test]
fn permuting_and_splitting_the_batch_changes_nothing() {
    let mut random = Random::new(5);
    for (n, d) in [(2, 3), (41, 70), (60, 17)] {
        let x = random.integers(n, d, 8);
        let order = random.permutation(n);
        let permuted = Dense::from_fn(n, d, |i, j| x[(order[i], j)]);
        let cut = 1 + random.below(n - 1);
        for rung in rungs::<f32>(false) {
            let Some(stream) = stream_in_order(n) else { return };
            let moment =
                |x: &Dense, out, blend| run(&stream, rung, &padded::<f32>(&x.data, [x.rows, 1, d]), &plain(blend), out);
            let fresh = || Buffer::poisoned([d, d], Layout::RowMajor);
            let whole = moment(&x, fresh(), Blend::set(1.0));
            let other = moment(&permuted, fresh(), Blend::set(1.0));
            assert_same_bits(&other.elements(), &whole.elements(), "permuted");
            let first = moment(&x.block(0..cut, 0..d), fresh(), Blend::set(1.0));
            let both = moment(&x.block(cut..n, 0..d), first, Blend::add(1.0));
            assert_same_bits(&both.elements(), &whole.elements(), "split");
        }
    }
}

/// Whatever the order of threads and blocks, and from run to run: on reals, whose sums have an order.
#[test]
fn the_bits_do_not_depend_on_the_order_of_threads() {
    let mut random = Random::new(6);
    for (n, d) in [(37, 70), (600, 9)] {
        let x = Buffer::<f32, 3>::embed(&random.normals(n, d).rounded::<f32>().data, [n, 1, d], Layout::RowMajor);
        for rung in rungs::<f32>(false) {
            for sharing in [Sharing::Expand, Sharing::Reduce] {
                let spec = Spec { sharing, bias: Bias::With, ..plain(Blend::set(0.3)) };
                let size = [d + 1, d + 1];
                for_every_order(
                    &format!("N = {n}, d = {d}, {rung:?}"),
                    |v: f32| u64::from(v.to_bits()),
                    |stream| run(stream, rung, &x, &spec, Buffer::poisoned(size, Layout::RowMajor)).elements(),
                );
            }
        }
    }
}
