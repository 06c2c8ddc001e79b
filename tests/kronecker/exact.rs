//! Steps with given factors on integers: exact, in every form, layout and shape, however the batch is ordered or split.

use crate::problem::{FORMS, Form, Given, Problem, SHAPES, expected, integer_factors, step};
use foof_oracle::compare::{assert_exact, assert_same_bits};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::Layout;
use foof_oracle::{Dense, Random};
use proptest::prelude::*;

#[test]
fn integers_are_exact_in_every_form() {
    let mut random = Random::new(1);
    for shape in SHAPES {
        let [o, i, _] = shape;
        let (inputs, errors) = (integer_factors(&mut random, i), integer_factors(&mut random, o));
        let old = random.integers(o, i, 8);
        for form in FORMS {
            let problem = Problem::new::<f32>(shape, form, |rows, cols| random.integers(rows, cols, 2));
            for (a, (p, p_dense)) in inputs.iter().enumerate() {
                for b in 0..=errors.len() {
                    let error = errors.get(b);
                    let blend = if a == 0 { (-3.0, 2.0) } else { (1.0, 0.0) };
                    let what = format!("{shape:?} {form:?} factors {a} {b}");
                    let expected = expected(&problem.u, p_dense, error.map(|q| &q.1), &old, blend);
                    for (isa, got) in for_every_par(&what, |par| {
                        let factors = (p, error.map(|q| &q.0));
                        step::<f32>(&problem, factors, &old, blend, [Layout::RowMajor; 2], par).elements()
                    }) {
                        assert_exact(&Dense::from_slice(o, i, &got), &expected, &format!("{isa}: {what}"));
                    }
                }
            }
        }
    }
}

#[test]
fn every_layout_gives_the_same_integers() {
    let mut random = Random::new(2);
    for shape in [[9, 6, 4], [6, 9, 20]] {
        let [o, i, _] = shape;
        let (inputs, errors) = (integer_factors(&mut random, i), integer_factors(&mut random, o));
        let old = random.integers(o, i, 8);
        for form in FORMS {
            let problem = Problem::new::<f64>(shape, form, |rows, cols| random.integers(rows, cols, 2));
            for ((p, p_dense), (q, q_dense)) in inputs.iter().zip(&errors) {
                let expected = expected(&problem.u, p_dense, Some(q_dense), &old, (-3.0, 2.0));
                for operand in Layout::ALL {
                    for output in Layout::ALL {
                        for par in isas() {
                            let got = step::<f64>(&problem, (p, Some(q)), &old, (-3.0, 2.0), [operand, output], par);
                            let what = format!("{par:?}: {shape:?} {form:?} {operand:?} {output:?}");
                            assert_exact(&got.dense(), &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

/// Sizes around the leaf of a substitution, the vectors and the panels.
const EDGES: [usize; 12] = [1, 2, 4, 7, 8, 9, 16, 24, 25, 31, 33, 49];

/// Every output shape, with more and fewer rows than it has, so that each order of the products meets each edge.
#[test]
fn integers_are_exact_at_every_edge() {
    let mut random = Random::new(6);
    let factors: Vec<_> = EDGES.iter().map(|&n| integer_factors(&mut random, n)).collect();
    for (o, errors) in EDGES.iter().zip(&factors) {
        for (i, inputs) in EDGES.iter().zip(&factors) {
            for (form, m) in [(Form::Matrix, 1), (Form::LowRank, 3), (Form::LowRankWithBias, 12), (Form::LowRank, 50)] {
                let problem = Problem::new::<f32>([*o, *i, m], form, |rows, cols| random.integers(rows, cols, 2));
                let old = Dense::zeros(*o, *i);
                let ((p, p_dense), (q, q_dense)) = (&inputs[o % 2], &errors[i % 2]);
                let expected = expected(&problem.u, p_dense, Some(q_dense), &old, (1.0, 0.0));
                for par in isas() {
                    let got = step::<f32>(&problem, (p, Some(q)), &old, (1.0, 0.0), [Layout::RowMajor; 2], par);
                    assert_exact(&got.dense(), &expected, &format!("{par:?}: [{o}, {i}], {form:?} of {m} rows"));
                }
            }
        }
    }
}

/// The rows of a low-rank gradient in another order.
fn permuted(problem: &Problem, order: &[usize]) -> Problem {
    let rows = |m: &Dense| Dense::from_fn(order.len(), m.cols, |r, j| m[(order[r], j)]);
    Problem {
        form: problem.form,
        x: rows(&problem.x),
        e: rows(&problem.e),
        u: problem.u.clone(),
        magnitude: problem.magnitude.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Integers make the sums exact, so order and grouping of the rows cannot matter by a bit: one step with all rows, one with the
    /// rows in another order, and two steps that each take a part of the rows, the second added to the first.
    #[test]
    fn permuting_and_splitting_the_rows_changes_nothing(
        (o, i, m) in (1usize..40, 2usize..40, 2usize..60),
        with_bias: bool,
        (input, error) in (0usize..2, 0usize..3),
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let form = if with_bias { Form::LowRankWithBias } else { Form::LowRank };
        let inputs = &integer_factors(&mut random, i)[input].0;
        let errors = integer_factors(&mut random, o);
        let factors = (inputs, errors.get(error).map(|q: &(Given, Dense)| &q.0));
        let problem = Problem::new::<f64>([o, i, m], form, |rows, cols| random.integers(rows, cols, 3));
        let order = random.permutation(m);
        let (first, second) = order.split_at(1 + random.below(m - 1));
        for par in isas() {
            let old = Dense::zeros(o, i);
            let run = |problem: &Problem, old: &Dense, beta| {
                step::<f64>(problem, factors, old, (1.0, beta), [Layout::RowMajor; 2], par)
            };
            let whole = run(&problem, &old, 0.0);
            assert_exact(&run(&permuted(&problem, &order), &old, 0.0).dense(), &whole.dense(), "permuted");
            let part = run(&permuted(&problem, first), &old, 0.0);
            assert_exact(&run(&permuted(&problem, second), &part.dense(), 1.0).dense(), &whole.dense(), "split");
        }
    }

    /// Powers of two scale without rounding: rows of inputs times `2^k` give the step times `2^k`, to the bit.
    #[test]
    fn scaling_by_powers_of_two_is_exact(
        (o, i, m) in (1usize..40, 2usize..40, 1usize..60),
        form in prop::sample::select(vec![Form::Matrix, Form::LowRank]),
        power in -20i32..20,
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let factor = f64::from(power).exp2();
        let (p, q) = (random.normals(i, i).rounded::<f32>(), random.normals(o, o).rounded::<f32>());
        let (p, q) = (Given::Inverse(p), Given::Inverse(q));
        let mut problem = Problem::new::<f32>([o, i, m], form, |rows, cols| random.normals(rows, cols));
        let old = Dense::zeros(o, i);
        for par in isas() {
            let run = |problem: &Problem| {
                step::<f32>(problem, (&p, Some(&q)), &old, (0.7, 0.0), [Layout::RowMajor; 2], par).elements()
            };
            let scaled: Vec<f32> = run(&problem).iter().map(|v| v * factor as f32).collect();
            let (x, u) = (problem.x.clone(), problem.u.clone());
            (problem.x, problem.u) = (x.scaled(factor), u.scaled(factor));
            assert_same_bits(&run(&problem), &scaled, "scaled");
            (problem.x, problem.u) = (x, u);
        }
    }
}
