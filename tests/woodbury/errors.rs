//! Bad input: typed errors that name the layer and the place, and outputs as they were.

use crate::network::{Kind, Network, integers};
use foof::layer::Layer;
use foof::woodbury::{
    Direction, LayerBatch, Woodbury, WoodburyOptions, gradient_dots_alloc, gradient_gram, gradient_sum_alloc,
    natural_gradient, natural_gradient_alloc,
};
use foof::{Blend, Error, MatMut, MatRef, MemBuffer, MemStack, Par, StackReq, Triangle};

fn network(n: usize, seed: u64) -> Network<f64> {
    Network::new(&[Kind::dense(3, 2), Kind::dense(2, 2)], n, 1, integers(seed, 2))
}

fn in_layer(error: Error) -> (usize, Error) {
    match error {
        Error::Layer { layer, source } => (layer, *source),
        other => panic!("{other} names no layer"),
    }
}

/// Solves and asserts that nothing was written.
#[track_caller]
fn refused(batch: &[LayerBatch<'_, f64>], u: &[Direction<'_, f64>], damping: f64) -> Error {
    let (mut first, mut second) = ([7.0; 6], [7.0; 4]);
    let mut out =
        [MatMut::new(&mut first, [2, 3]).expect("the shape"), MatMut::new(&mut second, [2, 2]).expect("the shape")];
    let error = natural_gradient_alloc(&mut out, batch, u, &WoodburyOptions::new(damping), Par::seq());
    assert_eq!((first, second), ([7.0; 6], [7.0; 4]));
    error.expect_err("bad input")
}

#[test]
fn damping_is_positive() {
    let network = network(4, 1);
    let u = vec![1.0; 10];
    for damping in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(&network.batch(), &network.parts(&u), damping);
        assert!(
            matches!(error, Error::Parameter { name: "damping", value, .. } if value.to_bits() == damping.to_bits())
        );
    }
}

#[test]
fn layers_agree() {
    let (four, five) = (network(4, 1), network(5, 2));
    let u = vec![1.0; 10];
    let mixed = [four.batch()[0], five.batch()[1]];
    let (layer, error) = in_layer(refused(&mixed, &four.parts(&u), 1.0));
    assert_eq!(layer, 1);
    assert!(matches!(error, Error::Shape { expected, got, .. } if expected == [4, 4] && got == [5, 5]));
    let swapped: Vec<_> = four.parts(&u).into_iter().rev().collect();
    let (layer, error) = in_layer(refused(&four.batch(), &swapped, 1.0));
    assert_eq!(layer, 0);
    assert!(matches!(error, Error::Shape { argument: "u", expected, got } if expected == [2, 3] && got == [2, 2]));
    let error = refused(&four.batch(), &four.parts(&u)[..1], 1.0);
    assert!(matches!(error, Error::Shape { argument: "u", expected, got } if expected == [2] && got == [1]));
    let error = refused(&[], &[], 1.0);
    assert!(matches!(error, Error::EmptyBatch { argument: "batch", .. }));
}

#[test]
fn what_is_not_finite_is_named() {
    let network = network(4, 1);
    let layer = Layer::dense(2, 2).expect("a layer");
    let u = vec![1.0; 10];
    for value in [f64::NAN, f64::INFINITY] {
        let (good, mut bad) = ([1.0; 8], [1.0; 8]);
        bad[5] = value;
        for (x, e, argument) in [(&bad, &good, "inputs"), (&good, &bad, "errors")] {
            let (x, e) = (MatRef::new(x, [4, 2]).expect("the shape"), MatRef::new(e, [4, 2]).expect("the shape"));
            let batch = [network.batch()[0], LayerBatch::new(&layer, x, e).expect("the layer's")];
            let (number, error) = in_layer(refused(&batch, &network.parts(&u), 1.0));
            assert_eq!(number, 1);
            assert_eq!(error, Error::NotFinite { argument, index: vec![2, 0, 1] });
        }
        let mut u = u.clone();
        u[7] = value;
        let (number, error) = in_layer(refused(&network.batch(), &network.parts(&u), 1.0));
        assert_eq!((number, error), (1, Error::NotFinite { argument: "u", index: vec![0, 1] }));
    }
    // Finite numbers whose products are not.
    let huge = vec![1e308; 10];
    let error = refused(&network.batch(), &network.parts(&huge), 1.0);
    assert!(matches!(error, Error::NotFinite { argument: "G^T u", .. }), "{error}");
}

/// One datapoint four times: rounding of a large Gram matrix exceeds a tiny damping, and the second pivot is zero.
#[test]
fn an_indefinite_system_names_its_row() {
    let layer = Layer::dense(1, 1).expect("a layer");
    let (x, e) = ([4096.0; 4], [4096.0; 4]);
    let shape = |values| MatRef::new(values, [4, 1]).expect("the shape");
    let batch = [LayerBatch::new(&layer, shape(&x), shape(&e)).expect("the layer's")];
    let error = Woodbury::new_alloc(&batch, &WoodburyOptions::new(1e-30), Par::seq()).expect_err("a zero pivot");
    assert_eq!(error, Error::NotPositiveDefinite { layer: None, pivot: 1, value: 0.0 });
}

