//! Both forms of step (2) are the same sums: integers bit for bit.

use crate::network::{Network, integers, networks};
use foof::{Element, MatMut, MemBuffer, MemStack, Par};
use foof_kernels::woodbury::gram::{Form, clear, gram, scratch};
use foof_oracle::Dense;
use foof_oracle::compare::assert_exact;
use foof_oracle::kernels::for_every_par;

#[test]
fn pairs_and_gradients_agree() {
    agree::<f32>();
}

/// Rows of `f32`, summed in `f64`.
#[test]
fn widened_pairs_and_gradients_agree() {
    agree::<f64>();
}

fn agree<S: Element>() {
    for kinds in networks() {
        for (n, labels) in [(1, 1), (5, 1), (3, 2)] {
            let network = Network::<f32>::new(&kinds, n, labels, integers(n as u64, 1));
            for layer in &network.layers {
                let rows = layer.rows;
                let lower = |matrix: Dense| matrix.lower();
                let expected = lower(layer.gradients.matmul(&layer.gradients.transpose()));
                for form in [Form::Pairs, Form::Gradients] {
                    let what = format!("{:?}, N = {n}, {labels} labels, {form:?}", layer.kind);
                    let run = |par: Par| {
                        let kernel = layer.kernel();
                        let mut out = vec![S::zero(); rows * rows];
                        let mut view = MatMut::new(&mut out, [rows, rows]).expect("the shape");
                        clear(view.rb_mut(), par);
                        let mut memory = MemBuffer::new(scratch::<_, S>(&kernel, form, par));
                        gram(view, &kernel, form, par, MemStack::new(&mut memory));
                        out
                    };
                    for (isa, actual) in for_every_par(&what, run) {
                        let actual = Dense::from_slice(rows, rows, &actual);
                        assert_exact(&actual, &expected, &format!("{what}, {isa}"));
                    }
                }
            }
        }
    }
}
