//! Our side of every job.

use super::data::{DAMPING, RATE, covariance_matrices, covariance_matrix, dense, uniform};
use super::jobs::{Images, Job};
use super::natural;
use dyn_stack::{MemBuffer, MemStack, StackReq};
use foof_kernels::batched::{self, Dampings, eigen};
use foof_kernels::conv::{self, ConvSpec, Plan};
use foof_kernels::covariance::{self, Bias, Sharing, Spec, covariance, second_moments, second_moments_scratch};
use foof_kernels::product::{product, product_scratch};
use foof_kernels::{Blend, Input, MatMut, MatRef, Par, Triangle, View, ViewMut, cholesky};

/// A job with its inputs, output and scratch, ready to be called any number of times.
pub type Work = Box<dyn FnMut()>;

const POSITIVE: &str = "a damped covariance is positive definite";

fn mat(data: &[f32], shape: [usize; 2]) -> MatRef<'_, f32> {
    MatRef::new(data, shape).expect("the buffer has the shape's length")
}

fn tensor(data: &[f32], shape: [usize; 3]) -> View<'_, f32, 3> {
    View::new(data, shape).expect("the buffer has the shape's length")
}

fn mat_mut(data: &mut [f32], shape: [usize; 2]) -> MatMut<'_, f32> {
    MatMut::new(data, shape).expect("the buffer has the shape's length")
}

/// The job on `par`'s threads and instruction set.
pub fn work(job: Job, par: Par) -> Work {
    match job {
        Job::Covariance { n, d, triangle } => second_moment(uniform(n * d, 1), [n, 1, d], dense(n, triangle), par),
        Job::CovarianceBf16 { n, d } => {
            let x = uniform(n * d, 1).into_iter().map(half::bf16::from_f32).collect();
            second_moment(x, [n, 1, d], dense(n, Triangle::Lower), par)
        }
        Job::CovarianceReduce { n, t, d } => {
            let spec = Spec { sharing: Sharing::Reduce, reduce_scale: 1.0 / t as f32, ..dense(n, Triangle::Lower) };
            second_moment(uniform(n * t * d, 1), [n, t, d], spec, par)
        }
        Job::ConvCovariance { images, triangle } => conv_covariance(images, triangle, par),
        Job::Moments { n, t, o, i } => {
            let (e, x, mut out) = (uniform(n * t * o, 1), uniform(n * t * i, 2), vec![0.0; o * i]);
            with_scratch(second_moments_scratch::<f32>([n, t, o], i, par), move |stack| {
                let blend = Blend::set(1.0 / n as f32);
                let (e, x) = (tensor(&e, [n, t, o]), tensor(&x, [n, t, i]));
                second_moments(mat_mut(&mut out, [o, i]), blend, e, x, par, stack);
            })
        }
        Job::Inverse { n, triangle } => {
            let (a, mut out) = (covariance_matrix(n, 1, par), vec![0.0; n * n]);
            with_scratch(cholesky::damped_inverse_scratch::<f32>(n, par), move |stack| {
                let (out, a) = (mat_mut(&mut out, [n, n]), mat(&a, [n, n]));
                foof::inverse::damped_inverse(out, a, 1.0, DAMPING, triangle, par, stack).expect(POSITIVE);
            })
        }
        Job::Batched { batch, n } => batched(batch, n, par),
        Job::Eigen { batch, n } => {
            let (a, mut q) = (covariance_matrices(batch, n, par), vec![0.0; batch * n * n]);
            let mut values = vec![0.0; batch * n];
            with_scratch(eigen::symmetric_eigen_scratch::<f32>(batch, n, par), move |stack| {
                let vectors = ViewMut::new(&mut q, [batch, n, n]).expect("the buffer has the shape's length");
                let (values, a) = (mat_mut(&mut values, [batch, n]), tensor(&a, [batch, n, n]));
                eigen::symmetric_eigen(values, vectors, a, eigen::sweeps(n), par, stack).expect("converges");
            })
        }
        Job::Cholesky { n } => {
            let (a, mut out) = (covariance_matrix(n, 1, par), vec![0.0; n * n]);
            with_scratch(cholesky::potrf_scratch::<f32>(n, par), move |stack| {
                let (out, a) = (mat_mut(&mut out, [n, n]), mat(&a, [n, n]));
                cholesky::damped_cholesky(out, a, 1.0, DAMPING, par, stack).expect(POSITIVE);
            })
        }
        Job::Solve { n, cols } => solve(n, cols, par),
        Job::Product { n } => {
            let (a, b, mut out) = (uniform(n * n, 1), uniform(n * n, 2), vec![0.0; n * n]);
            with_scratch(product_scratch::<f32>(n, n, n, par), move |stack| {
                let (out, a, b) = (mat_mut(&mut out, [n, n]), mat(&a, [n, n]), mat(&b, [n, n]));
                foof::product::product(out, Blend::set(1.0), a, b, par, stack).expect("shapes agree");
            })
        }
        Job::Foof { o, i } => {
            let (u, p, mut w) = (uniform(o * i, 1), covariance_matrix(i, 2, par), vec![0.0; o * i]);
            with_scratch(product_scratch::<f32>(o, i, i, par), move |stack| {
                product(mat_mut(&mut w, [o, i]), Blend::add(-RATE), mat(&u, [o, i]), mat(&p, [i, i]), par, stack);
            })
        }
        Job::FoofLowRank { m, o, i } => {
            let (x, e, p) = (uniform(m * i, 1), uniform(m * o, 2), covariance_matrix(i, 3, par));
            let (mut xp, mut w) = (vec![0.0; m * i], vec![0.0; o * i]);
            let scratch = product_scratch::<f32>(m, i, i, par).or(product_scratch::<f32>(o, i, m, par));
            with_scratch(scratch, move |stack| {
                product(mat_mut(&mut xp, [m, i]), Blend::set(1.0), mat(&x, [m, i]), mat(&p, [i, i]), par, stack);
                let (w, e) = (mat_mut(&mut w, [o, i]), mat(&e, [m, o]).transpose());
                product(w, Blend::add(-RATE), e, mat(&xp, [m, i]), par, stack);
            })
        }
        Job::Kfac { o, i } => {
            let (u, p, q) = (uniform(o * i, 1), covariance_matrix(i, 2, par), covariance_matrix(o, 3, par));
            let (mut up, mut w) = (vec![0.0; o * i], vec![0.0; o * i]);
            let scratch = product_scratch::<f32>(o, i, i, par).or(product_scratch::<f32>(o, i, o, par));
            with_scratch(scratch, move |stack| {
                product(mat_mut(&mut up, [o, i]), Blend::set(1.0), mat(&u, [o, i]), mat(&p, [i, i]), par, stack);
                product(mat_mut(&mut w, [o, i]), Blend::add(-RATE), mat(&q, [o, o]), mat(&up, [o, i]), par, stack);
            })
        }
        Job::Woodbury { n, m } => natural::network(n, m, par),
        Job::ConvWoodbury { images } => natural::convolution(images, par),
    }
}