#[test]
fn batches_have_the_layers_shapes() {
    let layer = Layer::dense(3, 2).and_then(|layer| layer.with_positions(2)).expect("a layer");
    let numbers = [0.0; 24];
    let rows = |shape| MatRef::new(&numbers, shape).expect("the shape");
    let shape = |result: Result<LayerBatch<'_, f64>, Error>| match result {
        Err(Error::Shape { argument, expected, got }) => (argument, expected, got),
        other => panic!("{other:?} is no shape"),
    };
    assert_eq!(shape(LayerBatch::new(&layer, rows([3, 3]), rows([4, 2]))), ("inputs", vec![4, 3], vec![3, 3]));
    assert_eq!(shape(LayerBatch::new(&layer, rows([4, 2]), rows([4, 2]))), ("inputs", vec![4, 3], vec![4, 2]));
    assert_eq!(shape(LayerBatch::new(&layer, rows([4, 3]), rows([4, 3]))), ("errors", vec![4, 2], vec![4, 3]));
    // Errors of three datapoints for inputs of two.
    assert_eq!(shape(LayerBatch::new(&layer, rows([4, 3]), rows([6, 2]))), ("errors", vec![8, 2], vec![6, 2]));
    assert!(matches!(LayerBatch::new(&layer, rows([0, 3]), rows([0, 2])), Err(Error::EmptyBatch { .. })));
}

#[test]
fn sums_check_their_arguments() {
    let network = network(4, 1);
    let u = vec![1.0; 10];
    let mut out = [7.0; 3];
    let error = gradient_dots_alloc(&mut out, &network.batch(), &network.parts(&u), Par::seq());
    assert!(matches!(error, Err(Error::Shape { argument: "out", expected, got }) if expected == [4] && got == [3]));
    let mut values = vec![7.0; 10];
    let mut parts = network.parts_mut(&mut values);
    let error = gradient_sum_alloc(&mut parts, Blend::set(1.0), &network.batch(), &[1.0; 5], Par::seq());
    assert!(matches!(error, Err(Error::Shape { argument: "v", expected, got }) if expected == [4] && got == [5]));
    let mut gram = [7.0; 16];
    let mut memory = MemBuffer::new(StackReq::EMPTY);
    let view = MatMut::new(&mut gram, [4, 4]).expect("the shape");
    let stack = MemStack::new(&mut memory);
    let error = gradient_gram(view, &network.batch(), Triangle::Full, Par::seq(), stack);
    assert!(matches!(error, Err(Error::Scratch { .. })));
    let options = WoodburyOptions::new(1.0);
    let stack = MemStack::new(&mut memory);
    let error = natural_gradient(&mut parts, &network.batch(), &network.parts(&u), &options, Par::seq(), stack);
    assert!(matches!(error, Err(Error::Scratch { .. })));
    assert!((out, gram) == ([7.0; 3], [7.0; 16]) && values == [7.0; 10]);
}

/// A kept factor belongs to batches of its own size, and a failed one is not used.
#[test]
fn a_kept_factor_refuses_other_batches() {
    let (four, five) = (network(4, 1), network(5, 2));
    let u = vec![1.0; 10];
    let mut kept = Woodbury::new_alloc(&four.batch(), &WoodburyOptions::new(1.0), Par::seq()).expect("definite");
    let mut values = vec![7.0; 10];
    let mut solve = |kept: &Woodbury<f64>, network: &Network<f64>| {
        kept.solve_alloc(&mut network.parts_mut(&mut values), &network.batch(), &network.parts(&u), Par::seq())
    };
    assert!(
        matches!(solve(&kept, &five), Err(Error::Shape { expected, got, .. }) if expected == [4, 4] && got == [5, 5])
    );
    let layer = Layer::dense(1, 1).expect("a layer");
    let nan = [f64::NAN];
    let one = MatRef::new(&nan, [1, 1]).expect("the shape");
    let bad = [LayerBatch::new(&layer, one, one).expect("the layer's")];
    let mut memory = MemBuffer::new(Woodbury::scratch(&bad, &WoodburyOptions::new(1.0), Par::seq()));
    let error = kept.refactor(&bad, &WoodburyOptions::new(1.0), Par::seq(), MemStack::new(&mut memory));
    assert!(matches!(in_layer(error.expect_err("not finite")), (0, Error::NotFinite { argument: "inputs", .. })));
    assert!(matches!(solve(&kept, &four), Err(Error::Shape { .. })));
    assert_eq!(values, [7.0; 10]);
}
