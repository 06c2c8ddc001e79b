//! Steady-state steps, products and inverses allocate nothing, on any thread of a pool: counted at the allocator.

use foof::convolution::{
    Axis, Conv, FactorPlan, conv_error_factor, conv_error_factor_scratch, conv_forward, conv_forward_scratch,
    conv_input_factor, conv_input_factor_scratch, conv_input_gradient, conv_input_gradient_scratch,
    conv_weight_gradient, conv_weight_gradient_scratch,
};
use foof::covariance::FactorOptions;
use foof::fisher::{dense_fisher, dense_fisher_scratch};
use foof::inverse::{DampedInverse, damped_inverse, damped_inverse_scratch, damped_inverses, damped_inverses_scratch};
use foof::laplace::{Laplace, Prior};
use foof::layer::Layer;
use foof::optim::{
    Ekfac, EkfacOptions, FisherBlocks, Foof, FoofOptions, Gradient, Kfac, KfacDamping, KfacOptions, NaturalGradient,
    NaturalGradientOptions, Observation, Optimizer, Order, Preconditioner, QuadraticModel, Schedule, StepOptions,
};
use foof::product::{product, product_scratch};
use foof::woodbury::{
    Direction, LayerBatch, Refinement, SystemPrecision, Woodbury, WoodburyOptions, natural_gradient,
    natural_gradient_scratch,
};
use foof::{Blend, Error, MatMut, MatRef, MemBuffer, MemStack, Par, Sampler, StackReq, Triangle, View, ViewMut};
use foof_oracle::{Dense, Random};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

