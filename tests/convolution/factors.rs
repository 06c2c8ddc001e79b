//! The safe factors against unfolded images: every option, exact on dyadic numbers, within the derived bound on reals.

use super::naive;
use foof::convolution::{Axis, Conv, FactorPlan, FeatureOrder, conv_error_factor_alloc, conv_input_factor_alloc};
use foof::covariance::FactorOptions;
use foof::scaling::Scaling;
use foof::{Bias, Par, Sharing, Triangle, View, ViewMut};
use foof_kernels::conv::errors;
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_exact, assert_within};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};

/// Rows of patches of one group, `[N T, f (+ 1)]`, as the multiply-adds of the layer have them.
fn patches(conv: &Conv, n: usize, x: &[f64], group: usize) -> Dense {
    let (size, positions, outputs) = (conv.factor_size(), conv.positions(), conv.out_channels());
    let mut rows = Dense::zeros(n * positions, size);
    // The group's first output channel reads every feature of the group.
    let channel = group * (outputs / conv.groups());
    naive::terms(conv, n, |i, j, k| {
        let (image, o, t) = (k / (outputs * positions), k / positions % outputs, k % positions);
        if o == channel {
            rows[(image * positions + t, j % size)] = i.map_or(1.0, |i| x[i]);
        }
    });
    rows
}

/// Rows of errors of one group, `[N T, o]`.
fn pixels(conv: &Conv, n: usize, e: &[f64], group: usize) -> Dense {
    let (positions, outputs, size) = (conv.positions(), conv.out_channels(), conv.out_channels() / conv.groups());
    Dense::from_fn(n * positions, size, |row, o| {
        e[(row / positions * outputs + group * size + o) * positions + row % positions]
    })
}

/// Sums over the positions of each image, times `scale`.
fn reduced(rows: &Dense, positions: usize, scale: f64) -> Dense {
    Dense::from_fn(rows.rows / positions, rows.cols, |n, j| {
        (0..positions).map(|t| rows[(n * positions + t, j)]).sum::<f64>() * scale
    })
}

/// Blocks below one another, as the function's output lists them.
fn stacked(blocks: impl Iterator<Item = Dense>) -> Dense {
    let blocks: Vec<Dense> = blocks.collect();
    let (rows, cols) = (blocks[0].rows, blocks[0].cols);
    Dense::from_fn(rows * blocks.len(), cols, |i, j| blocks[i / rows][(i % rows, j)])
}

/// 16 outputs: means over positions of small integers are exact.
fn geometries() -> Vec<Conv> {
    let axis = |stride| Axis::new(4 * stride, 3).padding(1).stride(stride);
    let conv = |stride: usize| Conv::new(4, 6, [axis(stride), axis(stride)]).expect("a convolution");
    let mut all = Vec::new();
    for conv in [conv(1), conv(2)] {
        for order in [FeatureOrder::ChannelTaps, FeatureOrder::TapsChannel] {
            for groups in [1, 2] {
                let conv = conv.with_order(order).with_groups(groups).expect("groups");
                all.extend([conv, conv.with_bias()]);
            }
        }
    }
    all
}

#[test]
fn factors_are_exact_with_every_option() {
    let mut random = Random::new(1);
    let n = 4;
    for conv in geometries() {
        let values = |random: &mut Random, len: usize| (0..len).map(|_| random.integer(3)).collect::<Vec<f64>>();
        let x = values(&mut random, conv.input_shape(n).iter().product());
        let e = values(&mut random, conv.output_shape(n).iter().product());
        let (groups, t) = (conv.groups(), conv.positions());
        for sharing in [Sharing::Expand, Sharing::Reduce] {
            for (rows_per_datapoint, decay) in [(1, 0.0), (2, 0.5)] {
                let options = FactorOptions { sharing, rows_per_datapoint, decay, ..FactorOptions::default() };
                let sums = |rows: Dense, scale: f64| {
                    let rows = if sharing == Sharing::Expand { rows } else { reduced(&rows, t, scale) };
                    rows.transpose().matmul(&rows)
                };
                let datapoints = (n / rows_per_datapoint) as f64;
                let per_error = if sharing == Sharing::Expand { datapoints * t as f64 } else { datapoints };
                let inputs = stacked((0..groups).map(|g| sums(patches(&conv, n, &x, g), 1.0 / t as f64)));
                let errors = stacked((0..groups).map(|g| sums(pixels(&conv, n, &e, g), 1.0)));
                let blended = |sums: &Dense, scale: f64| sums.map(|v| decay * 8.0 + (1.0 - decay) * scale * v);
                let (inputs, errors) = (blended(&inputs, 1.0 / datapoints), blended(&errors, 1.0 / per_error));
                for layout in [Layout::RowMajor, Layout::ColumnMajor, Layout::Scattered] {
                    for par in isas() {
                        let what = format!("{conv:?} {options:?} {layout:?} {par:?}");
                        let x = Buffer::<f32, 4>::embed(&x, shape(conv.input_shape(n)), layout);
                        let e = Buffer::<bf16, 4>::embed(&e, shape(conv.output_shape(n)), layout);
                        let start = |size: usize| match decay {
                            0.0 => Buffer::<f32, 3>::poisoned([groups, size, size], layout),
                            _ => Buffer::embed(&vec![8.0; groups * size * size], [groups, size, size], layout),
                        };
                        let mut out = start(conv.factor_size());
                        let plan = FactorPlan::new::<f32>(&conv, par);
                        conv_input_factor_alloc(out.view_mut(), x.view(), &plan, &options, par).expect("good input");
                        assert_exact(&flat(&out), &inputs, &format!("inputs of {what}"));
                        let mut out = start(conv.out_channels() / groups);
                        conv_error_factor_alloc(out.view_mut(), e.view(), &conv, &options, par).expect("good input");
                        assert_exact(&flat(&out), &errors, &format!("errors of {what}"));
                    }
                }
            }
        }
    }
}

