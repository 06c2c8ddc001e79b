//! Plans: which algorithm for which geometry, its multiply-adds against a count by enumeration, and what they save.

use crate::run::name;
use foof_kernels::conv::{Axis, Conv, Form, Plan};
use foof_kernels::{Element, Par};
use foof_oracle::images::padded;
use foof_oracle::kernels::isas;
use std::collections::HashSet;

fn two(channels: usize, axes: [Axis; 2]) -> Conv {
    Conv::new(channels, channels, axes).expect("a geometry")
}

/// Pairs of samples `(u, u')` that some output reads through some two taps, in either order, and how many are a sample with itself.
fn pairs(conv: &Conv) -> (u64, u64) {
    let axes = conv.axes3();
    let outputs = axes.map(|axis| axis.outputs());
    let kernel = axes.map(|axis| axis.kernel);
    let places = |[a, b, c]: [usize; 3]| (0..a * b * c).map(move |k| [k / (b * c), k / c % b, k % c]);
    let mut pairs = HashSet::new();
    for output in places(outputs) {
        let sample = |tap: [usize; 3]| {
            let at = |axis: usize| axes[axis].sample(output[axis], tap[axis]);
            Some([at(0)?, at(1)?, at(2)?])
        };
        let samples: Vec<_> = places(kernel).filter_map(sample).collect();
        pairs.extend(samples.iter().flat_map(|&u| samples.iter().map(move |&v| (u, v))));
    }
    (pairs.len() as u64, pairs.iter().filter(|(u, v)| u == v).count() as u64)
}

/// Small geometries of every kind.
fn geometries() -> Vec<[Axis; 2]> {
    vec![
        [padded(6, 3), padded(5, 3)],
        [padded(9, 3).stride(2), padded(8, 3).stride(2)],
        [padded(7, 5), Axis::new(9, 2)],
        [Axis::new(7, 3).dilation(2).padding(2), padded(5, 3)],
        [Axis::new(3, 3).dilation(3).padding(3), padded(4, 3)],
        [padded(11, 5).stride(3), Axis::new(10, 4).stride(2).dilation(3).padding_each([5, 0])],
        [Axis::new(2, 3).padding(4), Axis::new(1, 2).padding(1)],
        [Axis::new(6, 2).stride(2), Axis::new(6, 3).stride(3)],
    ]
}

/// With as many channels as leave no second class to a panel, the correlation form multiplies each pair of samples that it needs once: in
/// a tile with itself one of two transposed pairs, between two tiles both.
#[test]
fn multiply_adds_are_those_counted() {
    for par in isas() {
        for axes in geometries() {
            let (all, own) = pairs(&two(1, axes));
            let mut panel = 0;
            for channels in [1, 2, 5, 8, 25, 48, 49, 96, 97, 200] {
                let conv = two(channels, axes);
                let plan = Plan::correlation::<f32>(&conv, par);
                let Form::Correlation(correlation) = plan.form() else { panic!("{plan}") };
                assert_eq!(plan.multiply_adds(), correlation.multiply_adds());
                let c = channels as u64;
                let what = format!("{par:?}: {channels} channels, {axes:?}: {plan}");
                // Every entry needs these.
                assert!(plan.multiply_adds() >= (c * c * all + c * own) / 2, "{what}");
                panel = tile(&plan);
                // Fewer channels share a panel with the next class, or gather rows.
                if channels > 8 && 2 * channels > nr::<f32>(par) {
                    let tiles = (channels as u64).div_ceil(panel);
                    let widths: Vec<u64> = (0..tiles).map(|i| panel.min(c - i * panel)).collect();
                    let within: u64 = widths.iter().map(|w| w * w).sum();
                    let expected = within * (all + own) / 2 + (c * c - within) / 2 * all;
                    assert_eq!(plan.multiply_adds(), expected, "{what}");
                }
            }
            assert!(panel > 1);
        }
    }
}

/// The picture of `docs/convolution.md`: six samples, five and four, however many classes share a panel; by channel pairs, of which a tile with
/// itself computes all.
#[test]
fn multiply_adds_of_the_documentation() {
    for par in isas() {
        for channels in [1, 2, 3, 8] {
            let conv = Conv::new(channels, 1, [padded(6, 3)]).expect("a geometry");
            let plan = Plan::correlation::<f32>(&conv, par);
            assert_eq!(plan.multiply_adds(), (6 + 5 + 4) * (channels * channels) as u64, "{par:?}: {plan}");
        }
    }
}

/// Channels of a tile as a plan prints them.
fn tile(plan: &Plan) -> u64 {
    let text = plan.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("channels")).expect("channels of a tile");
    words[at - 1].parse().expect("a number")
}

/// The width of a panel, by which channels are cut into tiles.
fn nr<T: Element>(par: Par) -> usize {
    let one = [Axis::new(9, 3)];
    tile(&Plan::correlation::<T>(&Conv::new(1 << 12, 1, one).expect("a geometry"), par)) as usize
}

