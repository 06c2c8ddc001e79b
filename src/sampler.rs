//! Random numbers that can be had again.

use crate::Element;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

/// A source of random numbers, ChaCha8: equal seeds and streams give equal numbers on every machine and for any number of threads. Streams of
/// one seed are independent: a stream for each purpose keeps one purpose's numbers as they are when another draws more.
#[derive(Debug)]
pub struct Sampler(ChaCha8Rng);

impl Sampler {
    /// Stream 0 of a seed, from its beginning.
    pub fn new(seed: u64) -> Self {
        Sampler::of_stream(seed, 0)
    }

    /// A stream of a seed, from its beginning.
    pub fn of_stream(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Sampler(rng)
    }

    /// How many 32-bit words of the stream were drawn: saved, and given to [`set_position`](Self::set_position), it resumes the stream.
    pub fn position(&self) -> u128 {
        self.0.get_word_pos()
    }

    /// Goes on from a position of the stream.
    pub fn set_position(&mut self, position: u128) {
        self.0.set_word_pos(position);
    }

    /// Uniform on `[0, 1)`, in steps of `2^-53`.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// A standard normal, drawn in `f64` and rounded: both element types see the same ones.
    pub(crate) fn normal<T: Element>(&mut self) -> T {
        T::from_f64(self.0.sample(StandardNormal))
    }

    /// Fills with standard normals.
    pub(crate) fn normals<T: Element>(&mut self, out: &mut [T]) {
        out.fill_with(|| self.normal());
    }
}
