//! Outcomes that only the device knows.

use crate::Error;
use foof_cuda::pending::Record;

/// Work on matrices whose outcome is not known yet.
#[must_use = "a matrix that failed is named by `wait` only"]
#[derive(Debug)]
pub struct Pending(pub(super) foof_cuda::Pending);

impl Pending {
    /// Whether [`wait`](Pending::wait) would return at once, be it with an error.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Waits for the work.
    ///
    /// # Errors
    /// [`Error::Items`] with every matrix that failed, [`Error::NotPositiveDefinite`] or, for an entry that is NaN or infinite,
    /// [`Error::NotFinite`]; [`Error::Cuda`] if the work could not run to its end.
    pub fn wait(self) -> Result<(), Error> {
        let failures: Vec<_> = self.0.wait()?.into_iter().map(|(index, record)| (index, error(record))).collect();
        if failures.is_empty() { Ok(()) } else { Err(Error::Items { failures }) }
    }
}

fn error(record: Record) -> Error {
    match (usize::try_from(record.row), usize::try_from(record.column)) {
        (Ok(row), Ok(column)) => Error::NotFinite { argument: "a", index: vec![row, column] },
        _ => {
            let pivot = (record.pivot - 1).unsigned_abs() as usize;
            Error::NotPositiveDefinite { layer: None, pivot, value: record.value }
        }
    }
}
