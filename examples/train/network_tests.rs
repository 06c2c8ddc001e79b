//! Small networks worked out by hand. The numbers are small integers or halves, so every operation is exact.

use foof::Par;

use super::*;
use crate::activation::Activation::{Linear, Relu};
use crate::data::Dataset;
use crate::methods::{Method, Sgd};
use crate::random::Purpose;
use crate::settings::{MethodKind, Settings};
use crate::task::Task;

/// Widths 2-2-1 with biases; the second hidden unit is off for the image (1, 2).
const WEIGHTS: [&[f32]; 2] = [&[1.0, 2.0, -1.0, 0.0, -3.0, 4.0], &[2.0, 5.0, 1.0]];
const IMAGE: [f32; 2] = [1.0, 2.0];

fn architecture() -> Architecture {
    Architecture { widths: vec![2, 2, 1], activations: vec![Relu, Linear], bias: Bias::With }
}

/// The network for batches of two images with `WEIGHTS`, its errors and a workspace.
fn network() -> (Network, Errors, Workspace) {
    let architecture = architecture();
    let mut network = Network::new(&architecture, 2, 0);
    for (layer, weight) in network.layers.iter_mut().zip(WEIGHTS) {
        layer.weight.copy_from_slice(weight);
    }
    let workspace = Workspace::new(Par::seq(), &architecture.products(2));
    (network, Errors::new(&architecture, 2), workspace)
}

fn entries(view: MatRef<'_, f32>) -> Vec<f32> {
    (0..view.rows()).flat_map(|i| (0..view.cols()).map(move |j| view.at([i, j]))).collect()
}

#[test]
fn forward_and_backward() {
    let (mut network, mut errors, mut workspace) = network();
    network.forward([IMAGE.as_slice()].into_iter(), &mut workspace).unwrap();
    // Hidden: relu(1 + 4 - 1) = 4 and relu(-6 + 4) = 0; output: 8 + 0 + 1.
    assert_eq!(network.output(), [9.0]);
    let inputs: Vec<_> = network.inputs().map(|view| entries(view.unwrap())).collect();
    assert_eq!(inputs, [vec![1.0, 2.0], vec![4.0, 0.0]]);

    errors.of_output()[0] = 3.0;
    network.backward(&mut errors, &mut workspace).unwrap();
    assert_eq!(entries(errors.layer(0, 1).unwrap()), [6.0, 0.0]);
}

#[test]
fn gradient_descent_with_momentum() {
    let (mut network, mut errors, mut workspace) = network();
    let settings = Settings { learning_rate: 0.5, momentum: 0.5, ..Settings::best(Task::Autoencoder, MethodKind::Sgd) };
    let mut sgd = Sgd::new(&architecture(), &settings);
    let images = [IMAGE.as_slice(), &[0.0, 0.0]];
    network.forward(images.into_iter(), &mut workspace).unwrap();
    errors.of_output().copy_from_slice(&[4.0, 0.0]);
    network.backward(&mut errors, &mut workspace).unwrap();

    // The mean gradients: hidden errors are (8, 0) for the first image, none for the second, whose error is zero.
    let gradients = [vec![4.0, 8.0, 4.0, 0.0, 0.0, 0.0], vec![8.0, 0.0, 2.0]];
    // Two steps with one gradient U: V = U, then 1.5 U; in sum W - 0.5 (2.5 U).
    for _ in 0..2 {
        sgd.step(&mut network, &errors, &mut workspace).unwrap();
    }
    for ((layer, weight), gradient) in network.layers.iter().zip(WEIGHTS).zip(gradients) {
        let expected: Vec<f32> = weight.iter().zip(gradient).map(|(w, u)| w - 1.25 * u).collect();
        assert_eq!(layer.weight, expected);
    }
}

#[test]
fn the_squared_error_is_that_of_the_images() {
    let architecture = Architecture { widths: vec![2, 2], activations: vec![Linear], bias: Bias::Without };
    let mut network = Network::new(&architecture, 1, 0);
    network.layers[0].weight.copy_from_slice(&[3.0, 0.0, 0.0, 1.0]);
    let mut workspace = Workspace::new(Par::seq(), &architecture.products(1));
    network.forward([IMAGE.as_slice()].into_iter(), &mut workspace).unwrap();
    let data = Dataset { name: "test", width: 2, pixels: IMAGE.to_vec(), labels: vec![] };
    let mut errors = Errors::new(&architecture, 1);
    let score = Task::Autoencoder.score(&network, &data, 0..1, &mut errors);
    assert_eq!((score.loss, errors.of_output()), (2.0, &mut [2.0, 0.0][..]));
}

#[test]
fn a_certain_class_has_no_loss_and_is_always_sampled() {
    let architecture = Architecture { widths: vec![2, 2], activations: vec![Linear], bias: Bias::Without };
    let mut network = Network::new(&architecture, 1, 0);
    network.layers[0].weight.copy_from_slice(&[0.0, 0.0, 0.0, 500.0]);
    let mut workspace = Workspace::new(Par::seq(), &architecture.products(1));
    network.forward([IMAGE.as_slice()].into_iter(), &mut workspace).unwrap();
    let mut errors = Errors::new(&architecture, 1);
    for (label, loss, expected) in [(1, 0.0, [0.0, 0.0]), (0, 1000.0, [-1.0, 1.0])] {
        let data = Dataset { name: "test", width: 2, pixels: IMAGE.to_vec(), labels: vec![label] };
        let score = Task::Classifier.score(&network, &data, 0..1, &mut errors);
        assert_eq!((score.loss, score.correct), (loss, usize::from(label)));
        assert_eq!(errors.of_output(), expected);
    }
    let mut rng = rng(1, Purpose::Labels);
    for _ in 0..100 {
        Task::Classifier.sample_errors(&network, &mut rng, &mut errors);
        assert_eq!(errors.of_output(), [0.0, 0.0]);
    }
}

#[test]
fn the_seed_alone_determines_the_weights() {
    let [a, b, c] = [1, 1, 2].map(|seed| Network::new(&architecture(), 2, seed).layers.remove(0).weight);
    assert_eq!(a, b);
    assert_ne!(a, c);
    // Biases, the last column, start at zero.
    assert_eq!([a[2], a[5]], [0.0, 0.0]);
}
