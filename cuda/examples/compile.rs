//! Compiles a file of kernels as the library does, and reports what each kernel takes. Called by `cuda/check-kernels.sh`, a process for each file, because a
//! malformed one can take the compiler down with it.
//!
//! ```text
//! compile --list                        the files
//! compile FILE sm_90                    one of them, or a file on disk
//! ```
//!
//! A line for each kernel: `FILE ARCH KERNEL registers=N shared=N stack=N spilled=N`, bytes but for the first.

use foof_cuda::Arch;
use foof_cuda::compile::{self, SOURCES, Source, Target};
use std::error::Error;
use std::process::ExitCode;

/// What ptxas says of one kernel.
#[derive(Default)]
struct Usage {
    kernel: String,
    registers: u32,
    shared: u32,
    stack: u32,
    spilled: u32,
}

/// The number before `unit` in `text`.
fn number(text: &str, unit: &str) -> Option<u32> {
    let (before, _) = text.split_once(unit)?;
    let digits = before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The log of `ptxas -v`: a line `Compiling entry function 'NAME'`, then its stack and spills, then its registers and shared memory.
fn usages(log: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Usage { kernel, ..Usage::default() });
        }
        let Some(usage) = all.last_mut() else { continue };
        if let Some(stack) = number(line, "bytes stack frame") {
            usage.stack = stack;
            let spills = ["bytes spill stores", "bytes spill loads"].map(|what| number(line, what).unwrap_or(0));
            usage.spilled = spills[0].max(spills[1]);
        }
        if let Some(registers) = number(line, "registers") {
            usage.registers = registers;
            usage.shared = number(line, "bytes smem").unwrap_or(0);
        }
    }
    all
}

fn source(name: &str) -> Result<&'static Source, Box<dyn Error>> {
    if let Some(source) = SOURCES.iter().find(|source| source.file == name) {
        return Ok(source);
    }
    let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
    // Sources are static; this program ends soon.
    Ok(Box::leak(Box::new(Source { file: name.to_owned().leak(), text: text.leak() })))
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    match arguments {
        [list] if list == "--list" => SOURCES.iter().for_each(|source| println!("{}", source.file)),
        [list] if list == "--version" => {
            let (major, minor) = compile::version()?;
            println!("NVRTC {major}.{minor}");
        }
        [file, arch] => {
            let target = Target::Machine(Arch::parse(arch).ok_or_else(|| format!("{arch}: not an architecture"))?);
            let image = compile::compile(source(file)?, target, &["--ptxas-options=-v"])?;
            let usages = usages(&image.log);
            if usages.is_empty() {
                return Err(format!("{file} for {arch}: no kernel in the log:\n{}", image.log).into());
            }
            for Usage { kernel, registers, shared, stack, spilled } in usages {
                let file = file.rsplit('/').next().unwrap_or(file);
                println!(
                    "{file} {arch} {kernel} registers={registers} shared={shared} stack={stack} spilled={spilled}"
                );
            }
        }
        _ => return Err("usage: compile --list | --version | FILE ARCH".into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compile: {error}");
            ExitCode::FAILURE
        }
    }
}
