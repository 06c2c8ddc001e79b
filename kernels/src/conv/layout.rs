//! How a batch is packed and cut for the correlation form.
//!
//! ```text
//! packed image = [block of images][channel tile][phase][position][channel]
//! position     = (z, y, x, image)   if columns are single classes: runs over x and images are contiguous
//!                (z, y, image, x)   if a column operand spans several pixels of a row
//! ```
//!
//! An offset between two samples is a pointer shift in both. A *chunk*, some images and some rows of them, is summed by one task;
//! chunks depend on the shape only, and are added in order.

use super::correlate::Slots;
use super::correlation::Correlation;
use crate::element::Element;
use core::ops::Range;

/// Bytes of a block of one channel tile: it is read once for each product, and should stay in L2 with its partner.
const BLOCK_BYTES: usize = 1 << 18;

/// Tasks that a batch is cut into if it is large enough.
const TASKS: usize = 16;

/// Multiply-adds that are worth a chunk.
const CHUNK_WORK: u64 = 1 << 21;

/// Multiply-adds of a chunk for each of its sums, which are cleared, and added to those of other chunks.
const WORK_OF_SUM: u64 = 256;

/// Rows of an image that are worth a chunk.
const CHUNK_ROWS: usize = 8;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) images: usize,
    /// Images of a block, at most.
    block: usize,
    /// Samples of the longest phase, by axis.
    pub(crate) pitch: [usize; 3],
    pub(crate) phases: usize,
    channels: usize,
    /// Whether a pixel's right neighbour, not its image's successor, follows it.
    pub(crate) columns: bool,
    image_chunks: usize,
    row_chunks: usize,
}

/// Positions of a block: how far apart neighbours are, and where runs start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Steps {
    pub(crate) axes: [usize; 3],
    pub(crate) image: usize,
}

impl Layout {
    pub(crate) fn new<T: Element>(correlation: &Correlation, images: usize) -> Layout {
        let pitch = correlation.axes.each_ref().map(|axis| axis.pitch);
        let phases = correlation.axes.iter().map(|axis| axis.phases.len()).product::<usize>();
        let pairs = correlation.tiles() * (correlation.tiles() + 1) / 2;
        let work = correlation.multiply_adds() * images as u64;
        let sums = Slots::largest(correlation, 1) as u64;
        let most = (work / CHUNK_WORK.max(WORK_OF_SUM * sums)).max(1) as usize;
        let wanted = TASKS.div_ceil(pairs).min(most);
        // As many chunks as have one number of images each, but for the last.
        let each = images.div_ceil(wanted.min(images).max(1)).max(1);
        let image_chunks = images.div_ceil(each).max(1);
        let row_chunks = wanted.div_ceil(image_chunks).min(pitch[1] / CHUNK_ROWS).max(1);
        let image_bytes = pitch.iter().product::<usize>() * phases * correlation.width * size_of::<T>();
        let block = (BLOCK_BYTES / image_bytes).clamp(1, images.div_ceil(image_chunks).max(1));
        let columns = correlation.most_classes()[2] > 1;
        let channels = correlation.channels;
        Layout { images, block, pitch, phases, channels, columns, image_chunks, row_chunks }
    }

    /// One chunk, one block: a task's own batch.
    pub(crate) fn whole(correlation: &Correlation, images: usize) -> Layout {
        let pitch = correlation.axes.each_ref().map(|axis| axis.pitch);
        let phases = correlation.axes.iter().map(|axis| axis.phases.len()).product();
        let (block, columns) = (images.max(1), correlation.most_classes()[2] > 1);
        let channels = correlation.channels;
        Layout { images, block, pitch, phases, channels, columns, image_chunks: 1, row_chunks: 1 }
    }

    /// Positions of one phase of an image.
    fn positions(&self) -> usize {
        self.pitch.iter().product()
    }

    /// Elements of the packed images, without what is read past their end.
    pub(crate) fn packed_len(&self) -> usize {
        self.images * self.phases * self.positions() * self.channels
    }

    pub(crate) fn chunks(&self) -> usize {
        self.image_chunks * self.row_chunks
    }

    /// Images and rows of a chunk.
    pub(crate) fn chunk(&self, chunk: usize) -> (Range<usize>, Range<usize>) {
        let (i, r) = (chunk / self.row_chunks, chunk % self.row_chunks);
        let cut = |n: usize, at: usize, parts: usize| n * at / parts;
        let images = cut(self.images, i, self.image_chunks)..cut(self.images, i + 1, self.image_chunks);
        (images, cut(self.pitch[1], r, self.row_chunks)..cut(self.pitch[1], r + 1, self.row_chunks))
    }

    /// The blocks of a chunk's images.
    pub(crate) fn blocks(&self, images: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (block, end) = (self.block, images.end);
        images.step_by(block).map(move |start| start..end.min(start + block))
    }

    /// The block that holds an image.
    pub(crate) fn block_of(&self, image: usize) -> Range<usize> {
        let holds = |range: &Range<usize>| range.contains(&image);
        let mut chunks = (0..self.image_chunks).map(|chunk| self.chunk(chunk * self.row_chunks).0);
        let images = chunks.find(holds).unwrap_or(0..self.images);
        self.blocks(images).find(holds).unwrap_or(image..image + 1)
    }

    /// Where phase `phase` of a tile starts: the tile's first channel and width are given.
    pub(crate) fn start(&self, block: &Range<usize>, (channel, width): (usize, usize), phase: usize) -> usize {
        let images = block.len() * self.positions();
        block.start * self.phases * self.positions() * self.channels + images * (self.phases * channel + phase * width)
    }

    pub(crate) fn steps(&self, images: usize) -> Steps {
        let [_, y, x] = self.pitch;
        let row = x * images;
        match self.columns {
            true => Steps { axes: [y * row, row, 1], image: x },
            false => Steps { axes: [y * row, row, images], image: 1 },
        }
    }

    /// The longest chain of slabs of `slab` depths, at least, that a chunk adds to one accumulator.
    pub(crate) fn slabs(&self, slab: usize) -> usize {
        let [z, y, x] = self.pitch;
        let chunk = |parts: usize, n: usize| n.div_ceil(parts);
        let images = chunk(self.image_chunks, self.images);
        // In each block, runs of one image and row, or of all images and one row, of which a slab takes as many as fit.
        let lines = |lines: usize, length: usize| match length >= slab {
            true => lines * length.div_ceil(slab),
            false => lines.div_ceil(slab / length.max(1)),
        };
        let rows = z * chunk(self.row_chunks, y);
        let block = self.block.min(images).max(1);
        // Shorter segments and blocks have no more slabs than this.
        let most = |block: usize| {
            (1..=x).map(|x| if self.columns { lines(rows * block, x) } else { lines(rows, x * block) }).max()
        };
        images.div_ceil(block) * (1..=block).filter_map(most).max().unwrap_or(1)
    }
}