/// Allocations and reallocations of all threads.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method passes its arguments on to `System` unchanged; the counter touches no memory of the allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `f` makes on all threads.
fn count(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    f();
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

fn values(random: &mut Random, shape: [usize; 2]) -> Vec<f32> {
    random.normals(shape[0], shape[1]).to_vec()
}

/// Wide enough for several tiles and for the pool's threads to share them.
const SIZES: [usize; 4] = [150, 200, 90, 10];
const BATCH: usize = 100;

/// Two periods of the schedule, with observations and refreshes, after as many to grow into.
fn steps<P: Preconditioner<f32>>(make: impl Fn(&[Layer]) -> Optimizer<f32, P>) -> usize {
    let layers: [Layer; 3] = std::array::from_fn(|l| Layer::dense(SIZES[l], SIZES[l + 1]).expect("sizes").with_bias());
    let mut random = Random::new(1);
    let inputs: [Vec<f32>; 3] = std::array::from_fn(|l| values(&mut random, [BATCH, SIZES[l]]));
    let errors: [Vec<f32>; 3] = std::array::from_fn(|l| values(&mut random, [BATCH, SIZES[l + 1]]));
    let mut weights: [Vec<f32>; 3] = layers.map(|layer| values(&mut random, layer.weight_shape()));
    let inputs: [MatRef<'_, f32>; 3] = std::array::from_fn(|l| view(&inputs[l], [BATCH, SIZES[l]]));
    let errors: [MatRef<'_, f32>; 3] = std::array::from_fn(|l| view(&errors[l], [BATCH, SIZES[l + 1]]));
    let seen: [Observation<'_, f32>; 3] = std::array::from_fn(|l| Observation::new(inputs[l]).with_errors(errors[l]));
    let scale = 1.0 / BATCH as f32;
    let low_rank: [Gradient<'_, f32>; 3] =
        std::array::from_fn(|l| Gradient::LowRank { inputs: inputs[l], errors: errors[l], scale });
    let matrices: [Vec<f32>; 3] = layers.map(|layer| values(&mut random, layer.weight_shape()));
    let matrices: [Gradient<'_, f32>; 3] =
        std::array::from_fn(|l| Gradient::Matrix(view(&matrices[l], layers[l].weight_shape())));
    trained(make(&layers), layers, &mut weights, &seen, [&low_rank, &matrices])
}

/// The same of convolutions: by each form of their factors, with groups, and with moments by patches and by gradients.
fn image_steps<P: Preconditioner<f32>>(make: impl Fn(&[Layer]) -> Optimizer<f32, P>) -> usize {
    let n = 20;
    let conv = |[c, o, groups]: [usize; 3], axis: Axis| {
        let conv = Conv::new(c, o, [axis, axis]).expect("a convolution").with_bias();
        conv.with_groups(groups).expect("groups")
    };
    let convs = [
        conv([8, 16, 1], Axis::new(8, 3).padding(1)),
        conv([16, 96, 2], Axis::new(8, 3).stride(2)),
        conv([16, 32, 16], Axis::new(8, 3).padding(1)),
    ];
    let layers = convs.map(Layer::conv);
    let mut random = Random::new(3);
    let inputs = convs.map(|conv| values(&mut random, [n, conv.input_shape(1).iter().product()]));
    let errors = convs.map(|conv| values(&mut random, [n, conv.output_shape(1).iter().product()]));
    let seen: [Observation<'_, f32>; 3] = std::array::from_fn(|l| {
        let images = |[n, c, _, y, x]: [usize; 5]| [n, c, y, x];
        let x = View::new(&inputs[l], images(convs[l].input_shape(n))).expect("a view");
        Observation::new(x).with_errors(View::new(&errors[l], images(convs[l].output_shape(n))).expect("a view"))
    });
    let mut weights = layers.map(|layer| values(&mut random, layer.weight_shape()));
    let matrices = layers.map(|layer| values(&mut random, layer.weight_shape()));
    let matrices: [Gradient<'_, f32>; 3] =
        std::array::from_fn(|l| Gradient::Matrix(view(&matrices[l], layers[l].weight_shape())));
    trained(make(&layers), layers, &mut weights, &seen, [&matrices, &matrices])
}

fn trained<P: Preconditioner<f32>>(
    mut optimizer: Optimizer<f32, P>,
    layers: [Layer; 3],
    weights: &mut [Vec<f32>; 3],
    seen: &[Observation<'_, f32>; 3],
    gradients: [&[Gradient<'_, f32>; 3]; 2],
) -> usize {
    optimizer.observe(seen).expect("finite");
    optimizer.refresh().expect("positive definite");
    let [first, second, third] = weights;
    let mut weights = [(first, 0), (second, 1), (third, 2)]
        .map(|(weights, l)| MatMut::new(weights, layers[l].weight_shape()).expect("a view"));
    let mut train = || {
        for gradients in gradients {
            for _ in 0..4 {
                let seen = if optimizer.wants_observation() { &seen[..] } else { &[] };
                optimizer.step(&mut weights, gradients, seen).expect("a step");
            }
        }
    };
    train();
    count(train)
}

fn view(values: &[f32], shape: [usize; 2]) -> MatRef<'_, f32> {
    MatRef::new(values, shape).expect("a view")
}

fn kernels(par: Par) -> [usize; 3] {
    let n = 257;
    let mut random = Random::new(2);
    let x: Dense = random.normals(n, n);
    let a: Vec<f32> = x.transpose().matmul(&x).scaled(1.0 / n as f64).to_vec();
    let mut out = vec![0.0; n * n];
    let mut memory = MemBuffer::new(product_scratch::<f32>(n, n, n, par).or(damped_inverse_scratch::<f32>(n, par)));
    let (a, stack) = (view(&a, [n, n]), MemStack::new(&mut memory));
    let mut multiply = || {
        let out = MatMut::new(&mut out, [n, n]).expect("a view");
        product(out, Blend::set(1.0), a, a, par, stack).expect("shapes agree");
    };
    multiply();
    let products = count(multiply);
    let mut invert = || {
        let out = MatMut::new(&mut out, [n, n]).expect("a view");
        damped_inverse(out, a, 1.0, 1.0, Triangle::Full, par, stack).expect("positive definite");
    };
    invert();
    // Single ones and interleaved ones, one of them for all threads.
    let sizes = [257, 20, 20, 20, 20, 20, 130, 9, 1];
    let mut outs = sizes.map(|n| vec![0.0f32; n * n]);
    let inverses = outs.iter_mut().zip(sizes).map(|(out, n)| {
        let out = MatMut::new(out, [n, n]).expect("a view");
        DampedInverse::new(out, a.submatrix(0..n, 0..n), 1.0, 1.0, Triangle::Full)
    });
    let mut inverses: Vec<_> = inverses.collect();
    let mut memory = MemBuffer::new(damped_inverses_scratch::<f32, _>(|| sizes.into_iter(), par));
    let mut invert_all = || damped_inverses(&mut inverses, par, MemStack::new(&mut memory)).expect("positive definite");
    invert_all();
    let lists = count(invert_all);
    [products, count(invert), lists]
}

/// A convolution's products and factors, each once to grow into and once counted.
fn convolutions(par: Par) -> [usize; 5] {
    let axis = Axis::new(14, 3).padding(1).stride(2);
    let conv = Conv::new(16, 24, [axis, axis]).expect("a convolution").with_bias();
    let (n, options, set) = (20, FactorOptions::default(), Blend::set(1.0));
    let plan = FactorPlan::new::<f32>(&conv, par);
    let mut memory = MemBuffer::new(StackReq::any_of(&[
        conv_forward_scratch::<f32>(n, &conv, par),
        conv_weight_gradient_scratch::<f32>(n, &conv, par),
        conv_input_gradient_scratch::<f32>(n, &conv, par),
        conv_input_factor_scratch::<f32>(n, &plan, &options, par),
        conv_error_factor_scratch::<f32>(n, &conv, &options, par),
    ]));
    let stack = MemStack::new(&mut memory);
    let (inputs, outputs, size) = ([n, 16, 14, 14], [n, 24, 7, 7], conv.factor_size());
    let mut random = Random::new(3);
    let (x, e) = (values(&mut random, [n, 16 * 14 * 14]), values(&mut random, [n, 24 * 7 * 7]));
    let w = values(&mut random, conv.weight_shape());
    let (x, e) = (View::new(&x, inputs).expect("a view"), View::new(&e, outputs).expect("a view"));
    let w = view(&w, conv.weight_shape());
    let mut out = vec![0.0; (n * 16 * 14 * 14).max(size * size)];
    type Work<'a> = Box<dyn FnMut(&mut [f32], &mut MemStack) -> Result<(), Error> + 'a>;
    let mut twice = |mut f: Work<'_>| {
        f(&mut out, stack).expect("good input");
        count(|| f(&mut out, stack).expect("good input"))
    };
    [
        twice(Box::new(|out, stack| conv_forward(ViewMut::new(out, outputs)?, set, x, w, &conv, par, stack))),
        twice(Box::new(|out, stack| {
            conv_weight_gradient(MatMut::new(out, conv.weight_shape())?, set, e, x, &conv, par, stack)
        })),
        twice(Box::new(|out, stack| conv_input_gradient(ViewMut::new(out, inputs)?, set, e, w, &conv, par, stack))),
        twice(Box::new(|out, stack| {
            conv_input_factor(ViewMut::new(out, [1, size, size])?, x, &plan, &options, par, stack)
        })),
        twice(Box::new(|out, stack| {
            conv_error_factor(ViewMut::new(out, [1, 24, 24])?, e, &conv, &options, par, stack)
        })),
    ]
}

/// Small products and inverses in both storage orders, outside every pool, though many threads are offered.
fn small_kernels() {
    let par = Par::threads(8);
    let mut random = Random::new(5);
    for n in [1, 4, 8, 16, 32] {
        let x: Dense = random.normals(n, n);
        let a: Vec<f32> = x.transpose().matmul(&x).to_vec();
        let mut out = vec![0.0; n * n];
        let mut memory = MemBuffer::new(product_scratch::<f32>(n, n, n, par).or(damped_inverse_scratch::<f32>(n, par)));
        let (a, stack) = (view(&a, [n, n]), MemStack::new(&mut memory));
        for transposed in [false, true] {
            let allocations = count(|| {
                let (mut out, a) = (MatMut::new(&mut out, [n, n]).expect("a view"), a);
                let [a, b] = if transposed { [a.transpose(), a] } else { [a, a.transpose()] };
                product(out.rb_mut(), Blend::set(1.0), a, b, par, stack).expect("shapes agree");
                damped_inverse(out, a, 1.0, 1.0, Triangle::Full, par, stack).expect("positive definite");
            });
            assert_eq!(allocations, 0, "n = {n}, transposed: {transposed}");
        }
    }
}

/// Allocations of a natural gradient once it has run, of the whole solve and with a kept factor: a convolution, a layer that shares weights, a dense
/// one.
fn natural_gradients(par: Par) -> [usize; 2] {
    let conv = Conv::new(16, 16, [Axis::new(8, 3).padding(1), Axis::new(8, 3).padding(1)]).expect("a convolution");
    let mut random = Random::new(5);
    let shared = Layer::dense(20, 8).and_then(|layer| layer.with_positions(3)).expect("a layer").with_bias();
    let layers = [Layer::conv(conv), shared, Layer::dense(300, 40).expect("a layer")];
    let tensors: [[Vec<f32>; 2]; 3] =
        [[1024, 1024], [60, 24], [300, 40]].map(|lens| lens.map(|len| values(&mut random, [10, len])));
    let images = [0, 1].map(|side| View::new(&tensors[0][side], [10, 16, 8, 8]).expect("the shape"));
    let rows = |l: usize, side: usize, d: usize| MatRef::new(&tensors[l][side], [tensors[l][side].len() / d, d]);
    let batch = [
        LayerBatch::new(&layers[0], images[0], images[1]),
        LayerBatch::new(&layers[1], rows(1, 0, 20).expect("the shape"), rows(1, 1, 8).expect("the shape")),
        LayerBatch::new(&layers[2], rows(2, 0, 300).expect("the shape"), rows(2, 1, 40).expect("the shape")),
    ]
    .map(|batch| batch.expect("the layers' shapes"));
    let u = batch.map(|batch| Direction::LowRank { batch, scale: 0.1 });
    let mut out = batch.map(|batch| vec![0.0f32; batch.weight_shape().iter().product()]);
    let [a, b, c] = &mut out;
    let mut out = [(a, 0), (b, 1), (c, 2)]
        .map(|(out, l): (&mut Vec<f32>, usize)| MatMut::new(out, batch[l].weight_shape()).expect("the shape"));
    let options = WoodburyOptions { refinement: Refinement::Once, ..WoodburyOptions::new(0.5) };
    let req = natural_gradient_scratch(&batch, &u, &options, par);
    let mut memory = MemBuffer::new(req);
    let mut kept = Woodbury::new_alloc(&batch, &options, par).expect("definite");
    let mut once = |memory: &mut MemBuffer| {
        natural_gradient(&mut out, &batch, &u, &options, par, MemStack::new(memory)).expect("definite");
    };
    once(&mut memory);
    let whole = count(|| once(&mut memory));
    let mut again = |memory: &mut MemBuffer| {
        kept.refactor(&batch, &options, par, MemStack::new(memory)).expect("definite");
        kept.solve(&mut out, &batch, &u, par, MemStack::new(memory)).expect("the same batch");
    };
    again(&mut memory);
    [whole, count(|| again(&mut memory))]
}

/// Allocations of a network's steps by the natural gradient, refreshed before and after them, with mini-batches of two sizes; and of steps by the
/// quadratic model.
fn natural_steps(options: NaturalGradientOptions, par: Par) -> [usize; 2] {
    let conv = Conv::new(8, 16, [Axis::new(8, 3).padding(1), Axis::new(8, 3).padding(1)]).expect("a convolution");
    let shared = Layer::dense(20, 8).and_then(|layer| layer.with_positions(3)).expect("a layer").with_bias();
    let layers = [Layer::conv(conv), shared, Layer::dense(150, 40).expect("a layer").with_bias()];
    let n = 30;
    let mut random = Random::new(7);
    let tensors: [[Vec<f32>; 2]; 3] =
        [[512, 1024], [60, 24], [150, 40]].map(|lens| lens.map(|len| values(&mut random, [n, len])));
    let images = |side: usize, n: usize| {
        let channels = [8, 16][side];
        View::new(&tensors[0][side][..n * channels * 64], [n, channels, 8, 8]).expect("the shape")
    };
    let rows = |l: usize, side: usize, n: usize| {
        let d = [[20, 8], [150, 40]][l - 1][side];
        let count = tensors[l][side].len() / 30 / d * n;
        view(&tensors[l][side][..count * d], [count, d])
    };
    let seen = [n, n / 3].map(|n| {
        let rows = |l| Observation::new(rows(l, 0, n)).with_errors(rows(l, 1, n));
        [Observation::new(images(0, n)).with_errors(images(1, n)), rows(1), rows(2)]
    });
    let batch = [
        LayerBatch::new(&layers[0], images(0, n), images(1, n)),
        LayerBatch::new(&layers[1], rows(1, 0, n), rows(1, 1, n)),
        LayerBatch::new(&layers[2], rows(2, 0, n), rows(2, 1, n)),
    ]
    .map(|batch| batch.expect("the layers' shapes"));
    let matrices = layers.map(|layer| values(&mut random, layer.weight_shape()));
    let matrix = |l: usize| Gradient::Matrix(view(&matrices[l], layers[l].weight_shape()));
    let low_rank = |l, n: usize| {
        let (inputs, errors) = (rows(l, 0, n), rows(l, 1, n));
        Gradient::LowRank { inputs, errors, scale: 1.0 / n as f32 }
    };
    let gradients = [[matrix(0), matrix(1), matrix(2)], [matrix(0), low_rank(1, n), low_rank(2, n)]];
    let mut optimizer = NaturalGradient::<f32>::new(&layers, options, par).expect("valid options");
    optimizer.observe(&seen[0]).expect("finite");
    optimizer.refresh().expect("definite");
    let mut weights = layers.map(|layer| values(&mut random, layer.weight_shape()));
    let [a, b, c] = &mut weights;
    let mut weights = [(a, 0), (b, 1), (c, 2)]
        .map(|(w, l): (&mut Vec<f32>, usize)| MatMut::new(w, layers[l].weight_shape()).expect("the shape"));
    let mut train = |by_model: bool| {
        for t in 0..6 {
            let (gradients, seen) = (&gradients[t / 3], &seen[t % 2]);
            match by_model {
                false => optimizer.step(&mut weights, gradients, seen).expect("a step"),
                true => drop(optimizer.step_by_model(&mut weights, gradients, seen, &batch, 0.0).expect("a step")),
            }
        }
    };
    [false, true].map(|by_model| {
        // Three mini-batches are kept, each of which grows.
        (0..2).for_each(|_| train(by_model));
        count(|| train(by_model))
    })
}

/// Allocations of a quadratic model and of a dense Fisher matrix with scratch.
fn models(par: Par) -> [usize; 2] {
    let layer = Layer::dense(20, 8).and_then(|layer| layer.with_positions(3)).expect("a layer").with_bias();
    let mut random = Random::new(8);
    let [x, e, d] = [[30, 20], [30, 8], [8, 21]].map(|shape| values(&mut random, shape));
    let batch = [LayerBatch::new(&layer, view(&x, [30, 20]), view(&e, [30, 8])).expect("the layer's shapes")];
    let (gradient, direction) = ([Direction::LowRank { batch: batch[0], scale: 0.1 }], [view(&d, [8, 21])]);
    let mut memory =
        MemBuffer::new(QuadraticModel::scratch(&batch, &gradient, par).or(dense_fisher_scratch(&batch, par)));
    let mut fisher = vec![0.0; 168 * 168];
    let model = |stack: &mut MemStack| {
        QuadraticModel::new(&batch, &gradient, &direction, Some(&direction), par, stack).expect("valid");
    };
    let mut matrix = |stack: &mut MemStack| {
        let out = MatMut::new(&mut fisher, [168; 2]).expect("a view");
        dense_fisher(out, &batch, par, stack).expect("valid");
    };
    let stack = MemStack::new(&mut memory);
    model(stack);
    matrix(stack);
    [count(|| model(stack)), count(|| matrix(stack))]
}

/// Allocations of samples of a posterior, three at a time: a convolution, a layer that shares weights.
fn posterior_samples(par: Par) -> usize {
    let conv = Conv::new(4, 4, [Axis::new(8, 3).padding(1), Axis::new(8, 3).padding(1)]).expect("a convolution");
    let shared = Layer::dense(20, 8).and_then(|layer| layer.with_positions(3)).expect("a layer").with_bias();
    let layers = [Layer::conv(conv), shared];
    let mut random = Random::new(6);
    let tensors = [[256, 256], [60, 24]].map(|lens| lens.map(|len| values(&mut random, [10, len])));
    let images = [0, 1].map(|side| View::new(&tensors[0][side], [10, 4, 8, 8]).expect("the shape"));
    let rows = [(0, 20), (1, 8)].map(|(side, d)| MatRef::new(&tensors[1][side], [30, d]).expect("the shape"));
    let seen = [Observation::new(images[0]).with_errors(images[1]), Observation::new(rows[0]).with_errors(rows[1])];
    let priors = [1.0, 0.5].map(|variance| Prior::Isotropic { variance });
    let laplace = Laplace::<f32>::new(&layers, &priors, &seen, [10, 1], par).expect("definite");
    let shapes = layers.map(|layer| layer.weight_shape());
    let mut out: Vec<Vec<f32>> = (0..6).map(|at| vec![0.0; shapes[at % 2].iter().product()]).collect();
    let mean = out[..2].to_vec();
    let mean = [0, 1].map(|l| MatRef::new(&mean[l], shapes[l]).expect("the shape"));
    let parts = out.iter_mut().enumerate().map(|(at, out)| MatMut::new(out, shapes[at % 2]).expect("the shape"));
    let mut parts: Vec<_> = parts.collect();
    let mut memory = MemBuffer::new(laplace.samples_scratch(3));
    let mut sampler = Sampler::new(1);
    let mut draw = || {
        laplace.samples(&mut parts, &mean, &mut sampler, MemStack::new(&mut memory)).expect("shapes agree");
    };
    draw();
    count(draw)
}

const ORDERS: [Order; 2] = [Order::RefreshFirst, Order::StepFirst];

/// One test, so that no other runs beside it.
#[test]
fn steady_state_allocates_nothing() {
    assert_eq!(count(|| drop(vec![0u8; 8])), 1, "the allocator counts");
    small_kernels();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    assert!(pool.is_ok(), "a small product or inverse started the global pool's threads");
    let schedule = Schedule { period: 4, observe: 2, ..Default::default() };
    for momentum in [0.0, 0.9] {
        let polyak = (momentum > 0.0).then_some(StepOptions::POLYAK);
        let step = StepOptions { momentum, polyak, learning_rate: 1e-3, ..Default::default() };
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let par = Par::threads(threads);
            let what = format!("{threads} threads, momentum {momentum}");
            let (kernels, convolutions, foof, kfac, exact, ekfac) = pool.install(|| {
                let make = |layers: &[Layer]| {
                    let options = FoofOptions { schedule, step, ..Default::default() };
                    Foof::<f32>::new(layers, options, par).expect("valid options")
                };
                let foof = [steps(make), image_steps(make)];
                let make = |layers: &[Layer]| {
                    let options = KfacOptions { schedule, step, ..Default::default() };
                    Kfac::<f32>::new(layers, options, par).expect("valid options")
                };
                let kfac = [steps(make), image_steps(make)];
                let make = |layers: &[Layer]| {
                    let damping_rule = KfacDamping::Exact;
                    let options = KfacOptions { damping_rule, schedule, step, ..Default::default() };
                    Kfac::<f32>::new(layers, options, par).expect("valid options")
                };
                let exact = [steps(make), image_steps(make)];
                let make = |layers: &[Layer]| {
                    let options = EkfacOptions { schedule, step, ..Default::default() };
                    Ekfac::<f32>::new(layers, options, par).expect("valid options")
                };
                let ekfac = [steps(make), image_steps(make)];
                (kernels(par), convolutions(par), foof, kfac, exact, ekfac)
            });
            assert_eq!(pool.install(|| natural_gradients(par)), [0; 2], "{what}: natural gradients");
            for (blocks, order) in [FisherBlocks::Whole, FisherBlocks::Diagonal].into_iter().zip(ORDERS) {
                for (precision, refinement) in
                    [(SystemPrecision::Working, Refinement::None), (SystemPrecision::Double, Refinement::Once)]
                {
                    let schedule = Schedule { period: 1, observe: 1, initial: 1, order };
                    let options = NaturalGradientOptions {
                        blocks,
                        precision,
                        refinement,
                        schedule,
                        step,
                        ..NaturalGradientOptions::new(10)
                    };
                    let steps = pool.install(|| natural_steps(options, par));
                    assert_eq!(steps, [0; 2], "{what}: steps by {options:?}, and by the quadratic model");
                }
            }
            assert_eq!(pool.install(|| models(par)), [0; 2], "{what}: quadratic model, dense Fisher matrix");
            assert_eq!(pool.install(|| posterior_samples(par)), 0, "{what}: samples of a posterior");
            assert_eq!(kernels, [0; 3], "{what}: product, inverse, list of inverses");
            assert_eq!(convolutions, [0; 5], "{what}: products and factors of a convolution");
            assert_eq!(foof, [0, 0], "{what}: FOOF");
            assert_eq!(kfac, [0, 0], "{what}: K-FAC");
            assert_eq!(exact, [0, 0], "{what}: K-FAC with exact damping");
            assert_eq!(ekfac, [0, 0], "{what}: EK-FAC");
        }
    }
}
