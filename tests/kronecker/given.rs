//! Steps with factors and eigenvectors that are given: exact on integers, within the derived bound on reals.

use crate::with_one;
use foof::inverse::{damped_cholesky_alloc, damped_inverse_alloc};
use foof::kronecker::{
    Eigenbasis, Factor, Gradient, ekfac_step_alloc, exact_step_alloc, foof_step_alloc, kfac_step_alloc,
};
use foof::{Blend, Element, MatRef, Par, Triangle};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_close, assert_exact, assert_within};
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random, fisher, steps};

/// `[o, i, M]`: below and above each other, so that each side of a low-rank gradient takes either order.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [2, 3, 1], [5, 4, 7], [17, 9, 6], [33, 20, 40], [12, 65, 30]];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Form {
    Matrix,
    LowRank,
    LowRankWithBias,
}

const FORMS: [Form; 3] = [Form::Matrix, Form::LowRank, Form::LowRankWithBias];

/// A gradient in one of its forms, with what it is equal to.
struct Problem {
    form: Form,
    x: Dense,
    e: Dense,
    /// `U`.
    u: Dense,
    /// `|scale| |E|^T |X|`, or `|U|`.
    magnitude: Dense,
}

/// Exact, and not one.
const SCALE: f64 = 2.0;

impl Problem {
    fn new<T: Element>([o, i, m]: [usize; 3], form: Form, mut draw: impl FnMut(usize, usize) -> Dense) -> Self {
        let one = usize::from(form == Form::LowRankWithBias);
        let (x, e) = (draw(m, i - one).rounded::<T>(), draw(m, o).rounded::<T>());
        let u = match form {
            Form::Matrix => draw(o, i).rounded::<T>(),
            _ => fisher::gradient(&with_one(&x, one), &e).scaled(SCALE),
        };
        let magnitude = match form {
            Form::Matrix => u.abs(),
            _ => fisher::gradient(&with_one(&x, one).abs(), &e.abs()).scaled(SCALE),
        };
        Problem { form, x, e, u, magnitude }
    }

    /// Calls `f` with the gradient in buffers of a layout.
    fn with<T: Element, R>(&self, layout: Layout, f: impl FnOnce(Gradient<'_, T>) -> R) -> R {
        let [u, x, e] = [&self.u, &self.x, &self.e].map(|matrix| Buffer::<T, 2>::matrix(matrix, layout));
        let (inputs, errors, scale) = (x.view(), e.view(), T::from_f64(SCALE));
        f(match self.form {
            Form::Matrix => Gradient::Matrix(u.view()),
            Form::LowRank => Gradient::LowRank { inputs, errors, scale },
            Form::LowRankWithBias => Gradient::LowRankWithBias { inputs, errors, scale },
        })
    }

    /// The longest chain of roundings that forms `U`: a term of each row, the scale, and its product with alpha.
    fn depth(&self) -> usize {
        if self.form == Form::Matrix { 0 } else { self.x.rows + 2 }
    }
}

/// A factor as it is given to a step.
#[derive(Clone)]
enum Given {
    Inverse(Dense),
    /// What lies above the diagonal is not to be read.
    Cholesky(Dense),
}

impl Given {
    fn buffer<T: Element>(&self, layout: Layout) -> Buffer<T, 2> {
        match self {
            Given::Inverse(p) => Buffer::matrix(p, layout),
            Given::Cholesky(l) => {
                let poisoned = Dense::from_fn(l.rows, l.rows, |i, j| if j > i { f64::NAN } else { l[(i, j)] });
                Buffer::matrix(&poisoned, layout)
            }
        }
    }

    fn factor<'a, T>(&self, view: MatRef<'a, T>) -> Factor<'a, T> {
        match self {
            Given::Inverse(_) => Factor::Inverse(view),
            Given::Cholesky(_) => Factor::Cholesky(view),
        }
    }
}

