//! Reproducible random numbers: ChaCha, one stream for each purpose, so that drawing more of one kind of number
//! (another method's sampled labels, say) never changes another kind (the order of the mini-batches).

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

pub type Rng = ChaCha8Rng;

/// What the numbers are for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// A network's initial weights.
    Weights,
    /// The order in which mini-batches take the images.
    Order,
    /// K-FAC's labels, sampled from the model.
    Labels,
    /// The order in which mini-batches of the Fisher matrix's own take the images.
    FisherOrder,
    /// The control points of image number `.0`.
    Curve(u64),
}

/// The generator of `seed` for one purpose.
pub fn rng(seed: u64, purpose: Purpose) -> Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(match purpose {
        Purpose::Weights => 0,
        Purpose::Order => 1,
        Purpose::Labels => 2,
        // After every curve's.
        Purpose::FisherOrder => u64::MAX,
        Purpose::Curve(image) => 3 + image,
    });
    rng
}
