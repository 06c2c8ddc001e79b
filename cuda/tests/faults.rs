//! The tests are tested: each fault below is planted in a copy of the kernels, compiled, and must be caught under every order of threads and
//! blocks, by a comparison with the definition on small integers, where every sum is exact. The copies without a fault pass.

use foof::convolution::{Axis, Conv};
use foof::covariance::FactorOptions;
use foof::cuda::convolution::{FactorPlan, conv_input_factor_alloc};
use foof::cuda::covariance::input_factor_alloc;
use foof::cuda::inverse::batched_damped_inverse_alloc;
use foof::cuda::{Buffer, Stream};
use foof::inverse::Dampings;
use foof::scaling::Scaling;
use foof::{Bias, Triangle};
use foof_emulation as emulation;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// What runs a family's kernels and checks them, and the sources that it needs.
#[derive(Clone, Copy, Debug)]
struct Probe {
    name: &'static str,
    sources: &'static [&'static str],
}

const COVARIANCE: Probe = Probe { name: "covariance", sources: &["covariance.cu"] };
const CONVOLUTION: Probe = Probe {
    name: "convolution",
    sources: &["covariance.cu", "conv_covariance.cu", "conv_correlate.cu", "conv_unfold.cu"],
};
const INVERSE: Probe = Probe { name: "inverse", sources: &["damped_inverse.cu"] };

