//! The covariance of a batch of images by every plan of the CPU.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::conv::{Conv, ConvSpec, Form, Plan, covariance, scratch};
use foof_kernels::{Blend, Element, Input, Par, Triangle};
use foof_oracle::Dense;
use foof_oracle::compare::assert_same_bits;
use foof_oracle::images::{Problem, Request};
use foof_oracle::kernels::for_every_par;
use foof_oracle::layout::{Buffer, poison};
use half::{bf16, f16};
use std::mem::MaybeUninit;

/// Every algorithm for a geometry.
pub fn plans<T: Element>(conv: &Conv, par: Par) -> Vec<Plan> {
    let chosen = Plan::new::<T>(conv, par);
    let mut plans = vec![Plan::correlation::<T>(conv, par), Plan::unfold(conv)];
    match chosen.form() {
        Form::Pixels | Form::Depthwise(_) => plans.push(chosen),
        form => assert!(plans.iter().any(|plan| plan.form() == form), "{chosen}"),
    }
    plans
}

/// What an algorithm is called.
pub fn name(plan: &Plan) -> &'static str {
    match plan.form() {
        Form::Pixels => "pixels",
        Form::Correlation(_) => "correlation",
        Form::Depthwise(_) => "depthwise correlation",
        Form::Unfold => "implicit unfold",
    }
}

/// What is run on the CPU.
pub trait OnCpu {
    /// Runs a plan into `out`, with scratch of the length it asks for, poisoned.
    fn run<I: Input + bytemuck::Pod>(
        &self,
        images: &Buffer<I, 5>,
        plan: &Plan,
        request: &Request,
        out: Buffer<I::Acc, 3>,
        par: Par,
    ) -> Buffer<I::Acc, 3>;

    /// Every plan on every instruction set and several numbers of threads, for integers: the oracle's bits. Entries above the
    /// diagonal stay as they are if one triangle is asked.
    #[track_caller]
    fn assert_exact<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, request: &Request);

    /// The same with the sums known.
    #[track_caller]
    fn assert_exactly<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, request: &Request, sums: &[Dense]);
}

impl OnCpu for Problem {
    fn run<I: Input + bytemuck::Pod>(
        &self,
        images: &Buffer<I, 5>,
        plan: &Plan,
        request: &Request,
        mut out: Buffer<I::Acc, 3>,
        par: Par,
    ) -> Buffer<I::Acc, 3> {
        let [alpha, beta] = request.blend.map(<I::Acc as Element>::from_f64);
        let spec = ConvSpec { sharing: request.sharing, triangle: request.triangle, blend: Blend { alpha, beta } };
        let mut memory = MemBuffer::new(scratch::<I::Acc>(self.n, plan, request.sharing, par));
        // Scratch that is read before it is written is NaN.
        memory.fill(MaybeUninit::new(0xff));
        covariance(out.view_mut(), images.view(), plan, &spec, par, MemStack::new(&mut memory));
        out.assert_margins_intact("convolution's covariance");
        out
    }

    #[track_caller]
    fn assert_exact<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, request: &Request) {
        self.assert_exactly::<I>(request, &self.expected(request.sharing));
    }

    #[track_caller]
    fn assert_exactly<I: Input + bytemuck::Pod + num_traits::NumCast>(&self, request: &Request, sums: &[Dense]) {
        let size = self.conv.factor_size();
        let old: Vec<Dense> = sums.iter().map(|sum| sum.map(|v| v % 7.0 - 3.0)).collect();
        let [alpha, beta] = request.blend;
        let entry = |g: usize, i: usize, j: usize| -> I::Acc {
            if request.triangle == Triangle::Lower && j > i {
                return poison();
            }
            let kept = if beta == 0.0 { 0.0 } else { beta * old[g][(i, j)] };
            // Without the sign of a zero.
            <I::Acc as Element>::from_f64(alpha * sums[g][(i, j)] + kept + 0.0)
        };
        let places = (0..sums.len() * size * size).map(|k| entry(k / (size * size), k / size % size, k % size));
        let expected: Vec<I::Acc> = places.collect();
        let images = self.images::<I>(request.images);
        let names: Vec<_> = plans::<I::Acc>(&self.conv, Par::seq()).iter().map(name).collect();
        for (number, name) in names.into_iter().enumerate() {
            let got = for_every_par(name, |par| {
                let plan = &plans::<I::Acc>(&self.conv, par)[number];
                self.run(&images, plan, request, self.output(&old, request), par).elements()
            });
            for (isa, mut got) in got {
                got.iter_mut().filter(|x| **x == num_traits::Zero::zero()).for_each(|x| *x = num_traits::Zero::zero());
                if bytemuck::cast_slice::<_, u8>(&got) != bytemuck::cast_slice::<_, u8>(&expected) {
                    assert_same_bits(
                        &got,
                        &expected,
                        &format!("{name}, {isa}: n = {}, {:?}, {request:?}", self.n, self.conv),
                    );
                }
            }
        }
    }
}

/// `name::<f32>` .. for each type of input.
#[track_caller]
pub fn assert_exact_for_every_type(problem: &Problem, request: &Request) {
    let sums = problem.expected(request.sharing);
    problem.assert_exactly::<f32>(request, &sums);
    problem.assert_exactly::<f64>(request, &sums);
    problem.assert_exactly::<bf16>(request, &sums);
    problem.assert_exactly::<f16>(request, &sums);
}
