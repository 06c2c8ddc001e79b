//! What optimisers observe: every input type, both shapes, any strides; and factors that overflow.

use crate::batch::{Batch, Owned, never, preconditioned};
use foof::layer::Layer;
use foof::optim::{
    Activations, Ekfac, EkfacOptions, Foof, FoofOptions, Kfac, KfacDamping, KfacOptions, Observation, Optimizer,
    Preconditioner,
};
use foof::{Error, Input, MatRef, Par, View};
use foof_oracle::compare::assert_exact;
use foof_oracle::kernels::for_every_par;
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};
use half::{bf16, f16};

const N: usize = 6;
const T: usize = 3;

fn layers() -> Vec<Layer> {
    let layer = |i, o| Layer::dense(i, o).and_then(|layer| layer.with_positions(T)).expect("sizes");
    vec![layer(5, 4).with_bias(), layer(4, 3)]
}

/// `[N T, d]` and `[N T, o]` of each layer: small integers, which every input type holds.
fn integers(seed: u64) -> Vec<[Dense; 2]> {
    let mut random = Random::new(seed);
    layers().iter().map(|layer| [layer.inputs(), layer.outputs()].map(|d| random.integers(N * T, d, 4))).collect()
}

/// The state after two observations around a refresh.
fn states<P: Preconditioner<f32>>(optimizer: &mut Optimizer<f32, P>, seen: [&[Observation<'_, f32>]; 2]) -> Vec<u8> {
    optimizer.observe(seen[0]).expect("finite");
    optimizer.refresh().expect("definite");
    optimizer.observe(seen[1]).expect("finite");
    optimizer.save().expect("a file")
}

/// Observes twice and saves.
type Make = fn(&[Observation<'_, f32>], &[Observation<'_, f32>]) -> Vec<u8>;

fn makers() -> [Make; 3] {
    fn foof(a: &[Observation<'_, f32>], b: &[Observation<'_, f32>]) -> Vec<u8> {
        let options = FoofOptions { schedule: never(), ..Default::default() };
        states(&mut Foof::<f32>::new(&layers(), options, Par::seq()).expect("valid options"), [a, b])
    }
    fn kfac(a: &[Observation<'_, f32>], b: &[Observation<'_, f32>]) -> Vec<u8> {
        let options = KfacOptions { schedule: never(), ..Default::default() };
        states(&mut Kfac::<f32>::new(&layers(), options, Par::seq()).expect("valid options"), [a, b])
    }
    fn ekfac(a: &[Observation<'_, f32>], b: &[Observation<'_, f32>]) -> Vec<u8> {
        let options = EkfacOptions { schedule: never(), ..Default::default() };
        states(&mut Ekfac::<f32>::new(&layers(), options, Par::seq()).expect("valid options"), [a, b])
    }
    [foof, kfac, ekfac]
}

/// Buffers of a batch as `[N, T, d]` in one layout, and what they show.
fn buffers<I: Input + bytemuck::Pod + num_traits::NumCast>(
    batch: &[[Dense; 2]],
    layout: Layout,
) -> Vec<[Buffer<I, 3>; 2]> {
    let embed = |m: &Dense| Buffer::embed(&m.data, [N, T, m.cols], layout);
    batch.iter().map(|[x, e]| [embed(x), embed(e)]).collect()
}

fn positions<I: Input<Acc = f32>>(buffers: &[[Buffer<I, 3>; 2]]) -> Vec<Observation<'_, f32>> {
    buffers.iter().map(|[x, e]| Observation::new(x.view()).with_errors(e.view())).collect()
}

/// Widening is exact, so the bits are those of the same numbers in f32; and one layer's type is not another's.
#[test]
fn half_width_and_strided_observations_give_the_same_state() {
    let batches = [integers(1), integers(2)];
    let owned =
        batches.each_ref().map(|batch| Batch(batch.iter().map(|pair| pair.each_ref().map(Owned::new)).collect()));
    let plain = owned.each_ref().map(|batch: &Batch<f32>| batch.observations());
    for make in makers() {
        let expected = make(&plain[0], &plain[1]);
        for layout in [Layout::RowMajor, Layout::WideRows, Layout::Reversed] {
            let full = batches.each_ref().map(|batch| buffers::<f32>(batch, layout));
            let brain = batches.each_ref().map(|batch| buffers::<bf16>(batch, layout));
            let short = batches.each_ref().map(|batch| buffers::<f16>(batch, layout));
            let [full, brain, short] = [
                full.each_ref().map(|b| positions(b)),
                brain.each_ref().map(|b| positions(b)),
                short.each_ref().map(|b| positions(b)),
            ];
            for (seen, what) in [(&full, "f32"), (&brain, "bf16"), (&short, "f16")] {
                assert!(make(&seen[0], &seen[1]) == expected, "{what} {layout:?}");
            }
            let mixed = [0, 1].map(|k| vec![brain[k][0], Observation { inputs: short[k][1].inputs, ..full[k][1] }]);
            assert!(make(&mixed[0], &mixed[1]) == expected, "mixed {layout:?}");
        }
        // Positions last, as in `[N, C, H, W]`, whose rows are no matrix.
        let moved = batches.each_ref().map(|batch| {
            let move_axis = |m: &Dense| {
                let at = |k: usize| (k / (m.cols * T), k / T % m.cols, k % T);
                let value = |k: usize| m[(at(k).0 * T + at(k).2, at(k).1)] as f32;
                (m.cols, (0..N * T * m.cols).map(value).collect::<Vec<f32>>())
            };
            batch.iter().map(|pair| pair.each_ref().map(move_axis)).collect::<Vec<_>>()
        });
        let seen = moved
            .each_ref()
            .map(|batch| batch.iter().map(|[x, e]| Observation::new(view(x)).with_errors(view(e))).collect::<Vec<_>>());
        assert!(make(&seen[0], &seen[1]) == expected, "channels first");
    }
}

/// `[N, d, T]` as `[N, T, d]`.
fn view((d, data): &(usize, Vec<f32>)) -> Activations<'_, f32> {
    let strides = [(T * d) as isize, 1, T as isize];
    View::strided(data, 0, [N, T, *d], strides).expect("a view").into()
}

