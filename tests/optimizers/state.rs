//! Saved states resume bit for bit; damaged ones and those of other optimisers are refused.

use crate::batch::{Batch, Owned, dense_layers, views, zeros};
use foof::covariance::Centring;
use foof::layer::Layer;
use foof::optim::{
    Ekfac, EkfacOptions, FisherBlocks, Foof, FoofDamping, FoofOptions, Kfac, KfacDamping, KfacOptions, NaturalGradient,
    NaturalGradientOptions, Optimizer, Order, Preconditioner, Schedule, StepOptions,
};
use foof::woodbury::{Refinement, SystemPrecision};
use foof::{Error, Par};
use foof_oracle::Random;
use foof_oracle::compare::assert_same_bits;

/// Trains a few steps, saves, resumes in a new optimiser, and trains both on.
fn resumes<P: Preconditioner<f32>>(make: impl Fn(&[Layer], StepOptions, Schedule) -> Optimizer<f32, P>) {
    let layers = vec![Layer::dense(5, 4).expect("sizes").with_bias(), Layer::dense(4, 3).expect("sizes")];
    let step = StepOptions { momentum: 0.9, polyak: Some(StepOptions::POLYAK), ..StepOptions::default() };
    let schedule = Schedule { period: 4, observe: 2, initial: 2, order: Order::StepFirst };
    let mut random = Random::new(8);
    let mut one = make(&layers, step, schedule);
    let batches: Vec<Batch<f32>> = (0..16).map(|_| Batch::random(&mut random, &layers, 5)).collect();
    for batch in &batches[..2] {
        one.observe(&batch.observations()).expect("finite");
    }
    one.refresh().expect("definite");
    let mut weights = zeros::<f32>(&layers);
    let train = |optimizer: &mut Optimizer<f32, P>, weights: &mut [Owned<f32>], batches: &[Batch<f32>]| {
        for batch in batches {
            optimizer.step(&mut views(weights), &batch.gradients(), &batch.observations()).expect("a step");
        }
    };
    // Stops between an observation and its refresh.
    train(&mut one, &mut weights, &batches[2..9]);
    let saved = one.save().expect("a file");
    let mut other = make(&layers, step, schedule);
    let fresh = other.save().expect("a file");
    refuses_damaged(&mut other, &saved, &fresh);
    other.load(&saved).expect("the same optimiser");
    assert_same_state(&other.save().expect("a file"), &saved, "resumed");
    let mut others: Vec<Owned<f32>> = weights.iter().map(|w| Owned { data: w.data.clone(), shape: w.shape }).collect();
    train(&mut one, &mut weights, &batches[9..]);
    train(&mut other, &mut others, &batches[9..]);
    for (ours, theirs) in weights.iter().zip(&others) {
        assert_same_bits(&theirs.data, &ours.data, P::NAME);
    }
    assert_same_state(&other.save().expect("a file"), &one.save().expect("a file"), "trained on");
    // Other layers, another method's name, momentum that is not there.
    let fewer = &layers[..1];
    for mut wrong in [make(fewer, step, schedule), make(&layers, StepOptions::default(), schedule)] {
        let before = wrong.save().expect("a file");
        let error = wrong.load(&saved).expect_err("of another optimiser");
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert_same_state(&wrong.save().expect("a file"), &before, "as it was");
    }
}

/// Tensors, not their order in the header, make a state.
fn assert_same_state(got: &[u8], want: &[u8], what: &str) {
    let [got, want] = [got, want].map(|bytes| safetensors::SafeTensors::deserialize(bytes).expect("a file"));
    assert_eq!(got.len(), want.len(), "{what}");
    for name in want.names() {
        let data = |file: &safetensors::SafeTensors<'_>| file.tensor(name).expect("an entry").data().to_vec();
        assert_eq!(data(&got), data(&want), "{what}: {name}");
    }
}

/// Files cut short, and single bytes changed: refused, the state as it was; or, in a place that means nothing, read as it was saved.
fn refuses_damaged<P: Preconditioner<f32>>(optimizer: &mut Optimizer<f32, P>, saved: &[u8], fresh: &[u8]) {
    for length in (0..saved.len()).step_by(97).chain([saved.len() - 1]) {
        let error = optimizer.load(&saved[..length]).expect_err("truncated");
        assert!(matches!(error, Error::State { .. }), "{length} bytes: {error}");
    }
    assert_same_state(&optimizer.save().expect("a file"), fresh, "after truncated files");
    for at in (0..saved.len()).step_by(29) {
        let mut damaged = saved.to_vec();
        damaged[at] ^= 0x10;
        if let Err(error) = optimizer.load(&damaged) {
            assert!(matches!(error, Error::State { .. }), "byte {at}: {error}");
            assert_same_state(&optimizer.save().expect("a file"), fresh, &format!("after byte {at}"));
        } else {
            assert_same_state(&optimizer.save().expect("a file"), saved, &format!("byte {at} means nothing"));
            optimizer.load(fresh).expect("its own state");
        }
    }
}

