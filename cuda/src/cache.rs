//! Compiled kernels on disk, so that only the first run on a machine waits for the compiler.

use crate::compile::{self, HEADERS, Image, Source, Target};
use crate::error::CudaError;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// Where compiled kernels are kept between runs. Losing or corrupting it costs a compilation, nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cache {
    /// Nowhere: each process compiles what it uses.
    Memory,
    /// In a directory, made when needed.
    Directory(PathBuf),
}

impl Default for Cache {
    /// The directory `FOOF_CUDA_CACHE`, empty for none; else `foof` in `XDG_CACHE_HOME` or `~/.cache`; else none.
    fn default() -> Cache {
        let path = |name: &str| env::var_os(name).map(PathBuf::from);
        match (path("FOOF_CUDA_CACHE"), path("XDG_CACHE_HOME"), path("HOME")) {
            (Some(named), ..) if named.as_os_str().is_empty() => Cache::Memory,
            (Some(named), ..) => Cache::Directory(named),
            (None, Some(cache), _) => Cache::Directory(cache.join("foof")),
            (None, None, Some(home)) => Cache::Directory(home.join(".cache/foof")),
            (None, None, None) => Cache::Memory,
        }
    }
}

impl Cache {
    /// The image of `source`, from the cache if it is there and whole, else from `make`.
    pub(crate) fn get_or(
        &self,
        source: &Source,
        target: Target,
        device: &str,
        make: impl FnOnce() -> Result<Image, CudaError>,
    ) -> Result<Vec<u8>, CudaError> {
        let Cache::Directory(directory) = self else { return Ok(make()?.bytes) };
        let path = directory.join(file_name(source, target, device, compile::version()?));
        if let Some(image) = read(&path) {
            return Ok(image);
        }
        let image = make()?.bytes;
        // A cache that cannot be written is none.
        let _ = write(directory, &path, &image);
        Ok(image)
    }
}

/// Everything that the image depends on.
fn file_name(source: &Source, target: Target, device: &str, (major, minor): (u32, u32)) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for text in [env!("CARGO_PKG_VERSION"), device, &format!("nvrtc {major}.{minor}")] {
        add(text);
    }
    compile::options(target).iter().for_each(|option| add(option));
    for part in HEADERS.iter().chain([source]) {
        add(part.file);
        add(part.text);
    }
    format!("{}-{}.bin", source.file.trim_end_matches(".cu"), hex(&hash.finalize()[..16]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The image behind its own hash, if that fits.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = fs::read(path).ok()?;
    let (hash, image) = file.split_at_checked(32)?;
    (Sha256::digest(image).as_slice() == hash).then(|| image.to_vec())
}

/// Whole or not at all: other processes may read and write the same file.
fn write(directory: &Path, path: &Path, image: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let unfinished = path.with_extension(process::id().to_string());
    fs::write(&unfinished, [Sha256::digest(image).as_slice(), image].concat())?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Arch;

    const SOURCE: Source = Source { file: "sample.cu", text: "one" };
    const TARGET: Target = Target::Machine(Arch::new(9, 0));

    #[test]
    fn an_image_is_read_back_and_a_damaged_one_is_not() {
        let directory = env::temp_dir().join(format!("foof-cache-{}", process::id()));
        let path = directory.join("image");
        write(&directory, &path, b"code").expect("writable");
        assert_eq!(read(&path), Some(b"code".to_vec()));
        let mut bytes = fs::read(&path).expect("written");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(&path, &bytes).expect("writable");
        assert_eq!(read(&path), None);
        fs::write(&path, b"short").expect("writable");
        assert_eq!(read(&path), None);
        assert_eq!(read(&directory.join("none")), None);
        fs::remove_dir_all(directory).expect("removable");
    }

    #[test]
    fn everything_that_changes_the_code_changes_the_name() {
        let name = |source: &Source, target, device, version| file_name(source, target, device, version);
        let all = [
            name(&SOURCE, TARGET, "a", (13, 0)),
            name(&Source { text: "two", ..SOURCE }, TARGET, "a", (13, 0)),
            name(&Source { file: "other.cu", ..SOURCE }, TARGET, "a", (13, 0)),
            name(&SOURCE, Target::Machine(Arch::new(8, 0)), "a", (13, 0)),
            name(&SOURCE, Target::Virtual(Arch::new(9, 0)), "a", (13, 0)),
            name(&SOURCE, TARGET, "b", (13, 0)),
            name(&SOURCE, TARGET, "a", (13, 1)),
        ];
        let mut different = all.to_vec();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), all.len());
        assert_eq!(name(&SOURCE, TARGET, "a", (13, 0)), all[0]);
    }
}