/// An implicit unfold multiplies the lower triangle at each output, for each group.
#[test]
fn an_unfold_multiplies_a_triangle_at_each_output() {
    for axes in geometries() {
        let conv = two(12, axes);
        let taps = (axes[0].kernel * axes[1].kernel) as u64;
        for groups in [1, 3, 12] {
            let conv = conv.with_groups(groups as usize).expect("groups");
            let f = 12 / groups * taps;
            let plan = Plan::unfold(&conv);
            assert_eq!(plan.multiply_adds(), groups * (f * (f + 1) / 2) * conv.positions() as u64);
            assert_eq!(plan.unfold_multiply_adds(), plan.multiply_adds());
            let correlation = Plan::correlation::<f32>(&conv, Par::seq());
            assert_eq!(correlation.unfold_multiply_adds(), plan.multiply_adds());
        }
    }
}

/// Gains of many channels: `k⁴ T` against the pairs of samples counted above. Rounded as `docs/convolution.md` has them.
#[test]
fn gains_are_those_of_the_documentation() {
    let same = |size: usize, kernel: usize, stride: usize| Axis::new(size, kernel).padding(kernel / 2).stride(stride);
    for (axis, gain) in [
        (same(56, 3, 1), "3.4"),
        (same(32, 3, 1), "3.5"),
        (same(16, 3, 1), "3.8"),
        (same(8, 3, 1), "4.5"),
        (same(4, 3, 1), "6.6"),
        (same(28, 5, 1), "9.1"),
        (same(14, 5, 1), "10.9"),
        (same(224, 7, 1), "14.6"),
        (same(32, 7, 1), "17.6"),
        (same(56, 3, 2), "1.3"),
        (same(28, 5, 2), "2.8"),
        (same(224, 7, 2), "4.3"),
        (Axis::new(224, 11).padding(2).stride(4), "2.8"),
    ] {
        for par in isas() {
            let conv = two(64 * nr::<f32>(par), [axis, axis]);
            let plan = Plan::new::<f32>(&conv, par);
            assert!(matches!(plan.form(), Form::Correlation(_)), "{plan}");
            let ratio = plan.unfold_multiply_adds() as f64 / plan.multiply_adds() as f64;
            assert_eq!(format!("{ratio:.1}"), gain, "{par:?}: {axis:?}: {plan}");
        }
    }
}

/// That of fewest multiply-adds, unless it saves too few.
#[test]
fn the_cheapest_form_is_chosen() {
    let square = |axis: Axis| two(64, [axis, axis]);
    let depthwise = square(padded(32, 3)).with_groups(64).expect("groups");
    for (conv, form) in [
        (square(Axis::new(32, 1)), "pixels"),
        (Conv::new(3, 1, [Axis::new(9, 1)]).expect("a geometry"), "pixels"),
        // One product, of the phase that is read.
        (square(Axis::new(32, 1).stride(2)), "correlation"),
        (square(Axis::new(32, 1).padding(1)), "correlation"),
        (square(Axis::new(32, 2).stride(2)), "implicit unfold"),
        (square(Axis::new(32, 4).stride(4)), "implicit unfold"),
        (square(Axis::new(32, 2).stride(3)), "implicit unfold"),
        (square(padded(32, 3)), "correlation"),
        (square(padded(32, 3).dilation(2).padding(2)), "correlation"),
        (square(padded(33, 3).stride(2)), "correlation"),
        (two(3, [Axis::new(224, 7).stride(2).padding(3); 2]), "correlation"),
        (depthwise, "depthwise correlation"),
        (two(64, [padded(32, 3), Axis::new(32, 1)]), "correlation"),
    ] {
        for par in isas() {
            let plan = Plan::new::<f32>(&conv, par);
            assert_eq!(name(&plan), form, "{par:?}: {conv:?}: {plan}");
            assert_eq!(plan.conv(), &conv);
            if form != "correlation" || conv.taps() > 1 {
                assert!(plan.multiply_adds() <= plan.unfold_multiply_adds(), "{plan}");
            }
        }
    }
}

#[test]
fn plans_say_what_they_are() {
    let [y, x] = [padded(8, 3), padded(8, 3)];
    for par in isas() {
        let grouped = |groups| two(4, [y, x]).with_groups(groups).expect("groups");
        for conv in [two(100, [y, x]), grouped(2), grouped(4), two(4, [Axis::new(8, 1); 2])] {
            for plan in [Plan::new::<f32>(&conv, par), Plan::unfold(&conv), Plan::correlation::<f32>(&conv, par)] {
                let text = plan.to_string();
                let gain = plan.unfold_multiply_adds() as f64 / plan.multiply_adds() as f64;
                let start = format!(
                    "{}: {:.3e} multiply-adds an image, {gain:.2}x fewer than unfolding",
                    name(&plan),
                    plan.multiply_adds() as f64
                );
                assert!(text.starts_with(&start), "{text}");
                assert_eq!(text.contains("segments"), name(&plan) == "correlation", "{text}");
                let groups = format!(", {} groups", conv.groups());
                assert_eq!(text.ends_with(&groups), conv.groups() > 1, "{text}");
            }
        }
    }
    assert_eq!(
        Plan::unfold(&two(2, [y, x])).to_string(),
        "implicit unfold: 1.094e4 multiply-adds an image, 1.00x fewer than unfolding"
    );
}