#[test]
fn states_resume_bit_for_bit_and_damaged_ones_are_refused() {
    resumes(|layers, step, schedule| {
        Foof::new(layers, FoofOptions { step, schedule, ..Default::default() }, Par::seq()).expect("valid options")
    });
    for damping_rule in [KfacDamping::Heuristic, KfacDamping::Exact] {
        resumes(|layers, step, schedule| {
            let options = KfacOptions { damping_rule, step, schedule, ..Default::default() };
            Kfac::new(layers, options, Par::seq()).expect("valid options")
        });
    }
    for blocks in [FisherBlocks::Whole, FisherBlocks::Diagonal] {
        for (precision, refinement) in
            [(SystemPrecision::Working, Refinement::None), (SystemPrecision::Double, Refinement::Once)]
        {
            resumes(|layers, step, schedule| {
                let new = NaturalGradientOptions::new(5);
                let options = NaturalGradientOptions { blocks, precision, refinement, step, schedule, ..new };
                NaturalGradient::new(layers, options, Par::seq()).expect("valid options")
            });
        }
    }
    resumes(|layers, step, schedule| {
        Ekfac::new(layers, EkfacOptions { step, schedule, ..Default::default() }, Par::seq()).expect("valid options")
    });
}

#[test]
fn states_of_other_methods_and_types_are_refused() {
    let layers = dense_layers(&[[3, 2]]);
    let foof = Foof::<f32>::new(&layers, FoofOptions::default(), Par::seq()).expect("valid options");
    let saved = foof.save().expect("a file");
    let entry = |error: Error| match error {
        Error::State { entry, .. } => entry,
        other => panic!("{other}"),
    };
    let mut kfac = Kfac::<f32>::new(&layers, KfacOptions::default(), Par::seq()).expect("valid options");
    assert_eq!(entry(kfac.load(&saved).expect_err("another method")), "method");
    let mut wide = Foof::<f64>::new(&layers, FoofOptions::default(), Par::seq()).expect("valid options");
    assert_eq!(entry(wide.load(&saved).expect_err("another type")), "layer.0.input.running");
    let natural = |options| NaturalGradient::<f32>::new(&layers, options, Par::seq()).expect("valid options");
    let options = NaturalGradientOptions::new(4);
    let saved = natural(options).save().expect("a file");
    for (options, expected) in [
        (NaturalGradientOptions { precision: SystemPrecision::Double, ..options }, "precision"),
        (NaturalGradientOptions { refinement: Refinement::Once, ..options }, "refinement"),
    ] {
        assert_eq!(entry(natural(options).load(&saved).expect_err("another rule")), expected);
    }
}

/// Saving depends on nothing but the state: no order of a hash map shows.
#[test]
fn two_saves_are_equal_bytes() {
    let layers = dense_layers(&[[3, 2], [2, 4]]);
    let make = || Ekfac::<f32>::new(&layers, EkfacOptions::default(), Par::seq()).expect("valid options");
    let saved = make().save().expect("a file");
    for _ in 0..8 {
        assert!(make().save().expect("a file") == saved);
    }
    let mut other = make();
    other.load(&saved).expect("the same optimiser");
    assert!(other.save().expect("a file") == saved);
}

/// Options that the saved numbers were made with must agree; those that say how to go on need not.
#[test]
fn options_of_saved_states() {
    let layers = dense_layers(&[[3, 2]]);
    let make = |options| Foof::<f32>::new(&layers, options, Par::seq()).expect("valid options");
    let options = FoofOptions::default();
    let saved = make(options).save().expect("a file");
    let refused = |options: FoofOptions, layer: Option<Layer>| {
        let layers = layer.map_or(layers.clone(), |layer| vec![layer]);
        let mut other = Foof::<f32>::new(&layers, options, Par::seq()).expect("valid options");
        match other.load(&saved).expect_err("other options") {
            Error::State { entry, .. } => entry,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(FoofOptions { damping: 0.5, ..options }, None), "damping");
    assert_eq!(refused(FoofOptions { factor_decay: 0.5, ..options }, None), "factor_decay");
    assert_eq!(refused(FoofOptions { centring: Centring::Centred, ..options }, None), "centring");
    assert_eq!(refused(FoofOptions { damping_rule: FoofDamping::KfacLambdaA, ..options }, None), "damping_rule");
    let shared = layers[0].with_positions(2).expect("positions");
    assert_eq!(refused(options, Some(shared)), "layer.0");
    let schedule = Schedule { period: 7, observe: 3, ..options.schedule };
    let step = StepOptions { learning_rate: 0.5, weight_decay: 0.25, ..options.step };
    make(FoofOptions { schedule, step, ..options }).load(&saved).expect("schedule and step are the loader's own");
}
