//! The geometry of a layer.

use crate::error::check_parameter;
use crate::{Bias, Error, Sharing};

/// A layer with weights `[o, i]`, or `[o, i+1]` with a bias as last column, applied at `T` positions of a datapoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layer {
    inputs: usize,
    outputs: usize,
    bias: Bias,
    positions: usize,
    sharing: Sharing,
}

impl Layer {
    /// `s = W x` from `inputs` to `outputs` values, without bias, at one position.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a size of zero.
    pub fn dense(inputs: usize, outputs: usize) -> Result<Layer, Error> {
        positive("inputs", inputs)?;
        positive("outputs", outputs)?;
        Ok(Layer { inputs, outputs, bias: Bias::Without, positions: 1, sharing: Sharing::Expand })
    }

    /// With a bias: the last column of the weights.
    pub fn with_bias(self) -> Layer {
        Layer { bias: Bias::With, ..self }
    }

    /// The same weights at `positions` positions of each datapoint.
    ///
    /// # Errors
    /// [`Error::Parameter`] for zero.
    pub fn with_positions(self, positions: usize) -> Result<Layer, Error> {
        positive("positions", positions)?;
        Ok(Layer { positions, ..self })
    }

    /// What positions contribute to the factors; [`Sharing::Expand`] unless told.
    pub fn with_sharing(self, sharing: Sharing) -> Layer {
        Layer { sharing, ..self }
    }

    /// `i`, without the bias.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `o`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rows of the input factor: `i`, plus 1 with bias.
    pub fn factor_input(&self) -> usize {
        self.inputs + self.bias.columns()
    }

    /// Whether there is a bias.
    pub fn bias(&self) -> Bias {
        self.bias
    }

    /// `T`.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// What positions contribute.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The shape of the weights: `[o, i]`, with bias `[o, i+1]`.
    pub fn weight_shape(&self) -> [usize; 2] {
        [self.outputs, self.factor_input()]
    }

    /// The number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.outputs * self.factor_input()
    }
}

fn positive(name: &'static str, value: usize) -> Result<(), Error> {
    check_parameter(name, value as f64, value > 0, "a positive number")
}
