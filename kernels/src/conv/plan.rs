//! How a convolution's covariance is computed: a pure function of its geometry and the instruction set's panel width.

use super::correlation::Correlation;
use super::depthwise::Depthwise;
use super::geometry::Conv;
use crate::element::Element;
use crate::par::Par;
use core::fmt;

/// The correlation form must save at least this part of the multiply-adds: its products are shorter, and its blocks are added up.
const LEAST_GAIN: f64 = 1.1;

/// The algorithm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// One tap, read at every sample: the covariance of the pixels.
    Pixels,
    /// Products of shifted images.
    Correlation(Box<Correlation>),
    /// The same for one-channel groups, a vector of groups at once.
    Depthwise(Box<Depthwise>),
    /// A symmetric update whose patches are formed while packing.
    Unfold,
}

/// What is computed for each group of channels of a convolution, decided once for a geometry. Printable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    conv: Conv,
    form: Form,
    /// The panel width that the correlation form was made for.
    panel: usize,
}

impl Plan {
    /// The plan with fewest multiply-adds for elements `T` on `par`'s instruction set.
    pub fn new<T: Element>(conv: &Conv, par: Par) -> Plan {
        let kernels = T::kernels(par.isa());
        let (panel, lanes) = (kernels.nr, kernels.lanes);
        let depthwise = conv.groups() > 1 && conv.groups() == conv.in_channels();
        if is_pixels(conv) && !depthwise {
            return Plan::pixels(conv);
        }
        let correlation = Correlation::new(conv, panel);
        let gain = unfold_multiply_adds(conv) as f64 / correlation.multiply_adds() as f64;
        let form = match () {
            () if depthwise => Form::Depthwise(Box::new(Depthwise::new(conv, panel, lanes))),
            // With one tap there is one product, and the phase that it reads is packed whole.
            () if gain >= LEAST_GAIN || conv.taps() == 1 => Form::Correlation(Box::new(correlation)),
            () => Form::Unfold,
        };
        Plan { conv: *conv, form, panel }
    }

    /// The correlation form, whatever it gains: for comparisons.
    pub fn correlation<T: Element>(conv: &Conv, par: Par) -> Plan {
        let panel = T::kernels(par.isa()).nr;
        Plan { conv: *conv, form: Form::Correlation(Box::new(Correlation::new(conv, panel))), panel }
    }

    /// Implicit unfolding, whatever the correlation form would gain: for comparisons.
    pub fn unfold(conv: &Conv) -> Plan {
        Plan { conv: *conv, form: Form::Unfold, panel: 0 }
    }

    /// The plan of a convolution with one tap that is read at every sample; takes no memory of its own.
    ///
    /// # Panics
    /// If it is another convolution.
    pub(crate) fn pixels(conv: &Conv) -> Plan {
        assert!(is_pixels(conv), "plan: {conv:?} has more than one tap, a stride or padding");
        Plan { conv: *conv, form: Form::Pixels, panel: 0 }
    }

    /// Whether the plan can be used for elements `T` on `par`'s instruction set: the correlation form is made for a panel width.
    pub fn suits<T: Element>(&self, par: Par) -> bool {
        !matches!(self.form, Form::Correlation(_) | Form::Depthwise(_)) || self.panel == T::kernels(par.isa()).nr
    }

    /// The convolution.
    pub fn conv(&self) -> &Conv {
        &self.conv
    }

    /// The algorithm.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Multiply-adds for each image, all groups.
    pub fn multiply_adds(&self) -> u64 {
        match &self.form {
            Form::Correlation(correlation) => correlation.multiply_adds() * self.conv.groups() as u64,
            Form::Depthwise(depthwise) => depthwise.group.multiply_adds() * self.conv.groups() as u64,
            Form::Pixels | Form::Unfold => unfold_multiply_adds(&self.conv) * self.conv.groups() as u64,
        }
    }

    /// Multiply-adds for each image that a symmetric update of the unfolded images takes, all groups.
    pub fn unfold_multiply_adds(&self) -> u64 {
        unfold_multiply_adds(&self.conv) * self.conv.groups() as u64
    }
}

/// Whether a convolution has one tap, read at every sample: its patches are pixels.
pub fn is_pixels(conv: &Conv) -> bool {
    conv.axes3().iter().all(|axis| axis.kernel == 1 && axis.stride == 1 && axis.padding == [0, 0])
}

/// Of one group: the lower triangle, at each output.
fn unfold_multiply_adds(conv: &Conv) -> u64 {
    let features = conv.features() as u64;
    features * (features + 1) / 2 * conv.positions() as u64
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gain = self.unfold_multiply_adds() as f64 / self.multiply_adds() as f64;
        let name = match &self.form {
            Form::Pixels => "pixels",
            Form::Correlation(_) => "correlation",
            Form::Depthwise(_) => "depthwise correlation",
            Form::Unfold => "implicit unfold",
        };
        write!(
            f,
            "{name}: {:.3e} multiply-adds an image, {gain:.2}x fewer than unfolding",
            self.multiply_adds() as f64
        )?;
        if let Form::Correlation(correlation) = &self.form {
            let tiles = correlation.tiles();
            write!(f, "; {} products", correlation.diagonal.list.len())?;
            if tiles > 1 {
                write!(f, " ({} between tiles)", correlation.off.list.len())?;
            }
            write!(
                f,
                " over {} segments, {tiles} tiles of {} channels",
                correlation.diagonal.accumulators, correlation.width
            )?;
        }
        if self.conv.groups() > 1 {
            write!(f, ", {} groups", self.conv.groups())?;
        }
        Ok(())
    }
}