/// One step into `old`, or into poison where `beta = 0`.
fn step<T: Element>(
    problem: &Problem,
    (p, q): (&Given, Option<&Given>),
    old: &Dense,
    (alpha, beta): (f64, f64),
    [operand, output]: [Layout; 2],
    par: Par,
) -> Buffer<T, 2> {
    let mut out = match beta == 0.0 {
        true => Buffer::poisoned([old.rows, old.cols], output),
        false => Buffer::matrix(old, output),
    };
    let blend = Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) };
    let p_buffer = p.buffer::<T>(operand);
    let input = p.factor(p_buffer.view());
    problem.with(operand, |gradient| match q {
        None => foof_step_alloc(out.view_mut(), blend, gradient, input, par).expect("shapes agree"),
        Some(q) => {
            let buffer = q.buffer::<T>(operand);
            let error = q.factor(buffer.view());
            kfac_step_alloc(out.view_mut(), blend, gradient, input, error, par).expect("shapes agree");
        }
    });
    out.assert_margins_intact("step");
    out
}

/// A symmetric matrix of small integers, as an inverse; and the Cholesky factor `L = 2 [I 0; C I]`, whose
/// `(L L^T)^-1 = [I + C^T C, -C^T; -C, I] / 4` every substitution finds exactly.
fn integer_factors(random: &mut Random, n: usize) -> [(Given, Dense); 2] {
    let half = random.integers(n, n, 2).lower();
    let p = Dense::from_fn(n, n, |i, j| half[(i.max(j), i.min(j))]);
    let c = random.integers(n, n, 1);
    let below = |i: usize, j: usize| if i >= n / 2 && j < n / 2 { c[(i, j)] } else { 0.0 };
    let identity = Dense::identity(n);
    let l = Dense::from_fn(n, n, |i, j| 2.0 * (identity[(i, j)] + below(i, j)));
    let y = Dense::from_fn(n, n, |i, j| 0.5 * (identity[(i, j)] - below(i, j)));
    [(Given::Inverse(p.clone()), p), (Given::Cholesky(l), y.transpose().matmul(&y))]
}

/// `alpha Q U P + beta C`.
fn expected(u: &Dense, p: &Dense, q: Option<&Dense>, old: &Dense, (alpha, beta): (f64, f64)) -> Dense {
    let up = u.matmul(p);
    let qup = q.map_or(up.clone(), |q| q.matmul(&up));
    qup.scaled(alpha).plus(&old.scaled(beta))
}

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

/// Against given inverses: one chain of all products, whatever their order (any sum of `k` products rounds each term at most
/// `k` times).
fn given_inverses_within_bound<T: Element>() {
    let mut random = Random::new(3);
    for shape in SHAPES {
        let [o, i, _] = shape;
        let (p, q) = (random.symmetric(&log_spectrum(i, 10.0)), random.symmetric(&log_spectrum(o, 10.0)));
        let (p, q) = (p.rounded::<T>(), q.rounded::<T>());
        let old = random.normals(o, i).rounded::<T>();
        for form in FORMS {
            let problem = Problem::new::<T>(shape, form, |rows, cols| random.normals(rows, cols));
            for error in [None, Some(&q)] {
                let blend = (-1.5, 0.75);
                let what = format!("{shape:?} {form:?}, error factor {}", error.is_some());
                let given = (Given::Inverse(p.clone()), error.cloned().map(Given::Inverse));
                let inner = i + error.map_or(0, |q| q.rows) + problem.depth();
                let up = problem.magnitude.matmul(&p.abs());
                let magnitude = error.map_or(up.clone(), |q| q.abs().matmul(&up));
                let bound = bounds::blended_product(Format::of::<T>(), &magnitude, blend, &old, inner, inner);
                let expected = expected(&problem.u, &p, error, &old, blend);
                for (isa, got) in for_every_par(&what, |par| {
                    let factors = (&given.0, given.1.as_ref());
                    step::<T>(&problem, factors, &old, blend, [Layout::RowMajor; 2], par).elements()
                }) {
                    assert_within(&Dense::from_slice(o, i, &got), &expected, &bound, &format!("{isa}: {what}"));
                }
            }
        }
    }
}

#[test]
fn given_inverses() {
    given_inverses_within_bound::<f32>();
    given_inverses_within_bound::<f64>();
}

