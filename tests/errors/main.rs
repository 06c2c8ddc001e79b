//! Bad input: the typed error that names it, outputs and state as they were.

mod functions;
mod optimizers;

use foof::{Error, MatMut, MatRef, MemBuffer, MemStack, Par, StackReq};

fn par() -> Par {
    Par::seq()
}

fn matrix(data: &[f64], shape: [usize; 2]) -> MatRef<'_, f64> {
    MatRef::new(data, shape).expect("a view")
}

/// Runs `f` on an output of a value that must still be there, and returns the error.
#[track_caller]
fn refused(shape: [usize; 2], f: impl FnOnce(MatMut<'_, f64>) -> Result<(), Error>) -> Error {
    let mut out = vec![7.0; shape[0] * shape[1]];
    let error = f(MatMut::new(&mut out, shape).expect("a view")).expect_err("bad input");
    assert!(out.iter().all(|&v| v == 7.0), "{error}: the output was written");
    error
}

/// Calls `f` with no scratch at all.
fn without_scratch<R>(f: impl FnOnce(&mut MemStack) -> R) -> R {
    f(MemStack::new(&mut MemBuffer::new(StackReq::empty())))
}

#[track_caller]
fn assert_shape(error: Error, named: &str) {
    assert!(matches!(error, Error::Shape { argument, .. } if argument == named), "{error}, not about {named}");
}

#[track_caller]
fn assert_parameter(error: Error, named: &str) {
    assert!(matches!(error, Error::Parameter { name, .. } if name == named), "{error}, not about {named}");
}

#[track_caller]
fn assert_scratch(error: Error) {
    assert!(matches!(error, Error::Scratch { needed, given } if needed > given), "{error}");
}
