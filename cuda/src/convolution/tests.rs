//! Plans and tables on the host: what the device will do, counted.

use super::plan::{Form, Plan, Rung, cut, most_slots};
use super::tables::{Divisor, Tables};
use crate::error::CudaError;
use crate::tile::{Math, Tile};
use foof_kernels::conv::classes::Classes;
use foof_kernels::conv::{Axis, Conv};
use std::collections::HashMap;

fn axis(size: usize, kernel: usize, stride: usize, dilation: usize, padding: [usize; 2]) -> Axis {
    Axis::new(size, kernel).stride(stride).dilation(dilation).padding_each(padding)
}

/// Windows that are cut, clipped, disjoint, empty; phases; one tap.
fn axes() -> Vec<Axis> {
    vec![
        axis(1, 1, 1, 1, [0, 0]),
        axis(6, 3, 1, 1, [1, 1]),
        axis(5, 3, 1, 1, [0, 4]),
        axis(2, 5, 1, 1, [4, 4]),
        axis(7, 3, 2, 1, [1, 1]),
        axis(6, 2, 2, 1, [0, 0]),
        axis(8, 3, 1, 3, [3, 3]),
        axis(3, 3, 1, 3, [3, 3]),
        axis(9, 4, 3, 2, [1, 5]),
    ]
}

fn convolutions(channels: usize) -> Vec<Conv> {
    let pairs = axes().into_iter().flat_map(|y| axes().into_iter().map(move |x| (y, x)));
    pairs.map(|(y, x)| Conv::new(channels, 1, [axis(2, 2, 1, 1, [1, 0]), y, x]).expect("a geometry")).collect()
}

#[test]
fn divisors_divide() {
    for divisor in (1..300).chain([1023, 1024, 1025, 65_537, (1 << 30) - 1, 1 << 30, i32::MAX as usize, 1 << 31]) {
        let by = Divisor::new(divisor);
        let near = [
            0,
            1,
            divisor - 1,
            divisor,
            divisor + 1,
            7 * divisor,
            7 * divisor - 1,
            i32::MAX as usize - 1,
            i32::MAX as usize,
        ];
        for n in near.into_iter().chain((0..2000).map(|n| n * 1_073_741)).filter(|&n| n <= i32::MAX as usize) {
            assert_eq!(by.divide(n as u32) as usize, n / divisor, "{n} / {divisor}");
        }
    }
}

/// Where the samples of position (image, z, y, x) of a sum lie: image and place on each axis, left and right, for classes `i`, `j`; as the kernels
/// compute them.
type Samples = (usize, [usize; 3], [usize; 3]);

fn samples(tables: &Tables, sum: usize, conv: &Conv, n: usize, classes: [usize; 2]) -> Vec<Samples> {
    let entry = &tables.sums[sum];
    let first = tables.first_samples();
    let lengths = entry.lengths.map(|length| length.divisor as usize);
    let stride = conv.axes3().map(|axis| axis.stride);
    let mut all = Vec::new();
    for position in 0..n * lengths.iter().product::<usize>() {
        let at = [
            position / lengths[2] / lengths[1] % lengths[0],
            position / lengths[2] % lengths[1],
            position % lengths[2],
        ];
        let image = position / lengths[2] / lengths[1] / lengths[0];
        let place = |origin: [i32; 3], phase: u32, shift: [i32; 3]| {
            core::array::from_fn(|a| {
                let sample = (origin[a] + shift[a]) as isize + at[a] as isize;
                let sample = sample * stride[a] as isize + first[3 * phase as usize + a] as isize;
                assert!((0..conv.axes3()[a].size as isize).contains(&sample), "{conv:?}: sample {sample} of axis {a}");
                sample as usize
            })
        };
        let row = classes[0] as i32 - (entry.origin[0] as usize / tables.width) as i32;
        let column = classes[1] as i32 - (entry.origin[1] as usize / tables.width) as i32;
        all.push((
            image,
            place(entry.left, entry.phases[0], [0, -row, 0]),
            place(entry.right, entry.phases[1], [0, 0, column]),
        ));
    }
    all
}