/// `X (L L^T)^-1` by substitution with a given `L`: the residual is within `(2 g + g²) |L||L^T||X|`, `g = gamma_2n` with
/// products rounded too (Higham, Theorem 8.5), so the error is that times `|(L L^T)^-1|`.
fn solved(u: &Approx, l: &Dense, p: &Dense) -> Approx {
    let g = u.format.gamma(2 * l.rows);
    let residual = (2.0 * g + g * g) * l.frobenius().powi(2);
    let shrink = residual * p.frobenius();
    assert!(shrink < 1.0, "the bound says something");
    let value = u.value.matmul(p);
    let computed = (value.frobenius() + u.error * p.frobenius()) / (1.0 - shrink);
    Approx::exact(value, u.format).with_error(p.frobenius() * (u.error + residual * computed))
}

/// A problem's gradient with the rounding of any evaluation.
fn gradient_of(problem: &Problem, format: Format) -> Approx {
    let exact = |matrix: &Dense| Approx::exact(matrix.clone(), format);
    match problem.form {
        Form::Matrix => exact(&problem.u),
        Form::LowRank => exact(&problem.e).transpose().matmul(&exact(&problem.x)).scaled(SCALE),
        Form::LowRankWithBias => exact(&problem.e).transpose().matmul(&exact(&problem.x).with_one()).scaled(SCALE),
    }
}

/// From factor to step: Cholesky factors and inverses of the same damped matrices give the step of the dense solve.
fn cholesky_factors_and_inverses<T: Element>() {
    let mut random = Random::new(4);
    let format = Format::of::<T>();
    for shape in SHAPES {
        let [o, i, _] = shape;
        let lambda = 0.5;
        let a = random.symmetric(&log_spectrum(i, 100.0)).rounded::<T>();
        let b = random.symmetric(&log_spectrum(o, 100.0)).rounded::<T>();
        let old = Dense::zeros(o, i);
        for form in FORMS {
            let problem = Problem::new::<T>(shape, form, |rows, cols| random.normals(rows, cols));
            let oracle = steps::kfac_step(&problem.u, &a, &b, lambda, lambda);
            for par in isas() {
                let (a_buffer, b_buffer) = (Buffer::matrix(&a, Layout::RowMajor), Buffer::matrix(&b, Layout::RowMajor));
                let prepared = [a_buffer, b_buffer].map(|matrix: Buffer<T, 2>| {
                    let mut l = Buffer::<T, 2>::poisoned(matrix.shape, Layout::RowMajor);
                    let mut p = l.clone();
                    let (one, lambda, triangle) = (T::one(), T::from_f64(lambda), Triangle::Full);
                    damped_cholesky_alloc(l.view_mut(), matrix.view(), one, lambda, par).expect("positive definite");
                    damped_inverse_alloc(p.view_mut(), matrix.view(), one, lambda, triangle, par).expect("definite");
                    (l.dense().lower(), p.dense())
                });
                let [(l_a, p_a), (l_b, p_b)] = &prepared;
                let u = gradient_of(&problem, format);
                let format_matrix = |matrix: &Dense| Approx::exact(matrix.clone(), format);
                // Order of the products does not matter to these norms, up to rounding that the doubled error covers.
                let by_inverse = format_matrix(&b)
                    .damped_inverse(lambda)
                    .matmul(&u)
                    .matmul(&format_matrix(&a).damped_inverse(lambda));
                let what = format!("{par:?}: {shape:?} {form:?}");
                let layouts = [Layout::RowMajor; 2];
                let inverses = (Given::Inverse(p_a.clone()), Given::Inverse(p_b.clone()));
                let factors = (&inverses.0, Some(&inverses.1));
                let got = step::<T>(&problem, factors, &old, (1.0, 0.0), layouts, par).dense();
                assert_close(&got, &oracle, 2.0 * by_inverse.error, &format!("{what}: inverses"));
                let dense = |l: &Dense| l.matmul(&l.transpose()).inverse();
                let (d_a, d_b) = (dense(l_a), dense(l_b));
                let by_solve = solved(&solved(&u, l_a, &d_a).transpose(), l_b, &d_b).transpose();
                let cholesky = (Given::Cholesky(l_a.clone()), Given::Cholesky(l_b.clone()));
                let factors = (&cholesky.0, Some(&cholesky.1));
                let got = step::<T>(&problem, factors, &old, (1.0, 0.0), layouts, par).dense();
                by_solve.assert_matches(&got, &format!("{what}: Cholesky factors"));
                // Against the same solve, an explicit inverse for one side.
                let factors = (&inverses.0, Some(&cholesky.1));
                let got = step::<T>(&problem, factors, &old, (1.0, 0.0), layouts, par).dense();
                let mixed = solved(&u.matmul(&format_matrix(p_a)).transpose(), l_b, &d_b).transpose();
                mixed.assert_matches(&got, &format!("{what}: inverse and Cholesky factor"));
            }
        }
    }
}

