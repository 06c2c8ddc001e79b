//! The IDX files of MNIST (yann.lecun.com/exdb/mnist), compressed or not: big-endian header (magic number, one length
//! a dimension), then one byte a value. A file is believed only as far as it is consistent: every length is checked
//! against what is really there.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use crate::data::Dataset;

/// Classes of the digits: labels are 0 to 9.
pub const CLASSES: usize = 10;

/// What a file should hold; the last byte of the magic number is its number of dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Images,
    Labels,
}

impl Kind {
    const fn magic(self) -> u32 {
        match self {
            Kind::Images => 0x0803,
            Kind::Labels => 0x0801,
        }
    }

    const fn dimensions(self) -> usize {
        self.magic() as usize & 0xff
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::Images => "images-idx3-ubyte",
            Kind::Labels => "labels-idx1-ubyte",
        }
    }
}

/// Why a folder of IDX files cannot be used.
#[derive(Debug, Error)]
pub enum IdxError {
    #[error("{}: holds neither train-{n} nor t10k-{n}, plain or .gz", .folder.display(), n = Kind::Images.name())]
    Missing { folder: PathBuf },
    #[error("{}: {found} is there but its labels, {expected} (plain or .gz), are not", .folder.display())]
    Unpaired { folder: PathBuf, found: String, expected: String },
    #[error("{}: cannot be read", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: the gzip stream is corrupt", .path.display())]
    Corrupt { path: PathBuf, source: io::Error },
    #[error("{}: truncated: the gzip stream ends early, after {found} decompressed bytes", .path.display())]
    GzipTruncated { path: PathBuf, found: u64 },
    #[error(
        "{}: truncated: {expected} bytes expected (decompressed), {found} found", .path.display()
    )]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    #[error("{}: bytes follow the {expected} that its header announces", .path.display())]
    Trailing { path: PathBuf, expected: u64 },
    #[error(
        "{}: mislabelled: the magic number is {found:#010x}, not {:#010x} as in {}",
        .path.display(), .kind.magic(), .kind.name()
    )]
    Magic { path: PathBuf, found: u32, kind: Kind },
    #[error("{}: a dimension is zero or they are too large: {dimensions:?}", .path.display())]
    Dimensions { path: PathBuf, dimensions: Vec<u32> },
    #[error(
        "{}: holds {labels} labels, but {} holds {images} images", .labels_path.display(), .images_path.display()
    )]
    Count { images_path: PathBuf, images: usize, labels_path: PathBuf, labels: usize },
    #[error("{}: label number {index} is {value}, not a digit 0 to 9", .path.display())]
    Label { path: PathBuf, index: usize, value: u8 },
}

/// The contents of one file.
#[derive(Debug)]
struct Array {
    dimensions: Vec<usize>,
    values: Vec<u8>,
}

/// Reads the digits in `folder`, standardised: its `train-*` files, or its `t10k-*` files where it has only those.
pub fn read_folder(folder: &Path) -> Result<Dataset, IdxError> {
    let (images_path, labels_path) = locate(folder)?;
    let images = read(&images_path, Kind::Images)?;
    let labels = read(&labels_path, Kind::Labels)?;
    let count = images.dimensions[0];
    if labels.values.len() != count {
        return Err(IdxError::Count { images_path, images: count, labels_path, labels: labels.values.len() });
    }
    let wrong = |&(_, &value): &(usize, &u8)| usize::from(value) >= CLASSES;
    if let Some((index, &value)) = labels.values.iter().enumerate().find(wrong) {
        return Err(IdxError::Label { path: labels_path, index, value });
    }
    let pixels = images.values.iter().map(|&p| f32::from(p) / 255.0);
    let width = images.dimensions[1..].iter().product();
    Ok(Dataset::labelled("digits", width, pixels.collect(), labels.values))
}

/// The images and labels files of `folder`.
fn locate(folder: &Path) -> Result<(PathBuf, PathBuf), IdxError> {
    let find = |name: &str| {
        ["", ".gz"].map(|suffix| folder.join(format!("{name}{suffix}"))).into_iter().find(|path| path.is_file())
    };
    for set in ["train", "t10k"] {
        let [found, expected] = [Kind::Images, Kind::Labels].map(|k| format!("{set}-{}", k.name()));
        if let Some(images) = find(&found) {
            let labels =
                find(&expected).ok_or_else(|| IdxError::Unpaired { folder: folder.to_owned(), found, expected })?;
            return Ok((images, labels));
        }
    }
    Err(IdxError::Missing { folder: folder.to_owned() })
}

/// Reads one file; whether it is compressed is decided by its first bytes, not by its name.
fn read(path: &Path, kind: Kind) -> Result<Array, IdxError> {
    let unreadable = |source| IdxError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    if file.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]) {
        parse(path, kind, MultiGzDecoder::new(file))
    } else {
        parse(path, kind, file)
    }
}

/// Reads header and values from the decompressed bytes of the file at `at`.
fn parse(at: &Path, kind: Kind, mut bytes: impl Read) -> Result<Array, IdxError> {
    let path = at.to_owned();
    let header_length = 4 + 4 * kind.dimensions() as u64;
    let header = read_up_to(&mut bytes, header_length, at)?;
    let words: Vec<u32> =
        header.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])).collect();
    if let Some(&found) = words.first().filter(|&&magic| magic != kind.magic()) {
        return Err(IdxError::Magic { path, found, kind });
    }
    if (header.len() as u64) < header_length {
        return Err(IdxError::Truncated { path, expected: header_length, found: header.len() as u64 });
    }

    let dimensions = &words[1..];
    let length = dimensions
        .iter()
        .try_fold(1u64, |product, &d| product.checked_mul(u64::from(d)))
        .filter(|&length| length > 0 && length <= u64::MAX / 2);
    let Some(length) = length else {
        let dimensions = dimensions.to_vec();
        return Err(IdxError::Dimensions { path, dimensions });
    };
    // One byte more than announced: it must not come, and asking for it makes the decoder check its checksum.
    let values = read_up_to(&mut bytes, length + 1, at)?;
    let expected = header_length + length;
    let found = header_length + values.len() as u64;
    match found.cmp(&expected) {
        Ordering::Less => Err(IdxError::Truncated { path, expected, found }),
        Ordering::Greater => Err(IdxError::Trailing { path, expected }),
        Ordering::Equal => Ok(Array { dimensions: dimensions.iter().map(|&d| d as usize).collect(), values }),
    }
}

/// At most `limit` bytes. Memory grows with what arrives, not with what a header promises.
fn read_up_to(bytes: &mut impl Read, limit: u64, path: &Path) -> Result<Vec<u8>, IdxError> {
    let mut buffer = Vec::new();
    let path = path.to_owned();
    match bytes.take(limit).read_to_end(&mut buffer) {
        Ok(_) => Ok(buffer),
        // The three ways in which the decoder fails; a plain file has only the last.
        Err(source) => Err(match source.kind() {
            ErrorKind::UnexpectedEof => IdxError::GzipTruncated { path, found: buffer.len() as u64 },
            ErrorKind::InvalidInput | ErrorKind::InvalidData => IdxError::Corrupt { path, source },
            _ => IdxError::Read { path, source },
        }),
    }
}

#[cfg(test)]
#[path = "idx_tests.rs"]
mod tests;
