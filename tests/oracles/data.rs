//! The test data are what they claim to be.

use foof_oracle::Dense;
use foof_oracle::compare::{assert_exact, assert_same_bits};
use foof_oracle::generate::{Random, log_spectrum};
use foof_oracle::layout::{Buffer, Layout, poison};

#[test]
fn generators_are_seeded() {
    let draw = |seed| Random::new(seed).normals(3, 4);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // The published first output of SplitMix64 for the seed 1234567.
    assert_eq!(Random::new(1_234_567).bits(), 6_457_827_717_110_365_317);
}

#[test]
fn generators_keep_their_ranges() {
    let mut random = Random::new(3);
    let integers = random.integers(40, 40, 2);
    assert!(integers.data.iter().all(|v| v.fract() == 0.0 && v.abs() <= 2.0));
    assert!([-2.0, -1.0, 0.0, 1.0, 2.0].iter().all(|v| integers.data.contains(v)));
    assert!(random.normals(100, 100).data.iter().all(|v| v.is_finite()));
    let mut permutation = random.permutation(50);
    permutation.sort_unstable();
    assert_eq!(permutation, (0..50).collect::<Vec<_>>());
    assert_eq!(log_spectrum(3, 100.0), [1.0, 0.1, 0.01]);
    assert_eq!(log_spectrum(1, 100.0), [1.0]);
    assert!(random.symmetric(&log_spectrum(9, 10.0)).is_symmetric());
}

#[test]
fn poison_is_not_a_number() {
    assert!(poison::<f32>().is_nan());
    assert!(poison::<f64>().is_nan());
}

/// Every layout holds every element once, inside the buffer, and gives it back.
#[test]
fn layouts_hold_what_is_embedded() {
    for layout in Layout::ALL {
        for shape in [[1, 1, 1], [2, 3, 4], [5, 1, 2], [0, 3, 2], [4, 0, 1]] {
            let count = shape.iter().product::<usize>();
            let values: Vec<f64> = (0..count).map(|v| v as f64).collect();
            let buffer = Buffer::<f32, 3>::embed(&values, shape, layout);
            let back: Vec<f64> = buffer.elements().iter().map(|&v| f64::from(v)).collect();
            assert_eq!(back, values, "{layout:?} {shape:?}");
            let mut places = buffer.places();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), count, "{layout:?} {shape:?}");
            buffer.assert_margins_intact("embedding");
            let poisoned = Buffer::<f32, 3>::poisoned(shape, layout);
            assert!(poisoned.data.iter().all(|v| v.is_nan()));
        }
    }
    let matrix = Random::new(4).integers(3, 5, 9);
    for layout in Layout::ALL {
        let buffer = Buffer::<f64, 2>::matrix(&matrix, layout);
        assert_exact(&buffer.dense(), &matrix, "matrix");
        let [row, col] = buffer.strides;
        let at = buffer.offset as isize + 2 * row + 3 * col;
        assert_eq!(buffer.data[at as usize], matrix[(2, 3)]);
    }
}

#[test]
fn layouts_differ_as_named() {
    let strides = |layout| Buffer::<f32, 2>::poisoned([3, 5], layout).strides;
    assert_eq!(strides(Layout::RowMajor), [5, 1]);
    assert_eq!(strides(Layout::ColumnMajor), [1, 3]);
    assert_eq!(strides(Layout::Reversed), [-5, -1]);
    assert_eq!(strides(Layout::FirstReversed), [-5, 1]);
    assert_eq!(strides(Layout::LastReversed), [1, -3]);
    assert_eq!(strides(Layout::WideRows), [12, 1]);
    assert_eq!(strides(Layout::Scattered), [22, 3]);
}

/// A write beside the tensor is noticed wherever it falls.
#[test]
fn stray_writes_are_noticed() {
    for layout in Layout::ALL {
        let buffer = Buffer::<f32, 2>::embed(&[1.0; 6], [2, 3], layout);
        let inside = buffer.places();
        for k in (0..buffer.data.len()).filter(|k| !inside.contains(k)) {
            let mut spoiled = buffer.clone();
            spoiled.data[k] = 0.0;
            let check = || spoiled.assert_margins_intact("stray");
            assert!(std::panic::catch_unwind(check).is_err(), "{layout:?} {k}");
        }
    }
}

/// The assertions refuse what they should: a NaN, a value beyond the bound, another sign of zero.
#[test]
fn assertions_refuse() {
    use foof_oracle::compare::{assert_close, assert_within};
    let one = Dense::from_rows(&[[1.0]]);
    let nan = Dense::from_rows(&[[f64::NAN]]);
    let refused = |check: &(dyn Fn() + std::panic::RefUnwindSafe)| {
        assert!(std::panic::catch_unwind(check).is_err());
    };
    refused(&|| assert_within(&nan, &one, &one, "NaN"));
    refused(&|| assert_within(&one, &nan, &one, "NaN"));
    refused(&|| assert_within(&one, &one, &nan, "NaN bound"));
    refused(&|| assert_close(&nan, &one, f64::INFINITY, "NaN"));
    refused(&|| assert_within(&one, &one.scaled(3.0), &one, "beyond"));
    refused(&|| assert_same_bits(&[0.0f32], &[-0.0f32], "signs of zero"));
    assert_within(&one, &one.scaled(2.0), &one, "at the bound");
    assert_same_bits(&[f32::NAN], &[f32::NAN], "the same NaN");
}
