//! What a network looks like: dense layers and convolutions, each followed by an activation.

use std::fmt;

use foof::convolution::{Axis, Conv, GeometryError};

use crate::activation::Activation;

/// Whether layers have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    Without,
    With,
}

/// The linear map of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    /// `s = W x`.
    Dense { inputs: usize, outputs: usize, bias: Bias },
    /// A convolution of images with two spatial axes.
    Convolution(Conv),
}

impl Map {
    /// Numbers that an image is to the layer.
    pub fn inputs(&self) -> usize {
        match self {
            Map::Dense { inputs, .. } => *inputs,
            Map::Convolution(conv) => conv.input_shape(1).iter().product(),
        }
    }

    /// Numbers that it makes of an image.
    pub fn outputs(&self) -> usize {
        match self {
            Map::Dense { outputs, .. } => *outputs,
            Map::Convolution(conv) => conv.output_shape(1).iter().product(),
        }
    }

    /// Numbers in a row of its input: a dense layer with bias reads a constant 1 too.
    pub fn row(&self) -> usize {
        match self {
            Map::Dense { inputs, bias: Bias::With, .. } => inputs + 1,
            _ => self.inputs(),
        }
    }

    /// Rows and columns of the weight: outputs (channels), and inputs that one of them sums, with a bias one more.
    pub fn weight_shape(&self) -> [usize; 2] {
        match self {
            Map::Dense { outputs, .. } => [*outputs, self.row()],
            Map::Convolution(conv) => conv.weight_shape(),
        }
    }

    /// Inputs that an output sums, without the bias.
    pub fn fan_in(&self) -> usize {
        match self {
            Map::Dense { inputs, .. } => *inputs,
            Map::Convolution(conv) => conv.features(),
        }
    }
}

/// What a network looks like.
#[derive(Clone, Debug)]
pub struct Architecture {
    pub maps: Vec<Map>,
    /// One a layer.
    pub activations: Vec<Activation>,
}

impl Architecture {
    /// Dense layers, of widths from the input to the output.
    pub fn dense(widths: &[usize], activations: Vec<Activation>, bias: Bias) -> Self {
        let map = |pair: &[usize]| Map::Dense { inputs: pair[0], outputs: pair[1], bias };
        Self { maps: widths.windows(2).map(map).collect(), activations }
    }

    /// Convolutions of square images `side` wide, 3 x 3 with padding 1, each of the given channels and stride, with ReLUs after them; then a
    /// dense layer to the classes. All with biases.
    pub fn convolutional(side: usize, layers: &[(usize, usize)], classes: usize) -> Result<Self, GeometryError> {
        let (mut channels, mut side) = (1, side);
        let (mut maps, mut activations) = (Vec::new(), Vec::new());
        for &(outputs, stride) in layers {
            let axis = Axis::new(side, 3).padding(1).stride(stride);
            maps.push(Map::Convolution(Conv::new(channels, outputs, [axis, axis])?.with_bias()));
            activations.push(Activation::Relu);
            (channels, side) = (outputs, axis.outputs());
        }
        maps.push(Map::Dense { inputs: channels * side * side, outputs: classes, bias: Bias::With });
        activations.push(Activation::Linear);
        Ok(Self { maps, activations })
    }

    pub fn outputs(&self) -> usize {
        self.maps.last().map_or(0, Map::outputs)
    }

    /// A vector as long as each layer's weight, zero.
    pub fn zeros(&self) -> Vec<Vec<f32>> {
        self.maps.iter().map(|map| vec![0.0; map.weight_shape().iter().product()]).collect()
    }
}

/// `784-1000-10`; convolutions as `28x28x1 - 28x28x32`.
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = |[_, channels, _, height, width]: [usize; 5]| format!("{height}x{width}x{channels}");
        match self.maps.first() {
            Some(Map::Convolution(conv)) => write!(f, "{}", image(conv.input_shape(1)))?,
            Some(map) => write!(f, "{}", map.inputs())?,
            None => {}
        }
        for map in &self.maps {
            match map {
                Map::Convolution(conv) => write!(f, "-{}", image(conv.output_shape(1)))?,
                Map::Dense { outputs, .. } => write!(f, "-{outputs}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_shrink_with_the_strides() {
        let cnn = Architecture::convolutional(28, &[(32, 1), (64, 2), (128, 2)], 10).unwrap();
        assert_eq!(cnn.to_string(), "28x28x1-28x28x32-14x14x64-7x7x128-10");
        let weights: Vec<_> = cnn.maps.iter().map(Map::weight_shape).collect();
        assert_eq!(weights, [[32, 10], [64, 289], [128, 577], [10, 6273]]);
        let mlp = Architecture::dense(&[4, 3, 2], vec![Activation::Relu, Activation::Linear], Bias::With);
        assert_eq!((mlp.to_string().as_str(), mlp.outputs()), ("4-3-2", 2));
    }
}
