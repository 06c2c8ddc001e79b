//! Running a problem on the device.

use bytemuck::Pod;
use foof_cuda::convolution::{DevicePlan, Plan, Rung, covariance, scratch};
use foof_cuda::tile::{Kind, Math, Tile};
use foof_cuda::{Buffer, CudaError, Scratch, Stream};
use foof_emulation::for_every_order;
use foof_kernels::conv::{Conv, ConvSpec};
use foof_kernels::{Blend, Element, Input, Triangle};
use foof_oracle::Dense;
use foof_oracle::compare::assert_same_bits;
use foof_oracle::images::{Problem, Request};
use foof_oracle::layout::{self, poison};
use num_traits::NumCast;

/// A request of this problem, by one plan, into `out`: the bits that the device leaves there, margins checked.
pub fn run<I: Input + Pod>(
    problem: &Problem,
    plan: &Plan,
    request: &Request,
    images: &layout::Buffer<I, 5>,
    mut out: layout::Buffer<I::Acc, 3>,
    stream: &Stream,
) -> Result<layout::Buffer<I::Acc, 3>, CudaError> {
    let [alpha, beta] = request.blend.map(<I::Acc as Element>::from_f64);
    let spec = ConvSpec { sharing: request.sharing, triangle: request.triangle, blend: Blend { alpha, beta } };
    let on_device = DevicePlan::new(plan.clone(), stream)?;
    let x = Buffer::from_host(stream, &images.data)?;
    let mut to = Buffer::from_host(stream, &out.data)?;
    let mut memory = Scratch::new(stream, scratch::<I>(plan, request.sharing))?;
    let view = x.strided(images.offset, problem.conv.input_shape(problem.n), images.strides)?;
    covariance(to.strided_mut(out.offset, out.shape, out.strides)?, view, &on_device, &spec, stream, &mut memory)?;
    out.data = to.to_host(stream)?;
    out.assert_margins_intact("convolution's covariance");
    Ok(out)
}

/// Every algorithm for a geometry.
pub fn plans<I: Input>(conv: &Conv, n: usize) -> Vec<Plan> {
    let (math, tiles) = (Math::all(Kind::of::<I>()), Tile::all(Kind::of::<I>()));
    let plan = |math, rung| Plan::with_rung::<I>(conv, n, math, rung).expect("a plan");
    let mut plans = vec![Plan::new::<I>(conv, n, math[math.len() / 3]).expect("a plan"), plan(math[0], Rung::Plain)];
    for (number, &math) in math.iter().enumerate() {
        plans.push(plan(math, Rung::Unfold));
        let groups = [(1, 1), (1, 3), (2, 2), (4, 1)].into_iter().cycle().skip(number);
        plans.extend(
            tiles
                .iter()
                .zip(groups)
                .map(|(&tile, (rows, columns))| plan(math, Rung::Correlation { tile, rows, columns })),
        );
    }
    plans
}

/// The request by a plan, for integers, under every order: the oracle's bits.
#[track_caller]
pub fn assert_exact<I: Input + Pod + NumCast>(problem: &Problem, request: &Request, plans: &[Plan], sums: &[Dense]) {
    let size = problem.conv.factor_size();
    let old: Vec<Dense> = sums.iter().map(|sum| sum.map(|v| v % 7.0 - 3.0)).collect();
    let [alpha, beta] = request.blend;
    let entry = |g: usize, i: usize, j: usize| -> I::Acc {
        if request.triangle == Triangle::Lower && j > i {
            return poison();
        }
        let kept = if beta == 0.0 { 0.0 } else { beta * old[g][(i, j)] };
        <I::Acc as Element>::from_f64(alpha * sums[g][(i, j)] + kept + 0.0)
    };
    let expected: Vec<I::Acc> =
        (0..sums.len() * size * size).map(|k| entry(k / (size * size), k / size % size, k % size)).collect();
    let images = problem.images::<I>(request.images);
    for plan in plans {
        let what = format!("{plan}: n = {}, {:?}, {request:?}", problem.n, problem.conv);
        let got = for_every_order(
            &what,
            |x: I::Acc| x.to_f64().to_bits(),
            |stream| {
                let out = run(problem, plan, request, &images, problem.output(&old, request), stream);
                out.unwrap_or_else(|error| panic!("{what}: {error}")).elements()
            },
        );
        let Some(mut got) = got else { return };
        // Without the sign of a zero.
        got.iter_mut().filter(|x| **x == num_traits::Zero::zero()).for_each(|x| *x = num_traits::Zero::zero());
        assert_same_bits(&got, &expected, &what);
    }
}
