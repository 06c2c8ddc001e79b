//! What a convolution may be: sizes that follow from a geometry, and every documented error.

use foof_kernels::conv::{Axis, Conv, FeatureOrder, GeometryError};
use foof_oracle::images::padded;

const HUGE: usize = usize::MAX;

#[track_caller]
fn assert_refused(result: Result<Conv, GeometryError>, expected: GeometryError, message: &str) {
    let error = result.expect_err("refused");
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), message);
}

#[test]
fn zeros_are_refused() {
    let good = Axis::new(5, 3);
    for (bad, parameter) in [
        (Axis::new(0, 3), "size"),
        (Axis::new(5, 0), "kernel"),
        (good.stride(0), "stride"),
        (good.dilation(0), "dilation"),
    ] {
        let zero = |axis| GeometryError::Zero { parameter, axis: Some(axis) };
        let message = |axis| format!("{parameter} of spatial axis {axis} is 0: it must be positive");
        assert_refused(Conv::new(1, 1, [bad]), zero(0), &message(0));
        assert_refused(Conv::new(1, 1, [good, bad]), zero(1), &message(1));
        assert_refused(Conv::new(1, 1, [good, good, bad]), zero(2), &message(2));
    }
    let zero = |parameter| GeometryError::Zero { parameter, axis: None };
    assert_refused(Conv::new(0, 1, [good]), zero("in_channels"), "in_channels is 0: it must be positive");
    assert_refused(Conv::new(1, 0, [good]), zero("out_channels"), "out_channels is 0: it must be positive");
    let conv = Conv::new(2, 2, [good]).expect("a geometry");
    assert_refused(conv.with_groups(0), zero("groups"), "groups is 0: it must be positive");
}

#[test]
fn other_numbers_of_axes_are_refused() {
    let axis = Axis::new(5, 3);
    assert_refused(Conv::new(1, 1, []), GeometryError::Rank { axes: 0 }, "0 spatial axes: a convolution has 1, 2 or 3");
    assert_refused(
        Conv::new(1, 1, [axis; 4]),
        GeometryError::Rank { axes: 4 },
        "4 spatial axes: a convolution has 1, 2 or 3",
    );
}

#[test]
fn kernels_that_do_not_fit_are_refused() {
    for (axis, reach, padded) in [
        (Axis::new(2, 3), 3, 2),
        (Axis::new(4, 3).dilation(2), 5, 4),
        (Axis::new(1, 4).padding(1), 4, 3),
        (Axis::new(5, 3).dilation(4).padding_each([0, 3]), 9, 8),
    ] {
        let message = format!("kernel of spatial axis 1 reaches over {reach} samples, the padded input has {padded}");
        let error = GeometryError::KernelTooLarge { axis: 1, reach, padded };
        assert_refused(Conv::new(1, 1, [Axis::new(1, 1), axis]), error, &message);
        // One more zero, and it fits once.
        let axis = axis.padding_each([axis.padding[0] + 1, axis.padding[1]]);
        assert_eq!(Conv::new(1, 1, [axis]).expect("a geometry").positions(), 1);
    }
}

#[test]
fn groups_that_do_not_divide_the_channels_are_refused() {
    let conv = Conv::new(6, 4, [Axis::new(5, 3)]).expect("a geometry");
    for (groups, parameter, channels) in [(4, "in_channels", 6), (3, "out_channels", 4), (12, "in_channels", 6)] {
        let error = GeometryError::Groups { parameter, channels, groups };
        assert_refused(
            conv.with_groups(groups),
            error,
            &format!("groups {groups} does not divide {parameter} {channels}"),
        );
    }
    assert_eq!(conv.with_groups(2).expect("groups").features(), 9);
}

