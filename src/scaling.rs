//! How factors are scaled. Implementations differ by powers of the number of datapoints `N` and positions `T`.

use crate::error::check_parameter;
use crate::{Error, Sharing};

/// The factor of the sum `sum_nt x_nt x_nt^T` in an input factor `A` (for [`Sharing::Reduce`] of the sum over reduced rows, with `T = 1`).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Scaling {
    /// `1/N`: ours, BackPACK's and the paper's convolutions'. Error factors: `1/(N T)`, reduced `1/N`.
    #[default]
    Foof,
    /// `1/(N T)`: kfac-jax, curvlinops, singd.
    KfacJax,
    /// `1/T`: ASDL.
    Asdl,
    /// `1/(N T³)`: kfac-pytorch.
    KfacPytorch,
    /// 1: the paper's published code, for dense layers.
    Sum,
    /// A factor of the caller's, positive and finite.
    Custom(f64),
}

impl Scaling {
    /// The factor for an input factor over `n` datapoints of `t` positions.
    pub fn input(self, sharing: Sharing, n: usize, t: usize) -> f64 {
        let (n, t) = (n as f64, if sharing == Sharing::Reduce { 1.0 } else { t as f64 });
        match self {
            Scaling::Foof => 1.0 / n,
            Scaling::KfacJax => 1.0 / (n * t),
            Scaling::Asdl => 1.0 / t,
            Scaling::KfacPytorch => 1.0 / (n * t * t * t),
            Scaling::Sum => 1.0,
            Scaling::Custom(scale) => scale,
        }
    }

    /// The factor for an error factor: the libraries' named scalings are of `A`, and with them `B` is scaled as ours.
    pub fn error(self, sharing: Sharing, n: usize, t: usize) -> f64 {
        match self {
            Scaling::Sum | Scaling::Custom(_) => self.input(sharing, n, t),
            _ => Scaling::KfacJax.input(sharing, n, t),
        }
    }

    pub(crate) fn check(self) -> Result<(), Error> {
        match self {
            Scaling::Custom(s) => check_parameter("scale", s, s > 0.0 && s.is_finite(), "a positive finite number"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conventions() {
        let of = |s: Scaling| s.input(Sharing::Expand, 2, 4);
        let all = [Scaling::Foof, Scaling::KfacJax, Scaling::Asdl, Scaling::KfacPytorch, Scaling::Sum].map(of);
        assert_eq!(all, [1.0 / 2.0, 1.0 / 8.0, 1.0 / 4.0, 1.0 / 128.0, 1.0]);
        assert_eq!(Scaling::Foof.error(Sharing::Expand, 2, 4), 1.0 / 8.0);
        assert_eq!(Scaling::Foof.error(Sharing::Reduce, 2, 4), 1.0 / 2.0);
    }
}