fn with_scratch(scratch: StackReq, mut f: impl FnMut(&mut MemStack) + 'static) -> Work {
    let mut memory = MemBuffer::new(scratch);
    Box::new(move || f(MemStack::new(&mut memory)))
}

fn second_moment<I: Input<Acc = f32>>(x: Vec<I>, shape: [usize; 3], spec: Spec<'static, f32>, par: Par) -> Work {
    let d = shape[2];
    let mut out = vec![0.0; d * d];
    with_scratch(covariance::scratch::<f32>(shape, Bias::Without, spec.sharing, par), move |stack| {
        let x = View::new(&x, shape).expect("the buffer has the shape's length");
        covariance(mat_mut(&mut out, [d, d]), x, &spec, par, stack);
    })
}

fn conv_covariance(images: Images, triangle: Triangle, par: Par) -> Work {
    let (conv, n) = (images.conv(), images.n);
    let plan = Plan::new::<f32>(&conv, par);
    let shape = conv.input_shape(n);
    let out_shape = [conv.groups(), conv.factor_size(), conv.factor_size()];
    let (x, mut out) = (uniform(shape.iter().product(), 1), vec![0.0; out_shape.iter().product()]);
    let spec = ConvSpec { sharing: Sharing::Expand, triangle, blend: Blend::set(1.0 / n as f32) };
    with_scratch(conv::scratch::<f32>(n, &plan, Sharing::Expand, par), move |stack| {
        let x = View::new(&x, shape).expect("the buffer has the shape's length");
        let out = ViewMut::new(&mut out, out_shape).expect("the buffer has the shape's length");
        conv::covariance(out, x, &plan, &spec, par, stack);
    })
}

fn batched(batch: usize, n: usize, par: Par) -> Work {
    let (a, mut out) = (covariance_matrices(batch, n, par), vec![0.0; batch * n * n]);
    with_scratch(batched::damped_inverse_scratch::<f32>([batch, n], par), move |stack| {
        let out = ViewMut::new(&mut out, [batch, n, n]).expect("the buffer has the shape's length");
        let damping = Dampings::Same(DAMPING);
        batched::damped_inverse(out, tensor(&a, [batch, n, n]), 1.0, damping, Triangle::Full, par, stack)
            .expect(POSITIVE);
    })
}

/// The right-hand sides are copied in each time: solved in place over and over they would grow without bound.
fn solve(n: usize, cols: usize, par: Par) -> Work {
    let (mut l, b) = (covariance_matrix(n, 1, par), uniform(n * cols, 2));
    l.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal += DAMPING);
    let mut memory = MemBuffer::new(cholesky::potrf_scratch::<f32>(n, par));
    cholesky::potrf(mat_mut(&mut l, [n, n]), par, MemStack::new(&mut memory)).expect(POSITIVE);
    let mut out = b.clone();
    with_scratch(cholesky::solve_scratch::<f32>(n, cols, par), move |stack| {
        out.copy_from_slice(&b);
        cholesky::solve_left(mat(&l, [n, n]), mat_mut(&mut out, [n, cols]), par, stack);
    })
}
