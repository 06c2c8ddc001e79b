//! The emulation is tested: samples of all that it provides are right in every order of threads and blocks, and each fault of `faults.txt`, planted
//! in a copy of them, is caught.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const ORDERS: [i32; 6] = [0, 1, 2, 3, 4, 5];
/// Each in a file of its name.
const KERNELS: [&str; 10] = [
    "tiles",
    "pipeline",
    "zero_fill",
    "shuffles",
    "halves",
    "fragment_tf32",
    "fragment_bf16",
    "fragment_f64",
    "early_exit",
    "sums",
];
const WRONG: i32 = 1;
const SIGABRT: i32 = 6;

/// How a fault shows.
#[derive(Debug)]
enum Caught {
    /// The result is wrong in every order.
    Wrong,
    /// In some order.
    WrongOnce,
    /// The emulation stops and says this, in every order.
    Abort(String),
    /// A sanitizer stops and says this, in every order.
    Sanitizer(String),
}

#[derive(Debug, Default)]
struct Fault {
    name: String,
    sample: String,
    line: String,
    into: String,
    caught: Option<Caught>,
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn faults() -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for line in fs::read_to_string(here().join("faults.txt")).expect("faults.txt").lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim().to_owned();
        if key == "fault" {
            faults.push(Fault { name: rest, ..Fault::default() });
            continue;
        }
        let Some(fault) = faults.last_mut() else { continue };
        match key {
            "sample" => fault.sample = rest,
            "line" => fault.line = rest,
            "into" => fault.into = rest,
            "caught" => {
                fault.caught = Some(match rest.split_once(' ') {
                    None if rest == "wrong" => Caught::Wrong,
                    Some(("wrong", "once")) => Caught::WrongOnce,
                    Some(("abort", text)) => Caught::Abort(text.to_owned()),
                    Some(("asan", text)) => Caught::Sanitizer(text.to_owned()),
                    _ => panic!("faults.txt: caught {rest}"),
                });
            }
            "" | "#" => {}
            _ => panic!("faults.txt: {line}"),
        }
    }
    assert!(!faults.is_empty());
    faults
}

/// A sample as a kernel of that name.
fn renamed(source: &str, sample: &str, kernel: &str) -> String {
    let named = source
        .replace(&format!(") {sample}(const"), &format!(") {kernel}(const"))
        .replace(&format!("KERNEL({sample})"), &format!("KERNEL({kernel})"));
    let lines: String =
        named.lines().filter(|line| !line.starts_with("#include")).map(|line| format!("{line}\n")).collect();
    format!("namespace in_{kernel} {{\n{lines}}}\n")
}

fn sample(name: &str) -> String {
    fs::read_to_string(here().join(format!("samples/{name}.cu"))).expect("a sample")
}

fn faulty(kernel: &str, fault: &Fault) -> String {
    let source = sample(&fault.sample);
    let occurs = source.lines().filter(|line| line.trim() == fault.line).count();
    assert_eq!(occurs, 1, "{}: how often its line occurs", fault.name);
    let faulty = source.replace(&format!("{}\n", fault.line), &format!("{}\n", fault.into));
    assert_ne!(faulty, source, "{}", fault.name);
    renamed(&faulty, &fault.sample, kernel)
}

/// The samples, and the faults that this kind of build catches, with the names of their kernels.
struct Built {
    folder: PathBuf,
    faults: Vec<(String, Fault)>,
}

/// None where there is no compiler.
fn built(sanitize: bool) -> Option<&'static Built> {
    static BUILT: [OnceLock<Option<Built>>; 2] = [OnceLock::new(), OnceLock::new()];
    BUILT[usize::from(sanitize)].get_or_init(|| build(sanitize)).as_ref()
}

fn build(sanitize: bool) -> Option<Built> {
    let caught_here = |fault: &Fault| matches!(fault.caught, Some(Caught::Sanitizer(_))) == sanitize;
    let faults: Vec<_> =
        faults().into_iter().filter(caught_here).enumerate().map(|(i, fault)| (format!("fault_{i}"), fault)).collect();
    assert!(!faults.is_empty());

    // All in one file: forty kernels take as long to compile as one.
    let mut source = "#include \"params.cuh\"\n".to_owned();
    source.extend(KERNELS.iter().map(|name| renamed(&sample(name), name, name)));
    source.extend(faults.iter().map(|(kernel, fault)| faulty(kernel, fault)));
    let exe = std::env::current_exe().expect("the test's path");
    let root = exe.ancestors().nth(3).expect("target/profile/deps/test").join("emulation-faults");
    let folder = root.join(if sanitize { "sanitize" } else { "plain" });
    let kernels = folder.join("kernels");
    fs::create_dir_all(&kernels).expect("a folder");
    fs::copy(here().join("samples/params.cuh"), kernels.join("params.cuh")).expect("the parameters");
    fs::write(kernels.join("samples.cu"), source).expect("the source");

    let mut arguments = vec!["--kernels".into(), kernels];
    arguments.extend(["--program".into(), here().join("check.cpp")]);
    arguments.extend(sanitize.then(|| "--sanitize".into()));
    foof_emulation::build(&folder, arguments).then_some(Built { folder, faults })
}

fn run(built: &Built, sample: &str, order: i32, kernel: Option<&str>) -> Output {
    let mut check = Command::new(built.folder.join("check"));
    check.arg(built.folder.join("libcuda.so")).args([sample, &order.to_string()]).args(kernel);
    check.env_remove("LD_PRELOAD").env("ASAN_OPTIONS", "detect_leaks=0").output().expect("check runs")
}

#[test]
fn samples_are_right_in_every_order() {
    for sanitize in [false, true] {
        let Some(built) = built(sanitize) else { return };
        for sample in KERNELS.iter().chain(&["rounding"]) {
            for order in ORDERS {
                let output = run(built, sample, order, None);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{sample}, order {order}: {}\n{said}", output.status);
            }
        }
    }
}

/// What is wrong with how a fault is caught, or none.
fn complaint(built: &Built, kernel: &str, fault: &Fault) -> Option<String> {
    let caught = fault.caught.as_ref().expect("how it is caught");
    let mut wrong = 0;
    for order in ORDERS {
        let output = run(built, &fault.sample, order, Some(kernel));
        let said = String::from_utf8_lossy(&output.stderr);
        let as_expected = match caught {
            Caught::Wrong | Caught::WrongOnce => {
                let is_wrong = output.status.code() == Some(WRONG) && said.contains("is wrong");
                wrong += i32::from(is_wrong);
                is_wrong || (matches!(caught, Caught::WrongOnce) && output.status.success())
            }
            Caught::Abort(text) => output.status.signal() == Some(SIGABRT) && said.contains(text),
            Caught::Sanitizer(text) => !output.status.success() && said.contains("Sanitizer") && said.contains(text),
        };
        if !as_expected {
            return Some(format!("{}: order {order}: {}\n{said}", fault.name, output.status));
        }
    }
    (matches!(caught, Caught::WrongOnce) && wrong == 0).then(|| format!("{}: right in every order", fault.name))
}

#[test]
fn every_fault_is_caught() {
    for sanitize in [false, true] {
        let Some(built) = built(sanitize) else { return };
        let complaints: Vec<_> =
            built.faults.iter().filter_map(|(kernel, fault)| complaint(built, kernel, fault)).collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
