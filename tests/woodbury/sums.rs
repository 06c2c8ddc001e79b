//! The three sums: integers bit for bit.

use crate::network::{Kind, Network, integers, networks};
use foof::woodbury::{gradient_dots_alloc, gradient_gram_alloc, gradient_sum_alloc};
use foof::{Bias, Blend, Element, MatMut, Par, Triangle};
use foof_oracle::Dense;
use foof_oracle::compare::assert_exact;
use foof_oracle::kernels::for_every_par;

/// `N`, powers of four: `1 / sqrt(N)` is exact. With labels.
const SIZES: [(usize, usize); 6] = [(1, 1), (4, 1), (4, 3), (16, 1), (16, 2), (64, 1)];

fn each_network<T: Element>(test: impl Fn(&Network<T>, &str)) {
    for kinds in networks() {
        for (n, labels) in SIZES {
            if n * kinds.len() > 64 && kinds.iter().any(|kind| kind.layer().positions() > 9) {
                continue;
            }
            let network = Network::new(&kinds, n, labels, integers(n as u64 + 7, 2));
            test(&network, &format!("{kinds:?}, N = {n}, {labels} labels"));
        }
    }
    // Several windows of rows, and of weights.
    let shared = Kind::Dense { i: 3, o: 4, t: 2, bias: Bias::With };
    for (kind, n, labels) in [(Kind::dense(5, 4), 1024, 1), (shared, 256, 3), (Kind::dense(600, 700), 16, 1)] {
        let network = Network::new(&[kind], n, labels, integers(n as u64 + 7, 2));
        test(&network, &format!("{kind:?}, N = {n}, {labels} labels"));
    }
}

fn dots_are_exact<T: Element>() {
    each_network::<T>(|network, what| {
        let (g, root) = (network.gradients(), 1.0 / (network.layers[0].n as f64).sqrt());
        let u = integers(3, 3)(network.weights(), 1);
        let values = u.to_vec::<T>();
        let expected = g.matmul(&u).scaled(root);
        for (isa, actual) in for_every_par(what, |par: Par| {
            let mut out = vec![T::nan(); network.rows()];
            gradient_dots_alloc(&mut out, &network.batch(), &network.parts(&values), par).expect("fits");
            out
        }) {
            assert_exact(&Dense::from_slice(network.rows(), 1, &actual), &expected, &format!("{what}, {isa}"));
        }
    });
}

#[test]
fn dots_are_exact_f32() {
    dots_are_exact::<f32>();
}

#[test]
fn dots_are_exact_f64() {
    dots_are_exact::<f64>();
}

fn low_rank_dots_are_exact<T: Element>() {
    for kinds in networks() {
        for (n, labels, m) in [(1, 1, 1), (4, 1, 7), (16, 2, 3), (64, 1, 2)] {
            if n * m > 16 && kinds.iter().any(|kind| kind.layer().positions() > 9) {
                continue;
            }
            let what = format!("{kinds:?}, N = {n}, {labels} labels, M = {m}");
            let network = Network::<T>::new(&kinds, n, labels, integers(5, 1));
            let other = Network::<T>::new(&kinds, m, 1, integers(6, 1));
            let ones = Dense::from_fn(1, m, |_, _| 0.5);
            let u = ones.matmul(&other.gradients()).transpose();
            let expected = network.gradients().matmul(&u).scaled(1.0 / (n as f64).sqrt());
            for (isa, actual) in for_every_par(&what, |par: Par| {
                let mut out = vec![T::nan(); network.rows()];
                gradient_dots_alloc(&mut out, &network.batch(), &other.low_rank(0.5), par).expect("fits");
                out
            }) {
                assert_exact(&Dense::from_slice(network.rows(), 1, &actual), &expected, &format!("{what}, {isa}"));
            }
        }
    }
}

#[test]
fn low_rank_dots_are_exact_f32() {
    low_rank_dots_are_exact::<f32>();
}

#[test]
fn low_rank_dots_are_exact_f64() {
    low_rank_dots_are_exact::<f64>();
}

fn gram_is_exact<T: Element>() {
    each_network::<T>(|network, what| {
        let (g, rows) = (network.gradients(), network.rows());
        let expected = g.matmul(&g.transpose()).scaled(1.0 / network.layers[0].n as f64);
        for (isa, actual) in for_every_par(what, |par: Par| {
            let mut out = vec![T::nan(); rows * rows];
            let view = MatMut::new(&mut out, [rows, rows]).expect("the shape");
            gradient_gram_alloc(view, &network.batch(), Triangle::Full, par).expect("fits");
            out
        }) {
            assert_exact(&Dense::from_slice(rows, rows, &actual), &expected, &format!("{what}, {isa}"));
        }
    });
}

#[test]
fn gram_is_exact_f32() {
    gram_is_exact::<f32>();
}

#[test]
fn gram_is_exact_f64() {
    gram_is_exact::<f64>();
}

fn sums_are_exact<T: Element>() {
    each_network::<T>(|network, what| {
        let (g, root) = (network.gradients(), 1.0 / (network.layers[0].n as f64).sqrt());
        let v = integers(4, 2)(network.rows(), 1);
        let old = integers(8, 2)(network.weights(), 1);
        let (values, start) = (v.to_vec::<T>(), old.to_vec::<T>());
        let expected = g.transpose().matmul(&v).scaled(-2.0 * root).plus(&old.scaled(3.0));
        for (isa, actual) in for_every_par(what, |par: Par| {
            let mut out = start.clone();
            let blend = Blend { alpha: T::from_f64(-2.0), beta: T::from_f64(3.0) };
            let mut parts = network.parts_mut(&mut out);
            gradient_sum_alloc(&mut parts, blend, &network.batch(), &values, par).expect("fits");
            out
        }) {
            assert_exact(&Dense::from_slice(network.weights(), 1, &actual), &expected, &format!("{what}, {isa}"));
        }
    });
}

#[test]
fn sums_are_exact_f32() {
    sums_are_exact::<f32>();
}

#[test]
fn sums_are_exact_f64() {
    sums_are_exact::<f64>();
}
