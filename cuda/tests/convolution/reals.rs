//! Random images within the derived bound, over random geometries, in every math; symmetric to the bit.

use crate::device::{plans, run};
use foof_cuda::convolution::Plan;
use foof_emulation::stream;
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Element, Triangle};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::assert_within;
use foof_oracle::images::{Problem, Request, random_request};
use foof_oracle::layout::Buffer;
use foof_oracle::{Dense, Random};
use proptest::prelude::*;

/// [`bounds::blended_product`] with the plan's depth, or with that of sums over windows in the row of a bias; reduced, a term is a product of two means, each with the
/// chain of a window, the rounding of `1 / T` and of the product with it.
fn bound<T: Element>(problem: &Problem, magnitude: &Dense, old: &Dense, request: &Request, plan: &Plan) -> Dense {
    let windows = 2 * (plan.window_depth() + 2);
    let depth = match request.sharing {
        Sharing::Expand if problem.conv.bias() == Bias::Without => plan.depth(),
        Sharing::Expand => plan.depth().max(plan.window_depth()),
        Sharing::Reduce => plan.reduced_depth() + windows,
    };
    // Terms of the oracle's sums: all rows, or each image's twice and the images.
    let inner = (2 * problem.conv.positions() + 1) * problem.n + 2;
    let [alpha, beta] = request.blend;
    bounds::blended_product(Format::of::<T>(), magnitude, (alpha, beta), old, inner, depth)
}

fn check<T: Element>(problem: &Problem, request: &Request, random: &mut Random) {
    let Some(stream) = stream() else { return };
    let (groups, size) = (problem.conv.groups(), problem.conv.factor_size());
    let blend: [f64; 2] = request.blend.map(|v| T::from_f64(v).to_f64());
    let request = &Request { blend, ..*request };
    let old: Vec<Dense> = (0..groups)
        .map(|_| random.normals(size, size).rounded::<T>())
        .map(|old| Dense::from_fn(size, size, |i, j| old[(i.max(j), i.min(j))]))
        .collect();
    let sums = problem.expected(request.sharing);
    let magnitudes = problem.with(problem.n, problem.x.iter().map(|v| v.abs()).collect()).expected(request.sharing);
    let images: Buffer<T, 5> = problem.images::<T>(request.images);
    let [alpha, beta] = blend;
    for plan in plans::<T>(&problem.conv, problem.n) {
        let what = format!("{plan}, n = {}, {:?}, {request:?}", problem.n, problem.conv);
        let got = run::<T>(problem, &plan, request, &images, problem.output(&old, request), &stream);
        let got = got.unwrap_or_else(|error| panic!("{what}: {error}")).elements();
        for (g, got) in got.chunks_exact(size * size).enumerate() {
            let got = Dense::from_slice(size, size, got);
            let mut bound = bound::<T>(problem, &magnitudes[g], &old[g], request, &plan);
            let mut expected =
                sums[g].zip(&old[g], |sum, old| alpha * sum + if beta == 0.0 { 0.0 } else { beta * old });
            if request.triangle == Triangle::Lower {
                (bound, expected) = (bound.lower(), expected.lower());
                assert_within(&got.lower(), &expected, &bound, &what);
                continue;
            }
            assert_within(&got, &expected, &bound, &what);
            assert!(got.is_symmetric(), "{what}: symmetric to the bit");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

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