/// For each pair of taps the sums of its block hold exactly the pairs of samples that some output reads through them, each once; all of them exist.
#[test]
fn each_window_is_covered_once() {
    for (number, conv) in convolutions(3).into_iter().enumerate() {
        let (rows, columns) = [(1, 1), (2, 3), (5, 1), (1, 16)][number % 4];
        let (width, n) = (4, 2);
        let tables = Tables::new(&Classes::new(&conv, rows, columns), &conv, width, 64, n).expect("tables");
        let [az, ay, ax] = conv.axes3();
        let tap = |t: usize| [t / ay.kernel / ax.kernel, t / ax.kernel % ay.kernel, t % ax.kernel];
        for pair in 0..conv.taps() * conv.taps() {
            let (p, q) = (tap(pair / conv.taps()), tap(pair % conv.taps()));
            let mut expected: HashMap<Samples, usize> = HashMap::new();
            for output in 0..conv.positions() {
                let at =
                    [output / ax.outputs() / ay.outputs(), output / ax.outputs() % ay.outputs(), output % ax.outputs()];
                let sample = |tap: [usize; 3]| {
                    let [z, y, x] = [az.sample(at[0], tap[0]), ay.sample(at[1], tap[1]), ax.sample(at[2], tap[2])];
                    Some([z?, y?, x?])
                };
                if let (Some(left), Some(right)) = (sample(p), sample(q)) {
                    (0..n).for_each(|image| *expected.entry((image, left, right)).or_default() += 1);
                }
            }
            let entry = &tables.pairs[pair];
            let mut got: HashMap<Samples, usize> = HashMap::new();
            let classes = entry.origin.map(|origin| origin as usize / width);
            for (z, y, x) in (0..entry.counts[0])
                .flat_map(|z| (0..entry.counts[1]).flat_map(move |y| (0..entry.counts[2]).map(move |x| (z, y, x))))
            {
                let sum = entry.first + z * entry.steps[0] + y * entry.steps[1] + x;
                for (image, left, right) in samples(&tables, sum as usize, &conv, n, classes) {
                    let (left, right) = if entry.transposed == 1 { (right, left) } else { (left, right) };
                    *got.entry((image, left, right)).or_default() += 1;
                }
            }
            assert_eq!(got, expected, "{conv:?}, taps {p:?} {q:?}");
        }
    }
}

/// Every tile of every sum is written by the items of its chunks, which cover all positions once; every partial sum by one item.
#[test]
fn items_cover_tiles_and_positions() {
    let conv = |channels, size| {
        Conv::new(channels, 1, [axis(size, 3, 1, 1, [1, 1]), axis(size, 3, 1, 1, [1, 1])]).expect("a geometry")
    };
    for (conv, n, side) in [(conv(70, 6), 3, 64), (conv(3, 40), 50, 64), (conv(200, 4), 1, 128), (conv(5, 9), 0, 64)] {
        let width = conv.in_channels().next_multiple_of(4);
        let tables = Tables::new(&Classes::new(&conv, 2, 2), &conv, width, side, n).expect("tables");
        let mut written = vec![0; tables.partials];
        let mut covered: HashMap<_, Vec<(u64, u64)>> = HashMap::new();
        for item in &tables.items {
            written[item.partial as usize] += 1;
            let sum = &tables.sums[item.sum as usize];
            let image: u64 = sum.lengths.iter().map(|length| u64::from(length.divisor)).product();
            assert!(u64::from(item.first) < image.max(1));
            let start = u64::from(item.image) * image + u64::from(item.first);
            covered.entry((item.sum, item.tile)).or_default().push((start, start + u64::from(item.count)));
            // As the kernels find it.
            let [row, column] = item.tile;
            let before = if sum.tile_columns == 0 { row * (row + 1) / 2 } else { row * sum.tile_columns };
            let first = sum.partial + (before + column) * sum.chunks;
            assert!((first..first + sum.chunks).contains(&item.partial));
        }
        assert!(written.iter().all(|&times| times == 1), "each partial sum once");
        for (number, sum) in tables.sums.iter().enumerate() {
            let [rows, columns] = sum.size.map(|size| size.div_ceil(side as u32));
            let all: u64 = sum.lengths.iter().map(|length| u64::from(length.divisor)).product::<u64>() * n as u64;
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let chunks = covered.remove(&(number as u32, [row, column]));
                if sum.tile_columns == 0 && column > row {
                    assert_eq!(chunks, None, "above the diagonal");
                    continue;
                }
                let mut chunks = chunks.expect("a tile");
                chunks.sort_unstable();
                assert_eq!(chunks.len(), sum.chunks as usize);
                assert_eq!((chunks[0].0, chunks[chunks.len() - 1].1), (0, all));
                assert!(chunks.windows(2).all(|pair| pair[0].1 == pair[1].0));
            }
        }
        assert!(covered.is_empty(), "no other tiles");
        let folds: usize = tables.folds.iter().map(|fold| fold.count as usize).sum();
        let several = tables.items.iter().filter(|item| tables.sums[item.sum as usize].chunks > 1).count();
        assert_eq!(folds, several);
        assert!(tables.items.is_sorted_by_key(|item| core::cmp::Reverse(item.count)));
    }
}

/// With single classes and channels as one tile the pairs of samples are those that the CPU's plan counts for a panel as wide.
#[test]
fn multiply_adds_are_the_cpus() {
    for conv in convolutions(64) {
        let classes = Classes::new(&conv, 1, 1);
        let tables = Tables::new(&classes, &conv, 64, 64, 3).expect("tables");
        assert_eq!(tables.multiply_adds(), 3 * classes.multiply_adds(), "{conv:?}");
    }
}