/// Images with two spatial axes.
fn shape([n, c, _, y, x]: [usize; 5]) -> [usize; 4] {
    [n, c, y, x]
}

fn flat(out: &Buffer<f32, 3>) -> Dense {
    out.assert_margins_intact("a factor");
    Dense::from_slice(out.shape[0] * out.shape[1], out.shape[2], &out.elements())
}

#[test]
fn scalings_count_images_and_outputs() {
    let conv = Conv::new(1, 1, [Axis::new(4, 1)]).expect("a convolution");
    let (x, n, t) = ([1.0f64; 8], 2.0, 4.0);
    for (scaling, input, error) in [
        (Scaling::Foof, 1.0 / n, 1.0 / (n * t)),
        (Scaling::KfacJax, 1.0 / (n * t), 1.0 / (n * t)),
        (Scaling::KfacPytorch, 1.0 / (n * t * t * t), 1.0 / (n * t)),
        (Scaling::Sum, 1.0, 1.0),
    ] {
        let (options, par) = (FactorOptions { scaling, ..FactorOptions::default() }, Par::seq());
        let (mut a, mut b) = ([f64::NAN], [f64::NAN]);
        let x = View::new(&x, [2, 1, 4]).expect("a view");
        let plan = FactorPlan::new::<f64>(&conv, par);
        let out = ViewMut::new(&mut a, [1, 1, 1]).expect("a view");
        conv_input_factor_alloc(out, x, &plan, &options, par).expect("good input");
        let out = ViewMut::new(&mut b, [1, 1, 1]).expect("a view");
        conv_error_factor_alloc(out, x, &conv, &options, par).expect("good input");
        assert_eq!((a[0], b[0]), (8.0 * input, 8.0 * error), "{scaling:?}");
    }
}

#[test]
fn a_bias_asked_for_may_be_the_geometrys() {
    let conv = Conv::new(1, 1, [Axis::new(2, 1)]).expect("a convolution").with_bias();
    let options = FactorOptions { bias: Bias::With, triangle: Triangle::Lower, ..FactorOptions::default() };
    let (par, x) = (Par::seq(), [f16::from_f64(2.0), f16::from_f64(3.0)]);
    let mut out = [f32::NAN; 4];
    let view = ViewMut::new(&mut out, [1, 2, 2]).expect("a view");
    let x = View::new(&x, [1, 1, 2]).expect("a view");
    conv_input_factor_alloc(view, x, &FactorPlan::new::<f32>(&conv, par), &options, par).expect("good input");
    assert!(out[1].is_nan() && [out[0], out[2], out[3]] == [13.0, 5.0, 2.0], "{out:?}");
}

#[test]
fn error_factors_are_within_the_bound() {
    let mut random = Random::new(2);
    let axis = Axis::new(12, 3).padding(1);
    let conv = Conv::new(3, 40, [axis, axis]).expect("a convolution").with_groups(1).expect("groups");
    let (n, t) = (6, conv.positions());
    let e: Vec<f64> = (0..conv.output_shape(n).iter().product()).map(|_| f64::from(random.normal() as f32)).collect();
    let e32: Vec<f32> = e.iter().map(|&v| v as f32).collect();
    for sharing in [Sharing::Expand, Sharing::Reduce] {
        let options = FactorOptions { sharing, scaling: Scaling::Sum, ..FactorOptions::default() };
        let rows = |e: &[f64]| {
            let rows = pixels(&conv, n, e, 0);
            if sharing == Sharing::Expand { rows } else { reduced(&rows, t, 1.0) }
        };
        let expected = rows(&e).transpose().matmul(&rows(&e));
        // Sums of magnitudes bound those of the terms, also where positions are summed first.
        let abs: Vec<f64> = e.iter().map(|v| v.abs()).collect();
        let magnitude = rows(&abs).transpose().matmul(&rows(&abs));
        let run = |par| {
            let mut out = vec![f32::NAN; 40 * 40];
            let view = ViewMut::new(&mut out, [1, 40, 40]).expect("a view");
            let e = View::new(&e32, shape(conv.output_shape(n))).expect("a view");
            conv_error_factor_alloc(view, e, &conv, &options, par).expect("good input");
            out
        };
        for (isa, got) in for_every_par("error factor", run) {
            let depth = errors::depth::<f32>(n, &conv, sharing, Par::seq().with_isa(isa));
            // Both factors of a reduced product are sums; the portable path rounds each product.
            let bound = bounds::blended_product(
                Format::of::<f32>(),
                &magnitude,
                (1.0, 0.0),
                &expected,
                2 * n * t,
                2 * depth + 1,
            );
            let got = Dense::from_slice(40, 40, &got);
            assert_within(&got, &expected, &bound, &format!("{isa}, {sharing:?}"));
        }
    }
}
