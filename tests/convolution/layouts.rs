//! Layouts and types of images, layouts of outputs, triangles and blends: integers bit for bit, nothing else read or written.

use crate::run::{OnCpu, assert_exact_for_every_type};
use foof_kernels::Triangle;
use foof_oracle::Random;
use foof_oracle::images::convolutions;
use foof_oracle::images::{Images, Problem, Request};
use foof_oracle::layout::Layout;

fn every_image_layout() -> impl Iterator<Item = Images> {
    Layout::ALL.into_iter().flat_map(|layout| [Images::ChannelsFirst(layout), Images::ChannelsLast(layout)])
}

/// Channels first and last, in every layout.
#[test]
fn images_of_every_layout_and_type() {
    let mut random = Random::new(1);
    for conv in convolutions() {
        let problem = Problem::integers(conv, 3, &mut random);
        for images in every_image_layout() {
            assert_exact_for_every_type(&problem, &Request { images, ..Request::default() });
        }
    }
}

/// Poison is around every output; with one triangle, above the diagonal too; with `beta = 0`, everywhere.
#[test]
fn outputs_of_every_layout_blend_and_triangle() {
    let mut random = Random::new(2);
    for (number, conv) in convolutions().into_iter().enumerate() {
        let problem = Problem::integers(conv, 2 + number % 2, &mut random);
        for output in Layout::ALL {
            for triangle in [Triangle::Full, Triangle::Lower] {
                for blend in [[1.0, 0.0], [1.0, 1.0], [-2.0, 0.5], [0.5, -1.0], [0.0, 1.0]] {
                    let request = Request { output, triangle, blend, ..Request::default() };
                    problem.assert_exact::<f32>(&request);
                }
                let request = Request { output, triangle, blend: [2.0, 0.25], ..Request::default() };
                problem.assert_exact::<f64>(&request);
            }
        }
    }
}

/// No images: the sum is empty, and meets the output as any other.
#[test]
fn no_images() {
    for conv in convolutions() {
        let problem = Problem { conv, n: 0, x: Vec::new() };
        let size = conv.factor_size();
        let zeros = vec![foof_oracle::Dense::zeros(size, size); conv.groups()];
        for triangle in [Triangle::Full, Triangle::Lower] {
            for blend in [[1.0, 0.0], [1.0, 0.5]] {
                problem.assert_exactly::<f32>(&Request { triangle, blend, ..Request::default() }, &zeros);
            }
        }
    }
}
