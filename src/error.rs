//! What can go wrong, naming what and where.

use crate::ViewError;
use crate::convolution::GeometryError;
use foof_kernels::cholesky::Pivot;

/// An error of this crate. Unless its description says otherwise, outputs and state are as they were before the call.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument's shape does not fit the others.
    #[error("{argument}: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// The argument.
        argument: &'static str,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape given.
        got: Vec<usize>,
    },
    /// A parameter outside its range.
    #[error("{name} = {value}: expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// An element of an argument outside its range.
    #[error("{argument}{index:?} = {value}: expected {expected}")]
    Element {
        /// The argument.
        argument: &'static str,
        /// The first such element.
        index: Vec<usize>,
        /// Its value.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// An argument that holds NaN or infinity.
    #[error("{argument}: not finite at {index:?}")]
    NotFinite {
        /// The argument.
        argument: &'static str,
        /// The first such element.
        index: Vec<usize>,
    },
    /// A datapoint whose label or probabilities cannot be.
    #[error("{argument}, row {row}: {value}: expected {expected}")]
    Row {
        /// The argument.
        argument: &'static str,
        /// The datapoint.
        row: usize,
        /// What was found: the label, the probability, or the sum of a row.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A batch without datapoints or positions: its mean is not defined.
    #[error("{argument}: an empty batch of shape {shape:?}")]
    EmptyBatch {
        /// The argument.
        argument: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A damped matrix that is not positive definite. A factor's output then holds an unfinished one, an inverse's is as it was, and so is an
    /// optimiser.
    #[error("not positive definite{}: pivot {pivot} is {value}", layer.map(|l| format!(" (layer {l})")).unwrap_or_default())]
    NotPositiveDefinite {
        /// The layer, in an optimiser.
        layer: Option<usize>,
        /// Row of the pivot.
        pivot: usize,
        /// Its value.
        value: f64,
    },
    /// The eigendecomposition did not converge.
    #[error("the eigendecomposition of a {size} x {size} matrix did not converge")]
    NoConvergence {
        /// Rows of the matrix.
        size: usize,
    },
    /// Scratch memory smaller than the `*_scratch` twin asks for.
    #[error("scratch: {needed} bytes needed, {given} given")]
    Scratch {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// Something needed is not there.
    #[error("missing {what}: {needed_for}")]
    Missing {
        /// What.
        what: &'static str,
        /// Why it is needed.
        needed_for: &'static str,
    },
    /// A saved state that cannot be read or does not belong to this optimiser.
    #[error("saved state, {entry}: {reason}")]
    State {
        /// The entry, or `file`.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A convolution that cannot be, or sizes that overflow with its batch.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A view that cannot be made.
    #[error(transparent)]
    View(#[from] ViewError),
    /// An error of a CUDA device.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] foof_cuda::CudaError),
    /// Matrices of a list or batch that failed; the others were computed.
    #[error("{} of the list failed, the first is number {}: {}", failures.len(), failures[0].0, failures[0].1)]
    Items {
        /// Place in the list, from 0 and ascending, and what happened there; at least one.
        failures: Vec<(usize, Error)>,
    },
    /// An error in one layer.
    #[error("layer {layer}: {source}")]
    Layer {
        /// The layer.
        layer: usize,
        /// What happened there.
        source: Box<Error>,
    },
}

impl Error {
    /// Names the layer.
    pub(crate) fn in_layer(self, layer: usize) -> Error {
        match self {
            Error::NotPositiveDefinite { pivot, value, .. } => {
                Error::NotPositiveDefinite { layer: Some(layer), pivot, value }
            }
            source => Error::Layer { layer, source: Box::new(source) },
        }
    }

    pub(crate) fn pivot<T: crate::Element>(pivot: Pivot<T>) -> Error {
        Error::NotPositiveDefinite { layer: None, pivot: pivot.index, value: pivot.value.to_f64() }
    }
}

/// `got == expected`, or an error that names the argument. Inlined, lengths that are known need no loop, and no call to compare.
#[inline(always)]
pub(crate) fn check_shape(argument: &'static str, expected: &[usize], got: &[usize]) -> Result<(), Error> {
    match expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| expected == got) {
        true => Ok(()),
        false => Err(shape_error(argument, expected, got)),
    }
}

#[cold]
fn shape_error(argument: &'static str, expected: &[usize], got: &[usize]) -> Error {
    Error::Shape { argument, expected: expected.to_vec(), got: got.to_vec() }
}

/// `holds`, or an error that names the parameter. Written so that a comparison with NaN fails.
#[inline]
pub(crate) fn check_parameter(
    name: &'static str,
    value: f64,
    holds: bool,
    expected: &'static str,
) -> Result<(), Error> {
    match holds {
        true => Ok(()),
        false => Err(Error::Parameter { name, value, expected }),
    }
}

/// Whether the stack can hold `req`.
#[inline]
pub(crate) fn check_scratch(stack: &crate::MemStack, req: crate::StackReq) -> Result<(), Error> {
    match stack.can_hold(req) {
        true => Ok(()),
        false => Err(Error::Scratch { needed: req.unaligned_bytes_required(), given: stack.len_bytes() }),
    }
}
