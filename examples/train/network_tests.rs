//! Small networks worked out by hand. The numbers are small integers or halves, so every operation is exact.

use foof::Par;

use super::*;
use crate::activation::Activation::{Linear, Relu};
use crate::architecture::Bias;
use crate::data::Dataset;
use crate::methods::{Method, Sgd};
use crate::random::Purpose;
use crate::settings::{MethodKind, Settings};
use crate::task::Task;

/// Widths 2-2-1 with biases; the second hidden unit is off for the image (1, 2).
const WEIGHTS: [&[f32]; 2] = [&[1.0, 2.0, -1.0, 0.0, -3.0, 4.0], &[2.0, 5.0, 1.0]];
const IMAGE: [f32; 2] = [1.0, 2.0];

fn architecture() -> Architecture {
    Architecture::dense(&[2, 2, 1], vec![Relu, Linear], Bias::With)
}

/// The network for batches of two images with `WEIGHTS`, its errors and a workspace.
fn network() -> (Network, Errors, Workspace) {
    let architecture = architecture();
    let mut network = Network::new(&architecture, 2, 0);
    for (layer, weight) in network.layers.iter_mut().zip(WEIGHTS) {
        layer.weight.copy_from_slice(weight);
    }
    let workspace = Workspace::new(Par::seq());
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
    let rows = |inputs: Result<Inputs<'_>>| match inputs.unwrap() {
        Inputs::Dense { rows, .. } => entries(rows),
        Inputs::Images { .. } => panic!("a dense layer reads rows"),
    };
    let inputs: Vec<_> = network.inputs().map(rows).collect();
    assert_eq!(inputs, [vec![1.0, 2.0], vec![4.0, 0.0]]);

    errors.of_output()[0] = 3.0;
    network.backward(&mut errors, &mut workspace).unwrap();
    assert_eq!(errors.layer(0, 1), [6.0, 0.0]);
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
        sgd.step(&mut network, &errors, None, &mut workspace).unwrap();
    }
    for ((layer, weight), gradient) in network.layers.iter().zip(WEIGHTS).zip(gradients) {
        let expected: Vec<f32> = weight.iter().zip(gradient).map(|(w, u)| w - 1.25 * u).collect();
        assert_eq!(layer.weight, expected);
    }
}

#[test]
fn the_squared_error_is_that_of_the_images() {
    let architecture = Architecture::dense(&[2, 2], vec![Linear], Bias::Without);
    let mut network = Network::new(&architecture, 1, 0);
    network.layers[0].weight.copy_from_slice(&[3.0, 0.0, 0.0, 1.0]);
    let mut workspace = Workspace::new(Par::seq());
    network.forward([IMAGE.as_slice()].into_iter(), &mut workspace).unwrap();
    let data = Dataset { name: "test", width: 2, pixels: IMAGE.to_vec(), labels: vec![] };
    let mut errors = Errors::new(&architecture, 1);
    let score = Task::Autoencoder.score(&network, &data, 0..1, &mut errors);
    assert_eq!((score.loss, errors.of_output()), (2.0, &mut [2.0, 0.0][..]));
}

