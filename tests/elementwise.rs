//! Entrywise updates: exact on integers, for every layout, instruction set and number of threads.

use foof_kernels::{Blend, Element, Par, elementwise};
use foof_oracle::compare::{assert_exact, assert_same_bits};
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};

fn run<T: Element>(x: &Buffer<T, 2>, mut out: Buffer<T, 2>, blend: Blend<T>, par: Par) -> Buffer<T, 2> {
    elementwise::blend(out.view_mut(), blend, x.view(), par);
    out.assert_margins_intact("blend");
    out
}

fn integers_in_every_layout<T: Element>() {
    let mut random = Random::new(1);
    for (m, n) in [(0, 3), (3, 0), (1, 1), (2, 17), (19, 5), (8, 33)] {
        let (x, c) = (random.integers(m, n, 8), random.integers(m, n, 8));
        let blend = Blend { alpha: T::from_f64(-3.0), beta: T::from_f64(2.0) };
        let blended = c.scaled(2.0).plus(&x.scaled(-3.0));
        for from in Layout::ALL {
            for to in Layout::ALL {
                for par in isas() {
                    let what = format!("{par:?}: {m} x {n}, {from:?} to {to:?}");
                    let x_buffer = Buffer::<T, 2>::matrix(&x, from);
                    let out = run(&x_buffer, Buffer::matrix(&c, to), blend, par);
                    assert_exact(&out.dense(), &blended, &what);
                    let out = run(&x_buffer, Buffer::poisoned([m, n], to), Blend::set(blend.alpha), par);
                    assert_exact(&out.dense(), &x.scaled(-3.0), &format!("{what}, into poison"));
                }
            }
        }
    }
}

#[test]
fn integers_are_exact_in_every_layout() {
    integers_in_every_layout::<f32>();
    integers_in_every_layout::<f64>();
}

/// Enough entries that rows are shared among threads, in even and uneven parts.
#[test]
fn integers_are_exact_on_every_number_of_threads() {
    let mut random = Random::new(2);
    for (m, n) in [(257, 401), (2, 70_000), (400, 256)] {
        let (x, c) = (random.integers(m, n, 8), random.integers(m, n, 8));
        let expected = c.plus(&x);
        let what = format!("{m} x {n}");
        for layout in [Layout::RowMajor, Layout::Scattered] {
            let x = Buffer::<f32, 2>::matrix(&x, layout);
            for (isa, got) in
                for_every_par(&what, |par| run(&x, Buffer::matrix(&c, layout), Blend::add(1.0), par).elements())
            {
                assert_exact(&Dense::from_slice(m, n, &got), &expected, &format!("{isa}: {what}"));
            }
        }
    }
}

/// Powers of two scale without rounding: the bits of a scaled argument are those of the scaled result.
#[test]
fn scaling_by_powers_of_two_is_exact() {
    let mut random = Random::new(3);
    let (x, c) = (random.normals(9, 21).rounded::<f32>(), random.normals(9, 21).rounded::<f32>());
    for par in isas() {
        let blend = Blend { alpha: 0.3, beta: 0.7 };
        let result = |factor: f64| {
            let [x, c] = [&x, &c].map(|m| Buffer::<f32, 2>::matrix(&m.scaled(factor), Layout::RowMajor));
            run(&x, c, blend, par)
        };
        let scaled: Vec<f32> = result(1.0).elements().iter().map(|v| v * 1024.0).collect();
        assert_same_bits(&result(1024.0).elements(), &scaled, &format!("{par:?}"));
    }
}
