//! Layouts and types of images, layouts of outputs, triangles, blends, edges of tiles, batches of several chunks: integers bit for bit, nothing else
//! read or written.

use crate::device::{assert_exact, plans};
use bytemuck::Pod;
use foof_cuda::convolution::{Plan, Rung};
use foof_cuda::tile::{Kind, Math, Tile};
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::covariance::Sharing;
use foof_kernels::{Input, Triangle};
use foof_oracle::images::convolutions;
use foof_oracle::images::{Images, Problem, Request, padded};
use foof_oracle::layout::Layout;
use foof_oracle::{Dense, Random};
use half::{bf16, f16};
use num_traits::NumCast;

/// Each of the types by one algorithm, which `number` chooses.
fn check<I: Input + Pod + NumCast>(problem: &Problem, request: &Request, sums: &[Dense], number: usize) {
    let all = plans::<I>(&problem.conv, problem.n);
    assert_exact::<I>(problem, request, &[all[number % all.len()].clone()], sums);
}

/// Channels first and last, in every layout.
#[test]
fn images_of_every_layout_and_type() {
    let (mut random, mut number) = (Random::new(1), 0);
    for conv in convolutions() {
        let problem = Problem::integers(conv, 2, &mut random);
        let sums = problem.expected(Sharing::Expand);
        for layout in Layout::ALL {
            for images in [Images::ChannelsFirst(layout), Images::ChannelsLast(layout)] {
                let request = Request { images, ..Request::default() };
                check::<f32>(&problem, &request, &sums, number);
                match number % 3 {
                    0 => check::<f64>(&problem, &request, &sums, number / 3),
                    1 => check::<bf16>(&problem, &request, &sums, number / 3),
                    _ => check::<f16>(&problem, &request, &sums, number / 3),
                }
                number += 1;
            }
        }
    }
}

/// Channels-last images of whole vectors are read where they lie, groups and all; others are packed.
#[test]
fn images_in_place() {
    let mut random = Random::new(2);
    for (channels, groups) in [(4, 1), (8, 2), (24, 3), (68, 1)] {
        let conv = Conv::new(channels, groups, [padded(4, 3), padded(3, 3)]).expect("a geometry");
        let conv = conv.with_groups(groups).expect("groups");
        let problem = Problem::integers(conv, 2, &mut random);
        let sums = problem.expected(Sharing::Expand);
        for layout in [Layout::RowMajor, Layout::FirstReversed, Layout::WideRows] {
            let request = Request { images: Images::ChannelsLast(layout), ..Request::default() };
            let correlation = Rung::Correlation { tile: Tile::SMALL, rows: 1, columns: 1 };
            let plan = Plan::with_rung::<f32>(&conv, 2, Math::Tf32x3, correlation).expect("a plan");
            assert_exact::<f32>(&problem, &request, &[plan], &sums);
            let plan = Plan::with_rung::<bf16>(&conv, 2, Math::Mma, correlation).expect("a plan");
            assert_exact::<bf16>(&problem, &request, &[plan], &sums);
        }
    }
}

/// Poison is around every output; with one triangle, above the diagonal too; with `beta = 0`, everywhere.
#[test]
fn outputs_of_every_layout_blend_and_triangle() {
    let (mut random, mut number) = (Random::new(3), 0);
    for conv in convolutions() {
        let problem = Problem::integers(conv, 2, &mut random);
        let sums = problem.expected(Sharing::Expand);
        for output in Layout::ALL {
            for triangle in [Triangle::Full, Triangle::Lower] {
                let blend = [[1.0, 0.0], [1.0, 1.0], [-2.0, 0.5], [0.5, -1.0], [0.0, 1.0]][number % 5];
                let request = Request { output, triangle, blend, ..Request::default() };
                check::<f32>(&problem, &request, &sums, number);
                if number.is_multiple_of(3) {
                    check::<f64>(&problem, &request, &sums, number / 3);
                }
                number += 1;
            }
        }
    }
}

/// A plan for six images serves fewer: also where whole chunks of their depth are left out.
#[test]
fn fewer_images_than_the_plan_is_for() {
    let mut random = Random::new(7);
    let most = 6;
    for (number, conv) in convolutions().into_iter().chain([large()]).enumerate() {
        let all = plans::<f32>(&conv, most);
        for n in [1, 5] {
            let problem = Problem::integers(conv, n, &mut random);
            let some = [all[0].clone(), all[1 + (number + n) % (all.len() - 1)].clone()];
            assert_exact::<f32>(&problem, &Request::default(), &some, &problem.expected(Sharing::Expand));
        }
    }
}

/// Of several chunks.
fn large() -> Conv {
    Conv::new(2, 1, [padded(20, 3), padded(21, 3)]).expect("a geometry")
}

