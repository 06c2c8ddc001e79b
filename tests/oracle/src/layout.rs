//! Matrices and tensors embedded in buffers of every layout, with poison around and between their elements.
//!
//! The poison is the all-ones bit pattern, a NaN in every float format: a kernel that reads a stray element spoils its
//! result, and one that writes a stray element changes the pattern.

use crate::Dense;
use bytemuck::Pod;
use num_traits::{NumCast, ToPrimitive};

/// How the elements of a tensor lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Last index fastest, no gaps.
    RowMajor,
    /// First index fastest, no gaps.
    ColumnMajor,
    /// Row-major, every stride negated.
    Reversed,
    /// Row-major, the first stride negated.
    FirstReversed,
    /// Column-major, the last stride negated.
    LastReversed,
    /// Row-major rows of a wider buffer: a few elements of poison after each row.
    WideRows,
    /// Row-major with poison between neighbours too.
    Scattered,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 7] = [
        Self::RowMajor,
        Self::ColumnMajor,
        Self::Reversed,
        Self::FirstReversed,
        Self::LastReversed,
        Self::WideRows,
        Self::Scattered,
    ];
}

/// Poison kept before and after the elements.
const MARGIN: usize = 5;

/// A tensor in a buffer: element `index` is at `offset + sum_k index[k] * strides[k]`.
#[derive(Clone, Debug)]
pub struct Buffer<T, const R: usize> {
    /// The whole buffer, poison included.
    pub data: Vec<T>,
    /// Where element `[0, ..]` is.
    pub offset: usize,
    /// Lengths.
    pub shape: [usize; R],
    /// Strides in elements.
    pub strides: [isize; R],
}

/// The element whose bits are all ones.
pub fn poison<T: Pod>() -> T {
    let mut value = T::zeroed();
    bytemuck::bytes_of_mut(&mut value).fill(0xff);
    value
}

impl<T: Pod + NumCast, const R: usize> Buffer<T, R> {
    /// A tensor of poison: an output that must be written, and not read.
    pub fn poisoned(shape: [usize; R], layout: Layout) -> Self {
        let mut steps = [0isize; R];
        let mut next = if layout == Layout::Scattered { 3 } else { 1 };
        for position in 0..R {
            let column_major = matches!(layout, Layout::ColumnMajor | Layout::LastReversed);
            let k = if column_major { position } else { R - 1 - position };
            steps[k] = next as isize;
            next *= shape[k].max(1);
            if position == 0 && matches!(layout, Layout::WideRows | Layout::Scattered) {
                next += 7;
            }
        }
        let reversed = |k: usize| match layout {
            Layout::Reversed => true,
            Layout::FirstReversed => k == 0,
            Layout::LastReversed => k == R - 1,
            _ => false,
        };
        let mut offset = MARGIN;
        let mut strides = steps;
        for k in (0..R).filter(|&k| reversed(k)) {
            offset += steps[k].unsigned_abs() * shape[k].saturating_sub(1);
            strides[k] = -steps[k];
        }
        let data = vec![poison(); next + 2 * MARGIN];
        Self { data, offset, shape, strides }
    }

    /// The tensor of the given elements, listed row-major and each rounded to `T`.
    pub fn embed(values: &[f64], shape: [usize; R], layout: Layout) -> Self {
        let mut buffer = Self::poisoned(shape, layout);
        let places = buffer.places();
        assert_eq!(values.len(), places.len(), "elements of {shape:?}");
        for (&place, &value) in places.iter().zip(values) {
            buffer.data[place] = T::from(value).expect("representable");
        }
        buffer
    }

    /// Where the elements are in the buffer, listed row-major.
    pub fn places(&self) -> Vec<usize> {
        let count = self.shape.iter().product();
        let place = |mut k: usize| {
            let mut at = self.offset as isize;
            for axis in (0..R).rev() {
                at += (k % self.shape[axis]) as isize * self.strides[axis];
                k /= self.shape[axis];
            }
            usize::try_from(at).expect("inside the buffer")
        };
        (0..count).map(place).collect()
    }

    /// The elements, row-major.
    pub fn elements(&self) -> Vec<T> {
        self.places().iter().map(|&k| self.data[k]).collect()
    }

    /// Asserts that no element outside the tensor was written.
    #[track_caller]
    pub fn assert_margins_intact(&self, what: &str) {
        let mut outside = vec![true; self.data.len()];
        for place in self.places() {
            outside[place] = false;
        }
        let poison: T = poison();
        for (k, value) in self.data.iter().enumerate() {
            assert!(
                !outside[k] || bytemuck::bytes_of(value) == bytemuck::bytes_of(&poison),
                "{what}: element {k} of the buffer lies outside the tensor and was written"
            );
        }
    }
}

impl<T: Pod + NumCast + ToPrimitive> Buffer<T, 2> {
    /// A matrix, each entry rounded to `T`.
    pub fn matrix(values: &Dense, layout: Layout) -> Self {
        Self::embed(&values.data, [values.rows, values.cols], layout)
    }

    /// The matrix, widened.
    pub fn dense(&self) -> Dense {
        Dense::from_slice(self.shape[0], self.shape[1], &self.elements())
    }
}
