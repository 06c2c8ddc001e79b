//! At a benchmark's size: the factor times a random vector, against patches formed one row at a time.

use crate::run::OnCpu;
use foof_kernels::conv::{Conv, Plan, depth};
use foof_kernels::covariance::Sharing;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::compare::assert_within;
use foof_oracle::images::{Problem, Request, padded};
use foof_oracle::kernels::isas;
use foof_oracle::{Dense, Random};

/// `A v` against `X^T (X v)` for a random `v`, in f64, by the bound times `|v|`.
#[test]
fn benchmark_sizes_pass_a_random_vector_check() {
    let n = 32;
    let conv = Conv::new(64, 64, [padded(32, 3), padded(32, 3)]).expect("a geometry");
    let mut random = Random::new(1);
    let problem = Problem::normals::<f32>(conv, n, &mut random);
    let d = conv.factor_size();
    let v = random.normals(d, 1);
    let (mut expected, mut magnitude) = (Dense::zeros(d, 1), Dense::zeros(d, 1));
    for image in problem.x.chunks_exact(problem.image_len()) {
        // One image's patches at a time.
        let patches = problem.with(1, image.to_vec()).rows().swap_remove(0).swap_remove(0);
        for row in (0..patches.rows).map(|t| patches.row(t)) {
            let product = |f: fn(f64) -> f64| row.iter().zip(&v.data).map(|(&x, &v)| f(x) * f(v)).sum::<f64>();
            let (signed, absolute) = (product(|x| x), product(f64::abs));
            for (i, &x) in row.iter().enumerate() {
                expected.data[i] += x * signed;
                magnitude.data[i] += x.abs() * absolute;
            }
        }
    }
    let (format, rows) = (Format::of::<f32>(), n * conv.positions());
    let images = problem.images::<f32>(Request::default().images);
    for par in isas() {
        let plan = Plan::new::<f32>(&conv, par);
        let request = Request::default();
        let got = problem.run(&images, &plan, &request, problem.output(&[], &request), par).elements();
        let got = Dense::from_slice(d, d, &got).matmul(&v);
        // A product that is not fused rounds once more. The oracle multiplies twice and the check once in f64.
        let depth = depth::<f32>(n, &plan, Sharing::Expand, par) + 1;
        let bound = magnitude.scaled(format.gamma(depth) + F64.gamma(2 * (rows + d)));
        let tiny = rows as f64 * format.tiny * v.frobenius() * (d as f64).sqrt();
        assert_within(&got, &expected, &bound.map(|b| b + tiny), &format!("{plan}, {par:?}"));
    }
}