/// Bases of several factors are found on several threads, each on one: bits do not depend on their number. Large enough to fork.
#[test]
fn eigenbases_do_not_depend_on_the_number_of_threads() {
    let layers: Vec<Layer> =
        [[130, 40], [40, 90], [90, 7]].map(|[i, o]| Layer::dense(i, o).expect("sizes").with_bias()).into();
    let batches = [1, 2].map(|seed| Batch::<f32>::random(&mut Random::new(seed), &layers, 200));
    for_every_par("EK-FAC", |par| {
        let options = EkfacOptions { schedule: never(), ..Default::default() };
        let mut optimizer = Ekfac::<f32>::new(&layers, options, par).expect("valid options");
        optimizer.observe(&batches[0].observations()).expect("finite");
        optimizer.refresh().expect("converges");
        optimizer.observe(&batches[1].observations()).expect("finite");
        let steps = preconditioned(&mut optimizer, &batches[1].gradients());
        let entries = optimizer.preconditioner().entries().into_iter().flat_map(|(.., values)| values.to_vec());
        entries.chain(steps.iter().flat_map(|d| d.data.iter().map(|&v| v as f32))).collect::<Vec<f32>>()
    });
}

/// The first entry of a factor that is infinite is named, with its layer; a later refresh has forgotten nothing else.
fn overflow<P: Preconditioner<f64>>(make: impl Fn(&[Layer]) -> Optimizer<f64, P>) {
    let layers = crate::batch::dense_layers(&[[3, 2], [2, 2]]);
    for (side, name) in ["input factor", "error factor"].into_iter().enumerate() {
        let mut optimizer = make(&layers);
        let mut batch = Batch::<f64>::random(&mut Random::new(1), &layers, 5);
        batch.0[1][side].data[2 * 3 + 1] = 1e200;
        optimizer.observe(&batch.observations()).expect("finite inputs");
        let error = optimizer.refresh().expect_err("an overflow");
        let Error::Layer { layer: 1, source } = &error else { panic!("{error}") };
        assert_eq!(**source, Error::NotFinite { argument: name, index: vec![1, 1] }, "{error}");
        assert!(!foof::optim::State::is_ready(optimizer.preconditioner().state()));
    }
}