#[test]
fn a_certain_class_has_no_loss_and_is_always_sampled() {
    let architecture = Architecture::dense(&[2, 2], vec![Linear], Bias::Without);
    let mut network = Network::new(&architecture, 1, 0);
    network.layers[0].weight.copy_from_slice(&[0.0, 0.0, 0.0, 500.0]);
    let mut workspace = Workspace::new(Par::seq());
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

/// A network of two convolutions and a dense layer, without foof: plain loops in f64, from the definitions.
struct Naive {
    weights: Vec<Vec<f64>>,
    maps: Vec<Map>,
}

impl Naive {
    /// Calls `f(input, weight, output)` for each product of a layer, for one image; `None` is a bias's constant 1.
    fn terms(map: &Map, mut f: impl FnMut(Option<usize>, usize, usize)) {
        let Map::Convolution(conv) = map else {
            let [outputs, columns] = map.weight_shape();
            for (o, i) in (0..outputs).flat_map(|o| (0..columns).map(move |i| (o, i))) {
                f((i < map.inputs()).then_some(i), o * columns + i, o);
            }
            return;
        };
        let ([_, channels, _, height, width], [_, outputs, _, oh, ow]) = (conv.input_shape(1), conv.output_shape(1));
        let (stride, columns) = (conv.axes()[0].stride, conv.factor_size());
        for place in 0..outputs * oh * ow {
            let (o, y, x) = (place / (oh * ow), place / ow % oh, place % ow);
            for feature in 0..channels * 9 {
                let (c, p, q) = (feature / 9, feature / 3 % 3, feature % 3);
                // Padding 1: taps at -1, 0 and 1.
                let (row, column) = ((stride * y + p).wrapping_sub(1), (stride * x + q).wrapping_sub(1));
                if row < height && column < width {
                    f(Some((c * height + row) * width + column), o * columns + feature, place);
                }
            }
            f(None, o * columns + channels * 9, place);
        }
    }

    /// Every layer's input for one image, and the output.
    fn forward(&self, image: &[f64]) -> Vec<Vec<f64>> {
        let mut values = vec![image.to_vec()];
        for (number, (map, weight)) in self.maps.iter().zip(&self.weights).enumerate() {
            let mut out = vec![0.0; map.outputs()];
            let input = &values[number];
            Self::terms(map, |i, w, o| out[o] += weight[w] * i.map_or(1.0, |i| input[i]));
            if number + 1 < self.maps.len() {
                out.iter_mut().for_each(|s| *s = s.max(0.0));
            }
            values.push(out);
        }
        values
    }

    /// Errors of every layer and gradients of every weight, added to `gradients`, for one image.
    fn backward(&self, values: &[Vec<f64>], output: &[f64], gradients: &mut [Vec<f64>]) -> Vec<Vec<f64>> {
        let mut errors = vec![output.to_vec()];
        for number in (0..self.maps.len()).rev() {
            let (input, weight) = (&values[number], &self.weights[number]);
            let mut before = vec![0.0; input.len()];
            Self::terms(&self.maps[number], |i, w, o| {
                gradients[number][w] += errors[0][o] * i.map_or(1.0, |i| input[i]);
                i.into_iter().for_each(|i| before[i] += weight[w] * errors[0][o]);
            });
            // Of a ReLU's result; the images themselves come from none, and their errors are dropped.
            before.iter_mut().zip(input).for_each(|(e, &x)| *e = if x > 0.0 { *e } else { 0.0 });
            errors.insert(0, before);
        }
        errors.remove(0);
        errors
    }
}

/// Small integers, so that every product and sum (all below 2^24) is exact in f32: outputs, errors and gradients of a convolutional network have the bits of
/// the naive one's.
#[test]
fn a_convolutional_network_is_its_definition() {
    const BATCH: usize = 4;
    let architecture = Architecture::convolutional(6, &[(3, 1), (4, 2)], 5).unwrap();
    let mut network = Network::new(&architecture, BATCH + 1, 0);
    let mut rng = rng(7, Purpose::Weights);
    let mut integer = |bound: i32| f64::from(rng.random_range(-bound..=bound));
    for layer in &mut network.layers {
        layer.weight.fill_with(|| integer(2) as f32);
    }
    let widen = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let weights = network.layers.iter().map(|layer| widen(&layer.weight)).collect();
    let naive = Naive { weights, maps: architecture.maps.clone() };
    let images: Vec<Vec<f32>> = (0..BATCH).map(|_| (0..36).map(|_| integer(3) as f32).collect()).collect();
    let output_errors: Vec<f32> = (0..BATCH * 5).map(|_| integer(3) as f32).collect();

    for par in [Par::seq(), Par::threads(2)] {
        let (mut workspace, mut errors) = (Workspace::new(par), Errors::new(&architecture, BATCH + 1));
        network.forward(images.iter().map(Vec::as_slice), &mut workspace).unwrap();
        errors.of_output()[..BATCH * 5].copy_from_slice(&output_errors);
        network.backward(&mut errors, &mut workspace).unwrap();
        let mut sums: Vec<Vec<f64>> = naive.weights.iter().map(|weight| vec![0.0; weight.len()]).collect();
        for (n, image) in images.iter().enumerate() {
            let values = naive.forward(&widen(image));
            assert_eq!(widen(&network.output()[n * 5..][..5]), values[3], "image {n}");
            let expected = naive.backward(&values, &widen(&output_errors[n * 5..][..5]), &mut sums);
            for (number, expected) in expected.iter().enumerate() {
                let got = &errors.layer(number, BATCH)[n * expected.len()..][..expected.len()];
                assert_eq!(&widen(got), expected, "errors of layer {number}, image {n}");
            }
        }
        // The mean over four images is exact too.
        for (number, layer) in network.layers(&errors).enumerate() {
            let LayerView { shape, inputs, errors, .. } = layer.unwrap();
            let mut gradient = vec![f32::NAN; shape[0] * shape[1]];
            let out = MatMut::new(&mut gradient, shape).unwrap();
            inputs.add_gradient(errors, out, Blend::set(1.0), &mut workspace).unwrap();
            let mean: Vec<f64> = sums[number].iter().map(|sum| sum / BATCH as f64).collect();
            assert_eq!(widen(&gradient), mean, "gradient of layer {number}");
        }
    }
}
