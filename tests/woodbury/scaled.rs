//! Features times a number each: the sums of the kernels are those of scaled gradients; integers bit for bit.

use crate::network::{Kind, Network, Seen, integers, networks};
use foof::{Blend, Element, MatMut, MatRef, MemBuffer, MemStack, Par};
use foof_kernels::woodbury::gram::{self, Form};
use foof_kernels::woodbury::{Layer, Weights, dots, sum};
use foof_oracle::Dense;
use foof_oracle::compare::assert_exact;
use foof_oracle::kernels::for_every_par;

/// One layer with its scales, and the gradients of scaled inputs.
struct Scaled<'a, T> {
    seen: &'a Seen<T>,
    scales: Vec<T>,
    gradients: Dense,
}

impl<'a, T: Element> Scaled<'a, T> {
    fn new(seen: &'a Seen<T>, seed: u64) -> Self {
        let columns = seen.shape()[1];
        let scales = integers(seed, 3)(1, columns);
        let (g, each) = (&seen.gradients, scales.row(0));
        let gradients = Dense::from_fn(g.rows, g.cols, |r, p| g[(r, p)] * each[p % columns]);
        Scaled { seen, scales: scales.to_vec(), gradients }
    }

    fn layer(&self) -> Layer<'_, T> {
        self.seen.kernel().with_scales(&self.scales)
    }
}

/// The layers of all networks, of batches of two sizes; a layer wider than several panels too.
fn each_layer<T: Element>(test: impl Fn([&Scaled<'_, T>; 2], &str)) {
    for kinds in networks().into_iter().chain([vec![Kind::dense(200, 3)]]) {
        for labels in [1, 2] {
            let [one, two] = [(5, labels, 3), (2, 1, 4)]
                .map(|(n, labels, seed)| Network::<T>::new(&kinds, n, labels, integers(seed, 1)));
            for (one, two) in one.layers.iter().zip(&two.layers) {
                // The gradient of the other batch is not scaled alike.
                test([&Scaled::new(one, 11), &Scaled::new(two, 12)], &format!("{:?}, {labels} labels", one.kind));
            }
        }
    }
}

fn dots_are_of_scaled_gradients<T: Element>() {
    each_layer::<T>(|[scaled, other], what| {
        let (g, [o, i]) = (&scaled.gradients, scaled.seen.shape());
        let u = integers(13, 2)(o * i, 1);
        let values = u.to_vec::<T>();
        let sum = other.gradients.transpose().matmul(&Dense::from_fn(other.seen.rows, 1, |_, _| 2.0));
        let expected = [g.matmul(&u), g.matmul(&sum)];
        for (isa, actual) in for_every_par(what, |par: Par| {
            let mut out = vec![T::zero(); 2 * scaled.seen.rows];
            let (one, two) = out.split_at_mut(scaled.seen.rows);
            let (layer, of) = (scaled.layer(), other.layer());
            let req = dots::scratch(&layer, par).or(dots::low_rank_scratch(&layer, &of, par));
            let mut memory = MemBuffer::new(req);
            let u = MatRef::new(&values, [o, i]).expect("the shape");
            dots::dots(one, T::one(), &layer, u, par, MemStack::new(&mut memory));
            dots::low_rank(two, T::from_f64(2.0), &layer, &of, par, MemStack::new(&mut memory));
            out
        }) {
            for (expected, actual) in expected.iter().zip(actual.chunks_exact(scaled.seen.rows)) {
                assert_exact(&Dense::from_slice(actual.len(), 1, actual), expected, &format!("{what}, {isa}"));
            }
        }
    });
}

#[test]
fn dots_are_of_scaled_gradients_f32() {
    dots_are_of_scaled_gradients::<f32>();
}

#[test]
fn dots_are_of_scaled_gradients_f64() {
    dots_are_of_scaled_gradients::<f64>();
}

/// Rows of `f32`, in either precision and form.
fn inner_products_are_of_scaled_gradients<S: Element>() {
    each_layer::<f32>(|[scaled, _], what| {
        let rows = scaled.seen.rows;
        let expected = scaled.gradients.matmul(&scaled.gradients.transpose()).lower();
        for form in [Form::Pairs, Form::Gradients] {
            for (isa, actual) in for_every_par(what, |par: Par| {
                let layer = scaled.layer();
                let mut out = vec![S::zero(); rows * rows];
                let mut memory = MemBuffer::new(gram::scratch::<_, S>(&layer, form, par));
                let view = MatMut::new(&mut out, [rows, rows]).expect("the shape");
                gram::gram(view, &layer, form, par, MemStack::new(&mut memory));
                out
            }) {
                assert_exact(&Dense::from_slice(rows, rows, &actual), &expected, &format!("{what}, {form:?}, {isa}"));
            }
        }
    });
}

#[test]
fn inner_products_are_of_scaled_gradients_f32() {
    inner_products_are_of_scaled_gradients::<f32>();
}

#[test]
fn inner_products_are_of_scaled_gradients_f64() {
    inner_products_are_of_scaled_gradients::<f64>();
}

/// One batch, and two as one product.
#[test]
fn sums_are_of_scaled_gradients() {
    each_layer::<f32>(|[scaled, other], what| {
        let [o, i] = scaled.seen.shape();
        let v = integers(14, 2)(scaled.seen.rows, 1);
        let weights = v.to_vec::<f32>();
        let first = scaled.gradients.transpose().matmul(&v);
        let second = other.gradients.transpose().matmul(&Dense::from_fn(other.seen.rows, 1, |_, _| 2.0));
        for (two, expected) in [(false, first.clone()), (true, first.plus(&second))] {
            for (isa, actual) in for_every_par(what, |par: Par| {
                let mut out = vec![f32::NAN; o * i];
                let (term, more) = ((scaled.layer(), Weights::Each(&weights)), (other.layer(), Weights::All(2.0)));
                let more = two.then_some(&more);
                let mut memory = MemBuffer::new(sum::scratch(&term.0, more.map(|term| &term.0), par));
                let view = MatMut::new(&mut out, [o, i]).expect("the shape");
                sum::sum(view, None, Blend::set(1.0), &term, more, par, MemStack::new(&mut memory));
                out
            }) {
                assert_exact(&Dense::from_slice(o * i, 1, &actual), &expected, &format!("{what}, {isa}"));
            }
        }
    });
}
