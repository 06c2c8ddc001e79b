//! Random images within the derived bound, over random geometries; symmetric to the bit, positive semidefinite up to the bound.

use crate::run::{OnCpu, plans};
use foof_kernels::conv::{Axis, Conv, Form, Plan, depth, sums};
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Element, Par, Triangle};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_positive_semidefinite, assert_within};
use foof_oracle::images::{Images, Problem, Request, padded, random_request};
use foof_oracle::kernels::for_every_par;
use foof_oracle::layout::Layout;
use foof_oracle::{Dense, Random};
use proptest::prelude::*;

/// [`bounds::blended_product`] with `depth`, one more for a product that is not fused, and
///
/// - reduced: the chain of a second window and three roundings. A term is a product of two means; each has the chain of a window, the
///   rounding of `1 / T` and of the product with it, of which `depth` counts one window and one rounding;
/// - unfolded: the old entry is added to once for each block, of which there are no more than additions, `gamma_depth |beta||C|`.
fn bound<T: Element>(
    problem: &Problem,
    magnitude: &Dense,
    old: &Dense,
    request: &Request,
    plan: &Plan,
    par: Par,
) -> Dense {
    let format = Format::of::<T>();
    let second = match request.sharing {
        Sharing::Expand => 0,
        Sharing::Reduce => sums::depth(&problem.conv) + 3,
    };
    let depth = depth::<T>(problem.n, plan, request.sharing, par) + 1 + second;
    // Terms of the oracle's sums: all rows, or each image's twice and the images.
    let inner = (2 * problem.conv.positions() + 1) * problem.n + 2;
    let [alpha, beta] = request.blend;
    let once = bounds::blended_product(format, magnitude, (alpha, beta), old, inner, depth);
    let again = if *plan.form() == Form::Unfold { format.gamma(depth) * beta.abs() } else { 0.0 };
    once.plus(&old.abs().scaled(again))
}

fn check<T: Element>(problem: &Problem, request: &Request, random: &mut Random) {
    let (groups, size) = (problem.conv.groups(), problem.conv.factor_size());
    let blend: [f64; 2] = request.blend.map(|v| T::from_f64(v).to_f64());
    let request = &Request { blend, ..*request };
    let old: Vec<Dense> = (0..groups)
        .map(|_| random.normals(size, size).rounded::<T>())
        .map(|old| Dense::from_fn(size, size, |i, j| old[(i.max(j), i.min(j))]))
        .collect();
    let sums = problem.expected(request.sharing);
    let magnitudes = problem.with(problem.n, problem.x.iter().map(|v| v.abs()).collect()).expected(request.sharing);
    let images = problem.images::<T>(request.images);
    let [alpha, beta] = blend;
    for number in 0..plans::<T>(&problem.conv, Par::seq()).len() {
        let plan = |par: Par| plans::<T>(&problem.conv, par).swap_remove(number);
        let got = for_every_par("reals", |par| {
            problem.run(&images, &plan(par), request, problem.output(&old, request), par).elements()
        });
        for (isa, got) in got {
            let par = Par::seq().with_isa(isa);
            let plan = plan(par);
            for (g, got) in got.chunks_exact(size * size).enumerate() {
                let what = format!("{plan}, {isa}, n = {}, group {g} of {:?}, {request:?}", problem.n, problem.conv);
                let got = Dense::from_slice(size, size, got);
                let mut bound = bound::<T>(problem, &magnitudes[g], &old[g], request, &plan, par);
                let mut expected =
                    sums[g].zip(&old[g], |sum, old| alpha * sum + if beta == 0.0 { 0.0 } else { beta * old });
                if request.triangle == Triangle::Lower {
                    (bound, expected) = (bound.lower(), expected.lower());
                    assert_within(&got.lower(), &expected, &bound, &what);
                    continue;
                }
                assert_within(&got, &expected, &bound, &what);
                assert!(got.is_symmetric(), "{what}: symmetric to the bit");
                if beta == 0.0 && alpha > 0.0 && size <= 60 {
                    assert_positive_semidefinite(&got, bound.frobenius(), &what);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn factors_are_within_the_bound(
        (conv, n, request) in random_request(),
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        check::<f32>(&Problem::normals::<f32>(conv, n, &mut random), &request, &mut random);
        check::<f64>(&Problem::normals::<f64>(conv, n, &mut random), &request, &mut random);
    }
}

/// Sums over chunks, blocks and slabs; an implicit unfold in several blocks onto an old factor.
#[test]
fn large_batches_are_within_the_bound() {
    let mut random = Random::new(1);
    let conv = |channels, axes: [Axis; 2]| Conv::new(channels, 1, axes).expect("a geometry");
    for (conv, n) in [
        (conv(16, [padded(12, 3), padded(12, 3)]), 37),
        (conv(3, [padded(90, 3), padded(131, 3)]), 2),
        (conv(50, [padded(8, 3), padded(8, 3)]).with_bias(), 6),
        (conv(12, [padded(61, 3).stride(2), padded(60, 3)]), 12),
    ] {
        let request = Request { blend: [0.01, 0.95], ..Request::default() };
        check::<f32>(&Problem::normals::<f32>(conv, n, &mut random), &request, &mut random);
        let request = Request { images: Images::ChannelsLast(Layout::RowMajor), ..Request::default() };
        check::<f64>(&Problem::normals::<f64>(conv, n.min(8), &mut random), &request, &mut random);
    }
}

/// The row of a bias is a sum of samples, and its corner a count, which rounds at most once.
#[test]
fn a_bias_is_within_the_bound() {
    let mut random = Random::new(2);
    let conv = Conv::new(2, 1, [padded(50, 3), padded(60, 3)]).expect("a geometry").with_bias();
    assert_eq!(conv.bias(), Bias::With);
    for sharing in [Sharing::Expand, Sharing::Reduce] {
        let request = Request { sharing, blend: [1.0 / 3.0, 0.0], ..Request::default() };
        check::<f32>(&Problem::normals::<f32>(conv, 9, &mut random), &request, &mut random);
        check::<f64>(&Problem::normals::<f64>(conv, 9, &mut random), &request, &mut random);
    }
}
