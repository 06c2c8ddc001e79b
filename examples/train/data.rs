//! A set of images with or without labels, and the order in which mini-batches take them.

use rand::seq::SliceRandom;

use crate::random::{Purpose, Rng, rng};

/// Images as rows of standardised pixels, `[len, width]`.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub name: &'static str,
    /// Pixels of one image.
    pub width: usize,
    pub pixels: Vec<f32>,
    /// One class an image; none for images to be reconstructed.
    pub labels: Vec<u8>,
}

impl Dataset {
    /// Unlabelled images, standardised.
    pub fn images(name: &'static str, width: usize, pixels: Vec<f32>) -> Self {
        Self::labelled(name, width, pixels, Vec::new())
    }

    /// Labelled images, standardised: all pixels together get mean 0 and variance 1. (Pixel by pixel, the rarely inked
    /// ones at the border would be blown up.)
    pub fn labelled(name: &'static str, width: usize, mut pixels: Vec<f32>, labels: Vec<u8>) -> Self {
        let count = pixels.len().max(1) as f64;
        let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / count;
        let square = |p: &f32| (f64::from(*p) - mean).powi(2);
        let deviation = (pixels.iter().map(square).sum::<f64>() / count).sqrt();
        let scale = if deviation > 0.0 { deviation.recip() } else { 1.0 };
        for pixel in &mut pixels {
            *pixel = ((f64::from(*pixel) - mean) * scale) as f32;
        }
        Self { name, width, pixels, labels }
    }

    pub fn len(&self) -> usize {
        self.pixels.len() / self.width
    }

    pub fn image(&self, index: usize) -> &[f32] {
        &self.pixels[index * self.width..][..self.width]
    }

    /// Keeps the first `count` images.
    pub fn truncate(&mut self, count: usize) {
        self.pixels.truncate(count.min(self.len()) * self.width);
        self.labels.truncate(count);
    }

    /// Takes the last `count` images away, to measure on what was not trained on.
    pub fn split_off(&mut self, count: usize) -> Self {
        let kept = self.len().saturating_sub(count);
        Self {
            name: self.name,
            width: self.width,
            pixels: self.pixels.split_off(kept * self.width),
            labels: self.labels.split_off(kept.min(self.labels.len())),
        }
    }
}

/// Mini-batches without end: each epoch takes the images in a new random order, and drops what does not fill a batch.
pub struct Batches {
    order: Vec<usize>,
    size: usize,
    next: usize,
    rng: Rng,
}

impl Batches {
    /// Batches of `size` among `images` images, `size` at most `images`, in an order of their own for each purpose.
    pub fn new(images: usize, size: usize, seed: u64, purpose: Purpose) -> Self {
        Self { order: (0..images).collect(), size, next: images, rng: rng(seed, purpose) }
    }

    /// The numbers of the next batch's images.
    pub fn next(&mut self) -> &[usize] {
        if self.next + self.size > self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        self.next += self.size;
        &self.order[self.next - self.size..self.next]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_means_zero_mean_and_unit_variance() {
        let set = Dataset::images("test", 2, vec![1.0, 3.0, 1.0, 3.0]);
        assert_eq!(set.pixels, [-1.0, 1.0, -1.0, 1.0]);
    }

    #[test]
    fn an_epoch_takes_every_image_once() {
        let mut batches = Batches::new(6, 2, 1, Purpose::Order);
        for _ in 0..3 {
            let mut epoch: Vec<usize> = (0..3).flat_map(|_| batches.next().to_vec()).collect();
            epoch.sort_unstable();
            assert_eq!(epoch, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn held_out_images_are_the_last_ones() {
        let mut set = Dataset::labelled("test", 1, vec![0.0, 1.0, 2.0], vec![7, 8, 9]);
        let held_out = set.split_off(1);
        assert_eq!((set.len(), held_out.len()), (2, 1));
        assert_eq!((set.labels, held_out.labels), (vec![7, 8], vec![9]));
    }
}
