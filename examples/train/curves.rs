//! The CURVES images: 28x28 antialiased curves through three random control points (Hinton and Salakhutdinov,
//! "Reducing the Dimensionality of Data with Neural Networks", Science 2006). Six numbers determine an image, which is
//! what lets an autoencoder squeeze 784 pixels through a narrow code.

use rand::RngExt;
use rayon::prelude::*;

use crate::data::Dataset;
use crate::random::{Purpose, rng};

/// Pixels along a side of an image.
pub const SIDE: usize = 28;

/// Control points keep this distance from the border, in pixels.
const MARGIN: f32 = 3.0;

/// Half the width of the pen, in pixels.
const PEN: f32 = 1.0;

/// A curve is drawn as this many straight pieces.
const PIECES: usize = 32;

type Point = [f32; 2];

/// `count` images, the same ones for the same seed, standardised.
pub fn curves(count: usize, seed: u64) -> Dataset {
    let mut pixels = vec![0.0; count * SIDE * SIDE];
    pixels.par_chunks_mut(SIDE * SIDE).enumerate().for_each(|(number, image)| {
        let mut rng = rng(seed, Purpose::Curve(number as u64));
        let mut coordinate = || rng.random_range(MARGIN..SIDE as f32 - MARGIN);
        let control = std::array::from_fn(|_| [coordinate(), coordinate()]);
        draw(image, control);
    });
    Dataset::images("CURVES", SIDE * SIDE, pixels)
}

/// Draws the parabola through three points; ink 0 to 1, largest where the pen's path is nearest.
fn draw(image: &mut [f32], control: [Point; 3]) {
    let mut from = control[0];
    for piece in 1..=PIECES {
        let to = parabola(control, piece as f32 / PIECES as f32);
        draw_piece(image, from, to);
        from = to;
    }
}

/// The quadratic that passes through the points at `t` = 0, 1/2 and 1 (Lagrange's form).
fn parabola(p: [Point; 3], t: f32) -> Point {
    let weights = [(2.0 * t - 1.0) * (t - 1.0), 4.0 * t * (1.0 - t), t * (2.0 * t - 1.0)];
    std::array::from_fn(|axis| (0..3).map(|k| weights[k] * p[k][axis]).sum())
}

/// Inks the pixels near the straight piece `from`-`to`. Pixel (x, y) has its centre at (x + 1/2, y + 1/2); its ink
/// falls from 1 to 0 while its distance from the piece grows from `PEN - 1/2` to `PEN + 1/2`.
fn draw_piece(image: &mut [f32], from: Point, to: Point) {
    let reach = PEN + 0.5;
    let span = |axis: usize| {
        let (low, high) = (from[axis].min(to[axis]), from[axis].max(to[axis]));
        // The cast saturates, so a piece outside the image gives an empty range.
        (low - reach) as usize..((high + reach).ceil() as usize).min(SIDE)
    };
    let along = [to[0] - from[0], to[1] - from[1]];
    let length_squared = (along[0] * along[0] + along[1] * along[1]).max(f32::MIN_POSITIVE);
    for y in span(1) {
        for x in span(0) {
            let offset = [x as f32 + 0.5 - from[0], y as f32 + 0.5 - from[1]];
            let t = (offset[0] * along[0] + offset[1] * along[1]) / length_squared;
            let t = t.clamp(0.0, 1.0);
            let distance = (offset[0] - t * along[0]).hypot(offset[1] - t * along[1]);
            let ink = (reach - distance).clamp(0.0, 1.0);
            let pixel = &mut image[y * SIDE + x];
            *pixel = pixel.max(ink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_passes_through_its_control_points() {
        let control = [[3.0, 4.0], [20.0, 5.0], [9.0, 24.0]];
        for (t, point) in [(0.0, control[0]), (0.5, control[1]), (1.0, control[2])] {
            assert_eq!(parabola(control, t), point);
        }
    }

    #[test]
    fn a_horizontal_stroke_inks_the_rows_it_covers() {
        let mut image = vec![0.0; SIDE * SIDE];
        draw(&mut image, [[4.5, 10.5], [12.5, 10.5], [20.5, 10.5]]);
        let column: Vec<f32> = (8..14).map(|y| image[y * SIDE + 12]).collect();
        let shade = PEN + 0.5 - 1.0;
        assert_eq!(column, [0.0, shade, 1.0, shade, 0.0, 0.0]);
    }

    #[test]
    fn the_seed_alone_determines_the_images() {
        let [a, b] = [5, 8].map(|count| ink(count, 1));
        assert_eq!(a, b[..5 * SIDE * SIDE]);
        assert_ne!(a, ink(5, 2));
    }

    /// The pixels that have ink, which standardising cannot change.
    fn ink(count: usize, seed: u64) -> Vec<bool> {
        let set = curves(count, seed);
        let background = set.pixels.iter().copied().fold(f32::INFINITY, f32::min);
        set.pixels.iter().map(|&p| p > background).collect()
    }
}
