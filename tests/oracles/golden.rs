//! The oracles against PyTorch's autograd and dense solves. Every tolerance is carried by [`Approx`] through the very
//! formula that is compared, from the unit roundoff, the shapes, and the norms and conditions of the data; none is chosen.

use foof_oracle::Dense;
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::case::Case;
use foof_oracle::compare::assert_within;
use foof_oracle::fisher::{self, Sharing};
use foof_oracle::network;
use foof_oracle::{rounded, steps};

/// Calls `test` for each block of each layer of each case, with the case, the layer and the block.
fn each_block(test: impl Fn(&Case, usize, usize, &str)) {
    for name in Case::NAMES {
        let case = Case::load(name);
        for l in 0..case.layers.len() {
            for block in 0..case.groups(l) {
                test(&case, l, block, &format!("{name}, layer {l}, block {block}"));
            }
        }
    }
}

/// Asserts that the golden value is within the derived tolerance, and that this worst case is worth something: relative
/// to the value it is below half the digits of single precision, where a wrong formula is off in the first.
#[track_caller]
fn check(derived: &Approx, golden: &Dense, what: &str) {
    derived.assert_matches(golden, what);
    let relative = derived.error / derived.value.frobenius();
    assert!(relative < Format::of::<f32>().unit.sqrt(), "{what}: tolerance {relative:e}");
}

/// `|X|^T |X|`, summed over all rows.
fn magnitude(batch: &[Dense]) -> Dense {
    let rows = fisher::stacked(batch).abs();
    rows.transpose().matmul(&rows)
}

/// Both evaluations sum `N T` products and scale once or twice: `2 gamma_(N T + 2)` of the sum of absolute products,
/// where `reduce` sums or averages `T` rows before (two more factors of up to `T` roundings each).
#[test]
fn factors() {
    each_block(|case, l, block, what| {
        let x = &case.inputs("input", l)[block];
        let e = &case.errors("error_mc", l)[block];
        let (n, t) = (x.len(), x[0].rows);
        for (tensor, actual, terms) in [
            ("factor_input", fisher::input_factor(x, Sharing::Expand), x),
            ("factor_error", fisher::error_factor(e, Sharing::Expand), e),
            ("factor_input_reduce", fisher::input_factor(x, Sharing::Reduce), x),
            ("factor_error_reduce", fisher::error_factor(e, Sharing::Reduce), e),
        ] {
            let golden = &case.golden.blocks(&format!("{tensor}.{l}"))[block];
            let sums: Vec<Dense> = terms.iter().map(|rows| fisher::summed_over_rows(&rows.abs())).collect();
            let (magnitude, scale, depth) = match tensor {
                "factor_input" => (magnitude(terms), 1.0, n * t + 2),
                "factor_error" => (magnitude(terms), 1.0 / t as f64, n * t + 2),
                "factor_input_reduce" => (magnitude(&sums), 1.0 / (t * t) as f64, n + 2 + 2 * (t + 1)),
                _ => (magnitude(&sums), 1.0, n + 2 + 2 * t),
            };
            let bound = magnitude.scaled(2.0 * F64.gamma(depth) * scale / n as f64);
            assert_within(&actual, golden, &bound, &format!("{what}: {tensor}"));
        }
    });
}

/// The factors of a block with the rounding of any evaluation.
fn rounded_factors(case: &Case, l: usize, block: usize) -> (Approx, Approx) {
    let (x, e) = (case.inputs("input", l), case.errors("error_mc", l));
    let (n, t) = (x[block].len(), x[block][0].rows);
    let rows = |batch: &[Dense]| Approx::exact_f64(fisher::stacked(batch));
    (rounded::second_moment(&rows(&x[block]), n), rounded::second_moment(&rows(&e[block]), n * t))
}