/// One place of one file, and what stands there instead.
struct Fault {
    what: &'static str,
    probe: Probe,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const FAULTS: [Fault; 13] = [
    Fault {
        what: "a stage is multiplied before all threads have filled it, and filled before all have multiplied it",
        probe: COVARIANCE,
        file: "tile.cuh",
        from: "__syncthreads(); // This step's stage has arrived",
        to: "// This step's stage has arrived",
    },
    Fault {
        what: "a stage is multiplied before its copies have arrived",
        probe: COVARIANCE,
        file: "tile.cuh",
        from: "cp_async_wait<AHEAD - 1>();",
        to: "cp_async_wait<AHEAD>();",
    },
    Fault {
        what: "one row too many",
        probe: COVARIANCE,
        file: "load.cuh",
        from: "const bool exists = from + k < depth;",
        to: "const bool exists = from + k <= depth;",
    },
    Fault {
        what: "no diagonal",
        probe: COVARIANCE,
        file: "epilogue.cuh",
        from: "column + j <= row + i",
        to: "column + j < row + i",
    },
    Fault {
        what: "a tile leaves shared memory before it is there",
        probe: COVARIANCE,
        file: "epilogue.cuh",
        from: "= value; });\n    __syncthreads();",
        to: "= value; });",
    },
    Fault {
        what: "one position too few",
        probe: CONVOLUTION,
        file: "conv_correlate.cu",
        from: "exists[e] = from + depth(e) < count;",
        to: "exists[e] = from + depth(e) + 1 < count;",
    },
    Fault {
        what: "images that the plan is for and are not there",
        probe: CONVOLUTION,
        file: "conv_correlate.cu",
        from: "((long long)p.batch - item.image)",
        to: "((long long)p.batch + 1 - item.image)",
    },
    Fault {
        what: "a transposed block is read as it lies",
        probe: CONVOLUTION,
        file: "conv_covariance.cu",
        from: "(pair.transposed ? column + d : row + c)",
        to: "(row + c)",
    },
    Fault {
        what: "the last sum of a window is left out",
        probe: CONVOLUTION,
        file: "conv_covariance.cu",
        from: "x < pair.counts[2]; x++",
        to: "x + 1 < pair.counts[2]; x++",
    },
    Fault {
        what: "a block of taps is written before it is there",
        probe: CONVOLUTION,
        file: "conv_covariance.cu",
        from: "__syncthreads();\n    // Columns in the output's order.",
        to: "// Columns in the output's order.",
    },
    Fault {
        what: "a pixel is packed before it is read",
        probe: CONVOLUTION,
        file: "conv_covariance.cu",
        from: "there ? x[offset] : Bits(0);\n    }\n    __syncthreads();",
        to: "there ? x[offset] : Bits(0);\n    }",
    },
    Fault {
        what: "a row of the inverse factor is used without its diagonal",
        probe: INVERSE,
        file: "damped_inverse.cuh",
        from: "row[j] = j <= k ? x[kb][b] : T(0);",
        to: "row[j] = j < k ? x[kb][b] : T(0);",
    },
    Fault {
        what: "a column is used before it is published",
        probe: INVERSE,
        file: "damped_inverse.cuh",
        from: "columns[i] = i > k ? x[a][kb] : T(0);\n                    }\n                }\n                synchronize<G>();",
        to: "columns[i] = i > k ? x[a][kb] : T(0);\n                    }\n                }",
    },
];

/// Macros that make a kernel of a template: of their uses, only those for f32 in small tiles are compiled.
const INSTANCES: [&str; 5] = ["TILES(", "PLAIN(", "FINISH(", "CORRELATE(", "UNFOLD("];

/// A copy of what the probe needs, with the fault.
fn copy(folder: &Path, probe: Probe, fault: Option<&Fault>) {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("a folder");
    for entry in fs::read_dir(kernels).expect("kernels") {
        let entry = entry.expect("a file");
        let name = entry.file_name().into_string().expect("a name");
        if !name.ends_with(".cuh") && !probe.sources.contains(&name.as_str()) {
            continue;
        }
        let mut text = fs::read_to_string(entry.path()).expect("a source");
        if let Some(fault) = fault.filter(|fault| fault.file == name) {
            let found = text.matches(fault.from).count();
            assert_eq!(found, 1, "{}: found {found} times in {name}; faults follow the kernels", fault.what);
            text = text.replace(fault.from, fault.to);
        }
        let kept = |line: &&str| !INSTANCES.iter().any(|m| line.starts_with(m)) || line.contains("64_f32");
        let lines: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        fs::write(folder.join(name), lines).expect("written");
    }
}

/// This program again, as a probe on the kernels of `folder`, under one order.
fn run(probe: Probe, folder: &Path, order: i32) -> Output {
    let mut command = Command::new(env::current_exe().expect("this test"));
    command
        .args(["--exact", "probe", "--nocapture"])
        .env("FOOF_FAULT_PROBE", probe.name)
        .env("FOOF_FAULT_ORDER", order.to_string())
        .env("FOOF_TEST_DEVICE", "emulation")
        .env("FOOF_EMULATION_KERNELS", folder)
        .env("FOOF_EMULATION_OUT", folder.join("out"));
    command.output().expect("the probe runs")
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults").join(name)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_planted_fault_is_caught_in_every_order() {
    if emulation::device().is_none() || !emulation::is_emulated() {
        return;
    }
    for probe in [COVARIANCE, CONVOLUTION, INVERSE] {
        let folder = folder(probe.name);
        copy(&folder, probe, None);
        for order in 0..4 {
            let output = run(probe, &folder, order);
            assert!(output.status.success(), "{} without a fault: {}", probe.name, said(&output));
        }
    }
    for (number, fault) in FAULTS.iter().enumerate() {
        let folder = folder(&number.to_string());
        copy(&folder, fault.probe, Some(fault));
        for order in 0..4 {
            let output = run(fault.probe, &folder, order);
            let said = said(&output);
            assert!(!output.status.success(), "not caught in order {order}: {}", fault.what);
            let compared = said.contains("instead of") || said.contains("emulation:");
            assert!(compared, "{}: failed for another reason: {said}", fault.what);
        }
    }
}

/// The other half of the test above, in a process of its own; on its own it does nothing.
#[test]
fn probe() {
    let Ok(name) = env::var("FOOF_FAULT_PROBE") else { return };
    let stream = emulation::stream().expect("an emulation");
    let order = env::var("FOOF_FAULT_ORDER").expect("an order").parse().expect("a number");
    assert!(emulation::set_order(order));
    match name.as_str() {
        "covariance" => probe_covariance(&stream),
        "convolution" => probe_convolution(&stream),
        "inverse" => probe_inverse(&stream),
        _ => panic!("{name}"),
    }
}

/// Small integers without a period that a tile has.
fn integers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 7) % 11) as f32 - 5.0).collect()
}

fn assert_same(what: &str, got: &[f32], expected: &[f32]) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got, expected, "{what}, entry {i}: {got} instead of {expected}");
    }
}

/// `X^T X` of rows `row(k)`.
fn moments(rows: &[Vec<f32>]) -> Vec<f32> {
    let size = rows[0].len();
    let entry = |e: usize| rows.iter().map(|row| row[e / size] * row[e % size]).sum();
    (0..size * size).map(entry).collect()
}