/// The rows of `performance.md`.
#[test]
fn the_plans_of_known_shapes() {
    let square = |channels, size, kernel: usize| {
        let axis = Axis::new(size, kernel).padding(kernel / 2);
        Conv::new(channels, channels, [axis, axis]).expect("a geometry")
    };
    // Fewer than an update of the unfolded triangle, with all that tiles are rounded up to.
    for (conv, n, least) in [
        (square(64, 32, 3), 32, 3.2),
        (square(128, 16, 3), 32, 3.5),
        (square(256, 8, 3), 32, 4.2),
        (square(512, 4, 3), 32, 6.0),
        (square(16, 28, 5), 32, 3.7),
        (square(3, 224, 7), 8, 1.2),
    ] {
        let plan = Plan::new::<f32>(&conv, n, Math::Tf32x3).expect("a plan");
        let gain = plan.unfold_multiply_adds() as f64 / plan.multiply_adds() as f64;
        println!("{plan}");
        assert!(matches!(plan.form, Form::Correlation(_)) && gain >= least, "{plan}");
    }
    let patches =
        Conv::new(3, 768, [Axis::new(224, 16).stride(16), Axis::new(224, 16).stride(16)]).expect("a geometry");
    let plan = Plan::new::<f32>(&patches, 8, Math::Fma).expect("a plan");
    assert!(
        matches!(plan.form, Form::Unfold(_)) && plan.to_string().starts_with("implicit unfold, fma tiles of 64"),
        "{plan}"
    );
    let pixels =
        Plan::new::<f32>(&Conv::new(64, 64, [Axis::new(7, 1)]).expect("a geometry"), 8, Math::Fma).expect("a plan");
    assert!(matches!(pixels.form, Form::Pixels(_)), "{pixels}");
}

/// Partial sums do not grow with the groups beyond what one of each takes.
#[test]
fn groups_share_the_device() {
    let axis = Axis::new(28, 3).padding(1);
    let depthwise = Conv::new(512, 512, [axis, axis]).expect("a geometry").with_groups(512).expect("groups");
    let plan = Plan::new::<f32>(&depthwise, 32, Math::Tf32x3).expect("a plan");
    assert_eq!(plan.chunks(), 1, "{plan}");
    let one = Rung::Correlation { tile: Tile::SMALL, rows: 1, columns: 1 };
    let plan = Plan::with_rung::<f32>(&depthwise, 32, Math::Tf32x3, one).expect("a plan");
    assert!(plan.chunks() <= 14, "{plan}");
    let four = Conv::new(512, 512, [axis, axis]).expect("a geometry").with_groups(4).expect("groups");
    let plan = Plan::with_rung::<f32>(&four, 32, Math::Tf32x3, Rung::Unfold).expect("a plan");
    let Form::Unfold(cut) = plan.form else { panic!("{plan}") };
    assert!(cut.chunks * cut.chunk >= 32 * 784 && (cut.chunks - 1) * cut.chunk < 32 * 784, "{plan}");
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let named = |conv: Conv, n: usize| match Plan::new::<f32>(&conv, n, Math::Fma) {
        Err(CudaError::TooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let conv = |channels, size| Conv::new(channels, 1, [Axis::new(size, 1)]).expect("a geometry");
    assert_eq!(named(conv(1, 4), 1 << 30), "images");
    assert_eq!(named(conv(1, 1 << 30), 1), "outputs of an image");
    assert_eq!(named(conv(1 << 20, 1 << 12), 1), "samples of an image");
    let grouped = Conv::new(1 << 16, 1 << 16, [Axis::new(2, 1)]).expect("a geometry").with_groups(1 << 16);
    assert_eq!(named(grouped.expect("groups"), 1), "groups");
    let one = Rung::Correlation { tile: Tile::SMALL, rows: 1, columns: 1 };
    assert!(Plan::with_rung::<f32>(&conv(3, 5), 2, Math::Fma, one).is_ok());
}

#[test]
fn scratch_of_a_batch_is_enough_for_fewer_rows() {
    for groups in [1, 2, 3, 7] {
        let conv = Conv::new(groups, groups, [axis(3, 3, 1, 1, [0, 0])]).expect("a geometry");
        let conv = conv.with_groups(groups).expect("groups");
        let mut most = 0;
        for rows in (0..70_000).step_by(13) {
            most = most.max(cut(&conv, rows).slots().expect("small"));
            let enough = most_slots(&conv, rows).expect("small");
            assert!(most <= enough, "{groups} groups, {rows} rows: {most} of {enough}");
        }
    }
}