#[test]
fn foof_and_kfac_steps() {
    each_block(|case, l, block, what| {
        let lambda = case.lambda;
        let (a, b) = rounded_factors(case, l, block);
        let u = Approx::exact_f64(case.like_weight("gradient", l)[block].clone());
        for (tensor, rounded, plain) in [
            ("foof", rounded::foof_step(&u, &a, lambda), steps::foof_step(&u.value, &a.value, lambda)),
            (
                "kfac_heuristic",
                rounded::kfac_heuristic_step(&u, &a, &b, lambda),
                steps::kfac_heuristic_step(&u.value, &a.value, &b.value, lambda),
            ),
            (
                "kfac_exact",
                rounded::kfac_exact_step(&u, &a, &b, lambda),
                steps::kfac_exact_step(&u.value, &a.value, &b.value, lambda),
            ),
        ] {
            let what = format!("{what}: {tensor}");
            check(&rounded, &case.like_weight(tensor, l)[block], &what);
            check(&rounded, &plain, &format!("{what}, plain"));
        }
    });
}

/// The golden eigenvectors are not stored: ours differ from them by what [`rounded::eigenvectors`] allows.
#[test]
fn ekfac_steps() {
    each_block(|case, l, block, what| {
        let (a, b) = rounded_factors(case, l, block);
        let (q_a, q_b) = (rounded::eigenvectors(&a), rounded::eigenvectors(&b));
        let u = Approx::exact_f64(case.like_weight("gradient", l)[block].clone());
        let (x, e) = (case.inputs("input", l), case.errors("error_mc", l));
        let moved = case.input_errors("input")[l];
        let g: Vec<Approx> = x[block]
            .iter()
            .zip(&e[block])
            .map(|(x, e)| {
                let x = Approx::exact_f64(x.clone()).with_error(moved);
                Approx::exact_f64(e.transpose()).matmul(&x)
            })
            .collect();
        let golden = &case.like_weight("ekfac", l)[block];
        let rounded = rounded::ekfac_step(&u, &q_a, &q_b, &g, case.lambda);
        check(&rounded, golden, what);
        let (q_a, q_b) = (&q_a.value, &q_b.value);
        let moments = fisher::eigenbasis_moments(&x[block], &e[block], q_a, q_b);
        let plain = steps::ekfac_step(&u.value, q_a, q_b, &moments, case.lambda);
        check(&rounded, &plain, &format!("{what}, plain"));
    });
}

/// Inputs, probabilities and errors of the two multilayer perceptrons, for one sampled label and for all labels.
#[test]
fn networks() {
    for name in ["mlp", "logistic"] {
        let case = Case::load(name);
        let layers = case.layers.len();
        let weights: Vec<Approx> = (0..layers).map(|l| Approx::exact_f64(case.weight(l))).collect();
        let x = case.golden.matrix("input.0");
        let labels = case.golden.labels("labels_mc");
        let pass = network::pass(&weights, case.bias, &Approx::exact_f64(x.clone()), &labels);
        let p = case.golden.matrix("probabilities");
        check(&pass.probabilities, &p, &format!("{name}: probabilities"));
        let classes = p.cols;
        let repeated = Dense::from_fn(x.rows * classes, x.cols, |r, j| x[(r / classes, j)]);
        let all: Vec<usize> = (0..repeated.rows).map(|r| r % classes).collect();
        let full = network::pass(&weights, case.bias, &Approx::exact_f64(repeated), &all);
        for l in 0..layers {
            let golden = |tensor: &str| case.golden.matrix(&format!("{tensor}.{l}"));
            check(&pass.inputs[l], &golden("input"), &format!("{name}: input {l}"));
            check(&pass.errors[l], &golden("error_mc"), &format!("{name}: error {l}"));
            // The full Fisher's rows are scaled by sqrt(p), relatively as uncertain as the least probable label's p.
            let least = p.data.iter().copied().fold(1.0, f64::min);
            let relative = pass.probabilities.error / least;
            let e = &full.errors[l];
            let scaled = Dense::from_fn(e.value.rows, e.value.cols, |r, j| e.value[(r, j)] * p.data[r].sqrt());
            let error = e.error + (relative + F64.gamma(3)) * scaled.frobenius();
            let scaled = Approx::exact_f64(scaled).with_error(error);
            check(&scaled, &golden("error_full"), &format!("{name}: full error {l}"));
        }
    }
}