/// Along an axis, and in the products of sizes; nothing panics or wraps.
#[test]
fn overflows_are_refused() {
    let good = Axis::new(5, 3);
    for axis in [
        Axis::new(HUGE, 1),
        Axis::new(HUGE / 2, 1).padding(1),
        good.padding_each([HUGE, 0]),
        good.padding_each([0, HUGE]),
        good.padding(HUGE / 2),
        Axis::new(5, HUGE),
        Axis::new(5, HUGE / 2).dilation(3),
        good.dilation(HUGE),
        good.stride(HUGE),
    ] {
        let parameter = "size, padding, kernel and dilation";
        let error = GeometryError::Overflow { parameter, axis: Some(1) };
        assert_refused(Conv::new(1, 1, [good, axis]), error, &format!("{parameter} of spatial axis 1 overflow"));
    }
    let overflow = |parameter| (GeometryError::Overflow { parameter, axis: None }, format!("{parameter} overflow"));
    let long = Axis::new(1 << 40, 1);
    for (channels, axes, parameter) in [
        ([1 << 30, 1], [good, long], "in_channels and sizes"),
        ([1, 1], [long, long], "in_channels and sizes"),
        ([1, 1 << 30], [good, long], "out_channels and outputs"),
        ([1, 1 << 31], [good, good], "out_channels, squared"),
        ([1 << 29, 1], [good, Axis::new(4, 4)], "in_channels and kernel, squared"),
        ([1 << 31, 1], [Axis::new(1, 1); 2], "in_channels and kernel, squared"),
    ] {
        let (error, message) = overflow(parameter);
        assert_refused(Conv::new(channels[0], channels[1], axes), error, &message);
    }
    let wide = Axis::new(1, 1 << 30).padding_each([0, (1 << 30) - 1]);
    let (error, message) = overflow("in_channels and kernel");
    assert_refused(Conv::new(1, 1, [wide, wide]), error, &message);
}

/// Outputs by counting where the taps fit.
#[test]
fn sizes_follow_from_the_geometry() {
    let mut seen = 0;
    for (size, kernel) in (1..=7).flat_map(|size| (1..=4).map(move |kernel| (size, kernel))) {
        for (stride, dilation) in (1..=3).flat_map(|stride| (1..=3).map(move |dilation| (stride, dilation))) {
            for padding in [[0, 0], [1, 1], [0, 3], [5, 2]] {
                let axis = Axis::new(size, kernel).stride(stride).dilation(dilation).padding_each(padding);
                let end = size + padding[0] + padding[1];
                let fits = |at: usize| at + dilation * (kernel - 1) < end;
                let outputs = (0..end).step_by(stride).filter(|&at| fits(at)).count();
                match Conv::new(3, 4, [axis]) {
                    Ok(conv) => assert_eq!(conv.positions(), outputs, "{axis:?}"),
                    Err(error) => {
                        assert!(outputs == 0 && matches!(error, GeometryError::KernelTooLarge { .. }), "{axis:?}")
                    }
                }
                for (y, p) in (0..outputs).flat_map(|y| (0..kernel).map(move |p| (y, p))) {
                    let place = (stride * y + dilation * p) as isize - padding[0] as isize;
                    let sample = usize::try_from(place).ok().filter(|&at| at < size);
                    assert_eq!(axis.sample(y, p), sample, "{axis:?}: output {y}, tap {p}");
                    seen += usize::from(sample.is_none());
                }
            }
        }
    }
    assert!(seen > 1000, "{seen} reads of the padding");
}

#[test]
fn a_geometry_is_what_was_given() {
    let (y, x) = (padded(9, 3).stride(2), Axis::new(8, 2));
    let conv = Conv::new(6, 4, [y, x]).expect("a geometry");
    let with = conv.with_groups(2).expect("groups").with_bias().with_order(FeatureOrder::TapsChannel);
    assert_eq!((conv.axes(), conv.axes3()), (&[y, x][..], [Axis::new(1, 1), y, x]));
    assert_eq!((conv.taps(), conv.features(), conv.factor_size(), conv.positions()), (6, 36, 36, 35));
    assert_eq!((with.features(), with.factor_size(), with.groups()), (18, 19, 2));
    assert_eq!((conv.input_shape(3), conv.output_shape(3)), ([3, 6, 1, 9, 8], [3, 4, 1, 5, 7]));
    assert_eq!((conv.feature(2, 5), with.feature(2, 5)), (17, 17));
    assert_eq!((conv.feature(1, 2), with.feature(1, 2)), (8, 7));
}