#[test]
fn cholesky_factors_and_inverses_of_damped_matrices() {
    cholesky_factors_and_inverses::<f32>();
    cholesky_factors_and_inverses::<f64>();
}

/// Exact damping and EK-FAC with given eigenvectors: the oracle forms `Q_B ⊗ Q_A`.
fn eigenbases_within_bound<T: Element>() {
    let mut random = Random::new(5);
    let format = Format::of::<T>();
    for shape in [[1, 1, 1], [2, 3, 1], [5, 4, 7], [17, 9, 6], [8, 21, 12]] {
        let [o, i, _] = shape;
        let (q_a, q_b) = (random.orthogonal(i).rounded::<T>(), random.orthogonal(o).rounded::<T>());
        let (a, b) = (random.normals(i, 1).abs().rounded::<T>(), random.normals(o, 1).abs().rounded::<T>());
        let products = steps::kronecker_moments(&a.data, &b.data);
        let moments = random.normals(o, i).abs().rounded::<T>();
        let lambda = 0.125;
        let old = random.normals(o, i).rounded::<T>();
        let (alpha, beta) = (-1.5, 0.75);
        let blend = Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) };
        let buffer = |matrix: &Dense| Buffer::<T, 2>::matrix(matrix, Layout::ColumnMajor);
        let (qa_buffer, qb_buffer, moments_buffer) = (buffer(&q_a), buffer(&q_b), buffer(&moments));
        let (a_values, b_values): (Vec<T>, Vec<T>) =
            (a.data.iter().map(|&v| T::from_f64(v)).collect(), b.data.iter().map(|&v| T::from_f64(v)).collect());
        for form in FORMS {
            let problem = Problem::new::<T>(shape, form, |rows, cols| random.normals(rows, cols));
            for exact in [true, false] {
                let denominators = if exact { &products } else { &moments };
                let fresh = steps::ekfac_step(&problem.u, &q_a, &q_b, denominators, lambda);
                let expected = fresh.scaled(alpha).plus(&old.scaled(beta));
                // Four products and three roundings of the denominator, as one chain.
                let inner = 2 * (o + i) + 3 + problem.depth();
                let magnitude =
                    steps::eigenbasis_step(&problem.magnitude, &q_a.abs(), &q_b.abs(), denominators, lambda);
                let bound = bounds::blended_product(format, &magnitude, (alpha, beta), &old, inner, inner);
                let what = format!("{shape:?} {form:?}, exact {exact}");
                for (isa, got) in for_every_par(&what, |par| {
                    let mut out = Buffer::<T, 2>::matrix(&old, Layout::Reversed);
                    let (view, lambda) = (out.view_mut(), T::from_f64(lambda));
                    problem
                        .with(Layout::WideRows, |gradient| match exact {
                            true => {
                                let input = Eigenbasis { values: &a_values, vectors: qa_buffer.view() };
                                let error = Eigenbasis { values: &b_values, vectors: qb_buffer.view() };
                                exact_step_alloc(view, blend, gradient, input, error, lambda, par)
                            }
                            false => {
                                let (q_a, q_b) = (qa_buffer.view(), qb_buffer.view());
                                ekfac_step_alloc(view, blend, gradient, q_a, q_b, moments_buffer.view(), lambda, par)
                            }
                        })
                        .expect("shapes agree");
                    out.assert_margins_intact(&what);
                    out.elements()
                }) {
                    assert_within(&Dense::from_slice(o, i, &got), &expected, &bound, &format!("{isa}: {what}"));
                }
            }
        }
    }
}

#[test]
fn given_eigenbases() {
    eigenbases_within_bound::<f32>();
    eigenbases_within_bound::<f64>();
}
