//! Every combination of the options of a factor.

use foof::covariance::{Centring, FactorOptions};
use foof::scaling::Scaling;
use foof::{Bias, Sharing, Triangle};
use proptest::prelude::*;

/// One row for each datapoint.
pub fn options() -> impl Strategy<Value = FactorOptions> {
    let scaling =
        vec![Scaling::Foof, Scaling::KfacJax, Scaling::Asdl, Scaling::KfacPytorch, Scaling::Sum, Scaling::Custom(0.3)];
    (
        prop::sample::select(vec![Sharing::Expand, Sharing::Reduce]),
        prop::sample::select(vec![Bias::Without, Bias::With]),
        prop::sample::select(vec![Centring::Raw, Centring::Centred]),
        prop::sample::select(vec![Triangle::Full, Triangle::Lower]),
        prop::sample::select(vec![0.0, 0.5, 0.95]),
        prop::sample::select(scaling),
    )
        .prop_map(|(sharing, bias, centring, triangle, decay, scaling)| FactorOptions {
            sharing,
            bias,
            centring,
            triangle,
            decay,
            scaling,
            rows_per_datapoint: 1,
        })
}
