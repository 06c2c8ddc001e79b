//! The golden convolutional network: factors from its images, folded as they are.

use crate::run::{OnCpu, plans};
use foof_kernels::conv::{Axis, Conv};
use foof_kernels::covariance::Sharing;
use foof_oracle::Dense;
use foof_oracle::bounds::F64;
use foof_oracle::case::Case;
use foof_oracle::compare::assert_within;
use foof_oracle::images::{Problem, Request};
use foof_oracle::kernels::for_every_par;

/// Both settings, every plan. Either evaluation sums `N T` products and scales; or `N` products of sums over `T` outputs that are scaled too.
#[test]
fn golden_factors_expand_and_reduce() {
    let case = Case::load("cnn");
    let layers = case.layers.iter().enumerate().filter_map(|(l, layer)| Some((l, layer.as_ref()?)));
    let mut seen = 0;
    for (l, layer) in layers {
        let name = format!("input.{l}");
        let shape = case.golden.shape(&name);
        let [n, channels, ref size @ ..] = shape[..] else { panic!("{name}: {shape:?}") };
        let axes: [Axis; 2] = std::array::from_fn(|axis| {
            let at = axis + 1;
            let axis = Axis::new(size[axis], layer.kernel[at]).stride(layer.stride[at]).dilation(layer.dilation[at]);
            axis.padding_each(layer.padding[at])
        });
        let outputs = case.golden.shape(&format!("weight.{l}"))[0];
        let conv =
            Conv::new(channels, outputs, axes).and_then(|conv| conv.with_groups(layer.groups)).expect("a geometry");
        let problem = Problem { conv, n, x: case.golden.values(&name) };
        let absolute = problem.with(n, problem.x.iter().map(|v| v.abs()).collect());
        let d = conv.factor_size();
        for (sharing, suffix, depth) in [
            (Sharing::Expand, "", n * conv.positions() + 2),
            (Sharing::Reduce, "_reduce", n + 2 + 2 * (conv.positions() + 1)),
        ] {
            let request = Request { sharing, blend: [1.0 / n as f64, 0.0], ..Request::default() };
            let golden = case.golden.blocks(&format!("factor_input{suffix}.{l}"));
            let images = problem.images::<f64>(request.images);
            for number in 0..2 {
                let got = for_every_par(&name, |par| {
                    let plan = &plans::<f64>(&conv, par)[number];
                    problem.run(&images, plan, &request, problem.output(&[], &request), par).elements()
                });
                for (isa, got) in got {
                    for (g, got) in got.chunks_exact(d * d).enumerate() {
                        let bound = absolute.expected(sharing)[g].scaled(2.0 * F64.gamma(depth) / n as f64);
                        let what = format!("{isa}: layer {l}, group {g}, {sharing:?}");
                        assert_within(&Dense::from_slice(d, d, got), &golden[g], &bound, &what);
                        seen += 1;
                    }
                }
            }
        }
    }
    assert!(seen >= 4 * (1 + 2 + 1), "{seen} factors");
}
