//! The geometry of a layer.

use crate::convolution::Conv;
use crate::error::check_parameter;
use crate::{Bias, Error, Sharing};

/// A layer with weights `[o, i]`, or `[o, i+1]` with a bias as last column, applied at `T` positions of a datapoint.
///
/// A convolution is such a layer: its positions are its outputs, its inputs at each of them a patch of `i = f` features. With `G` groups of
/// channels it is `G` layers, a block of `o / G` rows of the weights each, with factors of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layer {
    kind: Kind,
    sharing: Sharing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Dense { inputs: usize, outputs: usize, bias: Bias, positions: usize },
    Conv(Conv),
}

impl Layer {
    /// `s = W x` from `inputs` to `outputs` values, without bias, at one position.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a size of zero.
    pub fn dense(inputs: usize, outputs: usize) -> Result<Layer, Error> {
        positive("inputs", inputs)?;
        positive("outputs", outputs)?;
        let kind = Kind::Dense { inputs, outputs, bias: Bias::Without, positions: 1 };
        Ok(Layer { kind, sharing: Sharing::Expand })
    }

    /// A convolution, with the bias and the groups of its geometry: weights `[o, f]` or `[o, f+1]` as a matrix, inputs and errors as images.
    /// For each group an input factor `[f, f]` (with bias `[f+1, f+1]`) and an error factor `[o/G, o/G]`: K-FAC for convolutions (Grosse &
    /// Martens 2016), in the settings *expand* and *reduce* of Eschenhagen et al. 2023.
    pub fn conv(conv: Conv) -> Layer {
        Layer { kind: Kind::Conv(conv), sharing: Sharing::Expand }
    }

    /// With a bias: the last column of the weights.
    pub fn with_bias(self) -> Layer {
        let kind = match self.kind {
            Kind::Dense { inputs, outputs, positions, .. } => {
                Kind::Dense { inputs, outputs, bias: Bias::With, positions }
            }
            Kind::Conv(conv) => Kind::Conv(conv.with_bias()),
        };
        Layer { kind, ..self }
    }

    /// The same weights at `positions` positions of each datapoint.
    ///
    /// # Errors
    /// [`Error::Parameter`] for zero, and for a convolution, whose geometry says how many there are.
    pub fn with_positions(self, positions: usize) -> Result<Layer, Error> {
        positive("positions", positions)?;
        match self.kind {
            Kind::Dense { inputs, outputs, bias, .. } => {
                Ok(Layer { kind: Kind::Dense { inputs, outputs, bias, positions }, ..self })
            }
            Kind::Conv(_) => {
                check_parameter("positions", positions as f64, false, "none: those of a convolution are its outputs")?;
                Ok(self)
            }
        }
    }

    /// What positions contribute to the factors; [`Sharing::Expand`] unless told.
    pub fn with_sharing(self, sharing: Sharing) -> Layer {
        Layer { sharing, ..self }
    }

    /// `i`, without the bias; for a convolution the features `f` of a group.
    pub fn inputs(&self) -> usize {
        match self.kind {
            Kind::Dense { inputs, .. } => inputs,
            Kind::Conv(conv) => conv.features(),
        }
    }

    /// `o`; for a convolution the output channels of all groups.
    pub fn outputs(&self) -> usize {
        match self.kind {
            Kind::Dense { outputs, .. } => outputs,
            Kind::Conv(conv) => conv.out_channels(),
        }
    }

    /// Rows of an input factor: `i`, plus 1 with bias.
    pub fn factor_input(&self) -> usize {
        self.inputs() + self.bias().columns()
    }

    /// Rows of an error factor: `o`; for a convolution `o / G`.
    pub fn factor_error(&self) -> usize {
        self.outputs() / self.groups()
    }

    /// `G`, the groups of a convolution, each with factors of its own; 1 for any other layer.
    pub fn groups(&self) -> usize {
        self.convolution().map_or(1, Conv::groups)
    }

    /// The geometry of a convolution.
    pub fn convolution(&self) -> Option<&Conv> {
        match &self.kind {
            Kind::Dense { .. } => None,
            Kind::Conv(conv) => Some(conv),
        }
    }

    /// Whether there is a bias.
    pub fn bias(&self) -> Bias {
        match self.kind {
            Kind::Dense { bias, .. } => bias,
            Kind::Conv(conv) => conv.bias(),
        }
    }

    /// `T`.
    pub fn positions(&self) -> usize {
        match self.kind {
            Kind::Dense { positions, .. } => positions,
            Kind::Conv(conv) => conv.positions(),
        }
    }

    /// What positions contribute.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The shape of the weights: `[o, i]`, with bias `[o, i+1]`.
    pub fn weight_shape(&self) -> [usize; 2] {
        [self.outputs(), self.factor_input()]
    }

    /// The number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.outputs() * self.factor_input()
    }
}

fn positive(name: &'static str, value: usize) -> Result<(), Error> {
    check_parameter(name, value as f64, value > 0, "a positive number")
}