/// The mean gradient of the second mini-batch, and the Gram matrix of the sampled gradients.
#[test]
fn gradients_and_gram() {
    for name in Case::NAMES {
        let case = Case::load(name);
        let g = case.all_gradients("gradient_input", "gradient_error");
        let average = Dense::from_fn(1, g.value.rows, |_, _| 1.0 / g.value.rows as f64);
        let mean = Approx::exact_f64(average).matmul(&g).transpose();
        check(&mean, &case.flat("gradient"), &format!("{name}: gradient"));
        let plain: Vec<Dense> = (0..case.layers.len())
            .flat_map(|l| {
                let x = case.inputs("gradient_input", l);
                let e = case.errors("gradient_error", l);
                let u = |(x, e): (&Vec<Dense>, &Vec<Dense>)| fisher::mean_gradient(x, e);
                x.iter().zip(&e).map(u).collect::<Vec<_>>()
            })
            .map(|u| u.vec().transpose())
            .collect();
        let plain = fisher::concatenated(&plain).transpose();
        check(&mean, &plain, &format!("{name}: gradient, plain"));

        let g = case.all_gradients("input", "error_mc");
        let n = g.value.rows;
        let gram = rounded::second_moment(&g.transpose(), n);
        let golden = case.golden.matrix("gram_mc");
        check(&gram, &golden, &format!("{name}: Gram matrix"));
        check(&gram, &fisher::gram(&g.value), &format!("{name}: Gram, plain"));
    }
}

/// Fisher-vector products and natural gradients, over all layers and layer by layer; `N` counts datapoints, of which the
/// full Fisher has one row for each label.
#[test]
fn fisher_products_and_natural_gradients() {
    for name in Case::NAMES {
        let case = Case::load(name);
        let n = case.golden.matrix("probabilities").rows;
        let u = Approx::exact_f64(case.flat("gradient"));
        for labels in ["mc", "full"] {
            let errors = format!("error_{labels}");
            let g = case.all_gradients("input", &errors);
            let f = rounded::second_moment(&g, n);
            let plain = fisher::fisher(&g.value, n);
            check(&f, &plain, &format!("{name}: Fisher {labels}, plain"));
            let product = case.flat(&format!("fisher_{labels}_vector_product"));
            check(&f.matmul(&u), &product, &format!("{name}: Fisher product {labels}"));
            let step = rounded::natural_gradient(&f, &u, case.lambda);
            let golden = case.flat(&format!("ng_{labels}"));
            check(&step, &golden, &format!("{name}: natural gradient {labels}"));
            let plain = steps::natural_gradient(&plain, &u.value, case.lambda);
            check(&step, &plain, &format!("{name}: natural gradient, plain"));
            for l in 0..case.layers.len() {
                let g = case.layer_gradients("input", &errors, l);
                let f = rounded::second_moment(&g, n);
                let vector = |tensor: &str| case.golden.matrix(&format!("{tensor}.{l}")).vec();
                let u = Approx::exact_f64(vector("gradient"));
                check(
                    &rounded::natural_gradient(&f, &u, case.lambda),
                    &vector(&format!("ng_{labels}_blockdiag")),
                    &format!("{name}: block-diagonal {labels}, layer {l}"),
                );
            }
        }
    }
}

/// The Laplace posterior's variances: the diagonal of `(N F + 2 I)^-1`.
#[test]
fn laplace_variances() {
    for name in Case::NAMES {
        let case = Case::load(name);
        let g = case.all_gradients("input", "error_mc");
        let covariance = rounded::second_moment(&g, 1).damped_inverse(2.0);
        let diagonal = covariance.value.diag();
        let diagonal = Dense::from_slice(diagonal.len(), 1, &diagonal);
        let variances = Approx::exact_f64(diagonal).with_error(covariance.error);
        check(&variances, &case.golden.matrix("laplace_covariance_diag"), name);
    }
}