#[test]
fn a_factor_that_overflows_is_named() {
    overflow(|layers| Kfac::new(layers, KfacOptions::default(), Par::seq()).expect("valid options"));
    overflow(|layers| {
        let options = KfacOptions { damping_rule: KfacDamping::Exact, ..Default::default() };
        Kfac::new(layers, options, Par::seq()).expect("valid options")
    });
    overflow(|layers| Ekfac::new(layers, EkfacOptions::default(), Par::seq()).expect("valid options"));
}

/// What is wrong is said in the caller's own shape.
#[test]
fn wrong_positions_are_named() {
    let mut kfac = Kfac::<f32>::new(&layers()[..1], KfacOptions::default(), Par::seq()).expect("valid options");
    let zeros = vec![0.0f32; 200];
    let view = |shape| View::<f32, 3>::new(&zeros, shape).expect("a view");
    let mut refuse = |x, e| match kfac.observe(&[Observation::new(view(x)).with_errors(view(e))]).expect_err("bad") {
        Error::Layer { layer: 0, source } => *source,
        other => panic!("{other}"),
    };
    let shape = |argument, expected: [usize; 3], got: [usize; 3]| Error::Shape {
        argument,
        expected: expected.into(),
        got: got.into(),
    };
    assert_eq!(refuse([6, 2, 5], [6, 3, 4]), shape("inputs", [6, 3, 5], [6, 2, 5]));
    assert_eq!(refuse([6, 3, 5], [6, 3, 5]), shape("errors", [6, 3, 4], [6, 3, 5]));
    assert_eq!(refuse([6, 3, 5], [8, 3, 4]), shape("errors", [6, 3, 4], [8, 3, 4]));
    assert_eq!(refuse([0, 3, 5], [6, 3, 4]), Error::EmptyBatch { argument: "inputs", shape: vec![0, 3, 5] });
    let mut bad = vec![0.0f32; 90];
    bad[15 + 5 + 2] = f32::NAN;
    let x = View::<f32, 3>::new(&bad, [6, 3, 5]).expect("a view");
    let error = kfac.observe(&[Observation::new(x).with_errors(view([6, 3, 4]))]).expect_err("NaN");
    let Error::Layer { source, .. } = error else { panic!("{error}") };
    assert_eq!(*source, Error::NotFinite { argument: "inputs", index: vec![1, 1, 2] });
}

/// Integer moments through an optimiser: with identities for eigenvectors, `m = 0`, the squares themselves. `Q` is checked elsewhere.
#[test]
fn moments_of_shared_weights_are_squares_of_whole_gradients() {
    // A diagonal factor has the unit vectors for eigenvectors, ascending: A = diag(1, 4), B = diag(1, 9).
    let layer = Layer::dense(2, 2).and_then(|layer| layer.with_positions(2)).expect("sizes");
    let options = EkfacOptions { factor_decay: 0.0, schedule: never(), ..Default::default() };
    let mut optimizer = Ekfac::<f64>::new(&[layer], options, Par::seq()).expect("valid options");
    let (x, e) = ([1.0, 0.0, 0.0, 2.0], [1.0, 0.0, 0.0, 3.0]);
    let view = |data| MatRef::<f64>::new(data, [2, 2]).expect("a view");
    optimizer.observe(&[Observation::new(view(&x)).with_errors(view(&e))]).expect("finite");
    optimizer.refresh().expect("converges");
    // G = e_1 x_1^T + e_2 x_2^T = diag(1, 6).
    optimizer.observe(&[Observation::new(view(&x)).with_errors(view(&e))]).expect("finite");
    let entries = optimizer.preconditioner().entries();
    let (_, _, moments) = entries.iter().find(|(name, ..)| name == "layer.0.moments").expect("moments");
    let squares = Dense::from_fn(2, 2, |i, j| if i != j { 0.0 } else { [1.0, 36.0][i] });
    assert_exact(&Dense::from_slice(2, 2, moments), &squares, "moments");
}