fn probe_covariance(stream: &Stream) {
    // More than a tile, and rows that vectors fit and that they do not. 64 rows and more are whole stages; what follows them in memory is not zero.
    for (rows, features) in [(65, 68), (67, 71), (5, 3)] {
        let all = integers((rows + 1) * features);
        let x = Buffer::from_host(stream, &all).expect("memory");
        let with_one = |row: usize| all[row * features..(row + 1) * features].iter().copied().chain([1.0]).collect();
        let expected = moments(&(0..rows).map(with_one).collect::<Vec<_>>());
        let mut out = Buffer::from_host(stream, &vec![f32::NAN; expected.len()]).expect("memory");
        let options = FactorOptions { bias: Bias::With, scaling: Scaling::Sum, ..FactorOptions::default() };
        let view = x.strided(0, [rows, 1, features], [features as isize, features as isize, 1]).expect("inside");
        let size = features + 1;
        input_factor_alloc(out.view_mut([size, size]).expect("fits"), view, &options, stream).expect("enqueued");
        assert_same("covariance", &out.to_host(stream).expect("copied"), &expected);
    }
}

fn probe_convolution(stream: &Stream) {
    let (images, channels, side) = (2, 64, 5);
    let axis = Axis::new(side, 3).padding(1);
    let conv = Conv::new(channels, 1, [axis, axis]).expect("a convolution");
    let x = integers(images * channels * side * side);
    let pixel = |n: usize, c: usize, y: usize, x_at: usize| match (y.checked_sub(1), x_at.checked_sub(1)) {
        (Some(y), Some(x_at)) if y < side && x_at < side => x[((n * channels + c) * side + y) * side + x_at],
        _ => 0.0,
    };
    let patch = |at: usize| {
        let (n, y, x_at) = (at / (side * side), at / side % side, at % side);
        (0..9 * channels).map(|f| pixel(n, f / 9, y + f / 3 % 3, x_at + f % 3)).collect::<Vec<_>>()
    };
    let expected = moments(&(0..images * side * side).map(patch).collect::<Vec<_>>());
    let size = 9 * channels;
    // Packed; and read in place, by a plan for one image more, which lies behind those that are the batch.
    let pixels = (0..(images + 1) * side * side * channels).map(|e| {
        let (pixel, c) = (e / channels, e % channels);
        x.get((pixel / (side * side) * channels + c) * side * side + pixel % (side * side)).copied().unwrap_or(1.0)
    });
    let last = [side * side * channels, 1, side * channels, channels].map(|step| step as isize);
    let first = [side * side * channels, side * side, side, 1].map(|step| step as isize);
    for (data, strides, most) in [(x.clone(), first, images), (pixels.collect(), last, images + 1)] {
        let device = Buffer::from_host(stream, &data).expect("memory");
        let mut out = Buffer::from_host(stream, &vec![f32::NAN; size * size]).expect("memory");
        let options = FactorOptions { scaling: Scaling::Sum, ..FactorOptions::default() };
        let plan = FactorPlan::new::<f32>(&conv, most, stream).expect("a plan");
        assert!(plan.to_string().contains("correlation"), "{plan}");
        let view = device.strided(0, [images, channels, side, side], strides).expect("fits");
        conv_input_factor_alloc(out.view_mut([1, size, size]).expect("fits"), view, &plan, &options, stream)
            .expect("enqueued");
        assert_same("convolution", &out.to_host(stream).expect("copied"), &expected);
    }
}

fn probe_inverse(stream: &Stream) {
    // Products L L^T of unit triangles of integers with unit inverses of integers: every step is exact.
    let (batch, n) = (3, 20);
    let lower = |i: usize, j: usize| f32::from(u8::from(i == j || i == j + 1));
    let a: Vec<f32> = (0..batch * n * n).map(|e| (0..n).map(|k| lower(e / n % n, k) * lower(e % n, k)).sum()).collect();
    // L^-1 has (-1)^(i-j) below the diagonal.
    let inverse = |k: usize, i: usize| if k >= i { 1.0 - 2.0 * ((k - i) % 2) as f32 } else { 0.0 };
    let expected: Vec<f32> =
        (0..batch * n * n).map(|e| (0..n).map(|k| inverse(k, e / n % n) * inverse(k, e % n)).sum()).collect();
    let device = Buffer::from_host(stream, &a).expect("memory");
    let mut out = Buffer::from_host(stream, &vec![f32::NAN; a.len()]).expect("memory");
    let shape = [batch, n, n];
    let (to, from) = (out.view_mut(shape).expect("fits"), device.view(shape).expect("fits"));
    let done = batched_damped_inverse_alloc(to, from, 1.0, Dampings::Same(0.0), Triangle::Full, stream);
    done.unwrap_or_else(|error| panic!("a failure instead of an inverse: {error}"));
    assert_same("inverse", &out.to_host(stream).expect("copied"), &expected);
}
