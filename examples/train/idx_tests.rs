//! Every way in which a folder of IDX files can be wrong, and the two ways in which it is right.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

const IMAGES: &str = "t10k-images-idx3-ubyte";
const LABELS: &str = "t10k-labels-idx1-ubyte";

/// A folder of its own for one test, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    /// Three 2x2 images and their labels.
    fn of_three_images(test: &str) -> Self {
        let name = format!("foof-idx-{}-{test}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        folder.write(IMAGES, &images());
        folder.write(LABELS, &labels());
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    /// Replaces a plain file by a compressed one, its bytes changed on the way.
    fn compress(&self, name: &str, bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        let mut compressed = encoder.finish().unwrap();
        change(&mut compressed);
        std::fs::remove_file(self.0.join(name)).unwrap();
        self.write(&format!("{name}.gz"), &compressed);
    }

    fn read(&self) -> Result<Dataset, IdxError> {
        read_folder(&self.0)
    }

    /// The error of reading this folder, which must name the folder or a file in it.
    fn error(&self) -> IdxError {
        let error = self.read().unwrap_err();
        let message = error.to_string();
        assert!(message.contains(self.0.to_str().unwrap()), "{message}");
        error
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind in the temporary folder at worst.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn images() -> Vec<u8> {
    let mut bytes = words(&[0x0803, 3, 2, 2]);
    bytes.extend([0, 255, 0, 255, 0, 0, 255, 255, 255, 255, 0, 0]);
    bytes
}

fn labels() -> Vec<u8> {
    let mut bytes = words(&[0x0801, 3]);
    bytes.extend([7, 0, 9]);
    bytes
}

#[test]
fn plain_and_compressed_files_give_the_same_images() {
    let folder = Folder::of_three_images("plain");
    let plain = folder.read().unwrap();
    assert_eq!((plain.len(), plain.width), (3, 4));
    assert_eq!(plain.labels, [7, 0, 9]);
    assert_eq!(plain.image(2), [1.0, 1.0, -1.0, -1.0]);

    folder.compress(IMAGES, &images(), |_| ());
    folder.compress(LABELS, &labels(), |_| ());
    assert_eq!(folder.read().unwrap().pixels, plain.pixels);
}

#[test]
fn the_training_files_come_before_the_test_files() {
    let folder = Folder::of_three_images("prefer-train");
    folder.write("train-images-idx3-ubyte", &images());
    let mut other = labels();
    other[8] = 1;
    folder.write("train-labels-idx1-ubyte", &other);
    assert_eq!(folder.read().unwrap().labels, [1, 0, 9]);
}

#[test]
fn missing_files() {
    let folder = Folder::of_three_images("missing");
    std::fs::remove_file(folder.0.join(LABELS)).unwrap();
    assert!(matches!(folder.error(), IdxError::Unpaired { expected, .. } if expected == LABELS));
    std::fs::remove_file(folder.0.join(IMAGES)).unwrap();
    assert!(matches!(folder.error(), IdxError::Missing { .. }));
}

#[test]
fn mislabelled_files() {
    let folder = Folder::of_three_images("mislabelled");
    folder.write(IMAGES, &labels());
    assert!(matches!(folder.error(), IdxError::Magic { found: 0x0801, kind: Kind::Images, .. }));
    folder.write(IMAGES, b"GIF89a, say");
    assert!(matches!(folder.error(), IdxError::Magic { .. }));
}

#[test]
fn every_truncation_is_noticed() {
    let folder = Folder::of_three_images("truncated");
    for length in 0..images().len() {
        folder.write(IMAGES, &images()[..length]);
        assert!(matches!(
            folder.error(),
            IdxError::Truncated { found, .. } if found == length as u64
        ));
    }
}

#[test]
fn every_truncation_of_a_gzip_stream_is_noticed() {
    let folder = Folder::of_three_images("gzip-truncated");
    let mut length = 0;
    folder.compress(IMAGES, &images(), |bytes| length = bytes.len());
    for kept in 2..length {
        folder.write(IMAGES, &images());
        folder.compress(IMAGES, &images(), |bytes| bytes.truncate(kept));
        assert!(matches!(folder.error(), IdxError::GzipTruncated { .. }));
    }
}

#[test]
fn a_corrupt_gzip_stream_is_noticed() {
    let folder = Folder::of_three_images("gzip-corrupt");
    // The checksum is in the last eight bytes.
    folder.compress(IMAGES, &images(), |bytes| {
        let checksum = bytes.len() - 8;
        bytes[checksum] ^= 1;
    });
    assert!(matches!(folder.error(), IdxError::Corrupt { .. }));
}

#[test]
fn trailing_bytes() {
    let folder = Folder::of_three_images("trailing");
    let mut longer = images();
    longer.push(0);
    folder.write(IMAGES, &longer);
    assert!(matches!(folder.error(), IdxError::Trailing { expected: 28, .. }));
}

#[test]
fn dimensions_that_cannot_be() {
    let folder = Folder::of_three_images("dimensions");
    for dimensions in [[0, 2, 2], [3, 0, 2], [u32::MAX, u32::MAX, u32::MAX]] {
        let mut header = vec![0x0803];
        header.extend(dimensions);
        folder.write(IMAGES, &words(&header));
        assert!(matches!(
            folder.error(),
            IdxError::Dimensions { dimensions: d, .. } if d == dimensions
        ));
    }
    // Large but possible: the bytes are missing, and none of the promised memory is taken.
    folder.write(IMAGES, &words(&[0x0803, u32::MAX, 28, 28]));
    assert!(matches!(folder.error(), IdxError::Truncated { found: 16, .. }));
}

#[test]
fn as_many_labels_as_images() {
    let folder = Folder::of_three_images("count");
    let mut fewer = words(&[0x0801, 2]);
    fewer.extend([1, 2]);
    folder.write(LABELS, &fewer);
    assert!(matches!(folder.error(), IdxError::Count { images: 3, labels: 2, .. }));
}

#[test]
fn labels_are_digits() {
    let folder = Folder::of_three_images("label");
    let mut wrong = labels();
    wrong[9] = 10;
    folder.write(LABELS, &wrong);
    assert!(matches!(folder.error(), IdxError::Label { index: 1, value: 10, .. }));
}