/// The sum is empty, and meets the output as any other.
#[test]
fn no_images() {
    for conv in convolutions() {
        let problem = Problem { conv, n: 0, x: Vec::new() };
        let size = conv.factor_size();
        let zeros = vec![Dense::zeros(size, size); conv.groups()];
        for (number, blend) in [[1.0, 0.0], [1.0, 0.5]].into_iter().enumerate() {
            let request = Request { blend, ..Request::default() };
            for number in [number, number + 2, number + 3] {
                check::<f32>(&problem, &request, &zeros, number);
            }
            assert_exact::<f32>(&problem, &request, &plans::<f32>(&conv, 3)[..1], &zeros);
        }
    }
}

/// Around every edge of a tile, of an assembled block and of a vector.
#[test]
fn channels_around_tile_edges() {
    let mut random = Random::new(4);
    let edges = [2, 4, 5, 7, 8, 9, 16, 21, 22, 31, 32, 33, 43, 63, 64, 65, 127, 128, 129];
    for (number, channels) in edges.into_iter().enumerate() {
        let order = [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel][number % 2];
        let axis = if number % 4 < 2 { padded(4, 3) } else { padded(5, 3).stride(2) };
        let conv = Conv::new(channels, 1, [axis]).expect("a geometry").with_order(order);
        let problem = Problem::integers(conv, 2, &mut random);
        let sums = problem.expected(Sharing::Expand);
        let all = plans::<f32>(&conv, 2);
        let some = [all[0].clone(), all[3 + number % (all.len() - 3)].clone()];
        assert_exact::<f32>(&problem, &Request::default(), &some, &sums);
        if channels < 70 {
            check::<f64>(&problem, &Request::default(), &sums, number);
        }
    }
}

/// Tiles whose depth is split, in each form.
#[test]
fn batches_of_several_chunks() {
    let mut random = Random::new(5);
    for (channels, n, order) in [(3, 5, FeatureOrder::ChannelTaps), (20, 3, FeatureOrder::TapsChannel)] {
        let conv = Conv::new(channels, 1, [padded(17, 3), padded(15, 3)]).expect("a geometry").with_bias();
        let problem = Problem::integers(conv.with_order(order), n, &mut random);
        let sums = problem.expected(Sharing::Expand);
        let all = plans::<f32>(&problem.conv, n);
        assert!(all.iter().any(|plan| plan.chunks() > 2), "several chunks");
        let tile = |math| math_plans(&problem.conv, n, math);
        for plan in Math::all(Kind::F32).iter().flat_map(|&math| tile(math)) {
            assert_exact::<f32>(&problem, &Request { blend: [1.0, 0.5], ..Request::default() }, &[plan], &sums);
        }
    }
}

fn math_plans(conv: &Conv, n: usize, math: Math) -> Vec<Plan> {
    let correlation = |tile| Rung::Correlation { tile, rows: 2, columns: 3 };
    let rungs = [Rung::Unfold, correlation(Tile::SMALL), correlation(Tile::LARGE)];
    rungs.map(|rung| Plan::with_rung::<f32>(conv, n, math, rung).expect("a plan")).to_vec()
}

/// The number of outputs is a power of two, so that their mean is exact.
#[test]
fn reduced_integers_are_exact() {
    let mut random = Random::new(6);
    let geometries = [
        (1, [padded(4, 3), padded(8, 3)]),
        (10, [Axis::new(5, 2), Axis::new(4, 1)]),
        (50, [Axis::new(4, 2).stride(2), padded(2, 3)]),
        (4, [padded(1, 3).padding(4).dilation(3).padding_each([4, 5]), Axis::new(4, 1)]),
    ];
    for (number, (channels, axes)) in geometries.into_iter().enumerate() {
        for (order, groups) in [(FeatureOrder::ChannelTaps, 1), (FeatureOrder::TapsChannel, channels)] {
            let conv = Conv::new(channels, channels, axes).expect("a geometry").with_order(order);
            let conv = conv.with_groups(groups).expect("groups");
            for conv in [conv, conv.with_bias()] {
                let triangle = [Triangle::Full, Triangle::Lower][number % 2];
                let images = Images::ChannelsLast(Layout::Scattered);
                let request = Request { sharing: Sharing::Reduce, triangle, images, ..Request::default() };
                let problem = Problem::integers(conv, 1 + channels % 3, &mut random);
                let sums = problem.expected(Sharing::Reduce);
                check::<f32>(&problem, &request, &sums, number);
                check::<f64>(&problem, &request, &sums, number);
                check::<bf16>(&problem, &request, &sums, number);
            }
        }
    }
}
