//! Which instruction set a kernel runs on. A value of [`Isa`] is proof that this CPU has it.

use core::fmt;
use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Level {
    Avx512,
    Avx2,
    Portable,
}

/// An instruction set that this CPU has. Obtained only through a check, so holding one is what makes calling its kernels sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Isa(Level);

/// Why an instruction set cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IsaError {
    /// The name is none of `avx512`, `avx2`, `portable`.
    Unknown {
        /// The name as given.
        name: String,
    },
    /// The name is known, but this CPU lacks the instructions.
    Missing {
        /// The name as given.
        name: String,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaError::Unknown { name } => {
                write!(f, "unknown instruction set {name:?}: expected avx512, avx2 or portable")
            }
            IsaError::Missing { name } => {
                write!(f, "this CPU does not have {name}: it has")?;
                Isa::available().iter().try_for_each(|isa| write!(f, " {isa}"))
            }
        }
    }
}

impl std::error::Error for IsaError {}

impl Level {
    const ALL: [Level; 3] = [Level::Avx512, Level::Avx2, Level::Portable];

    fn name(self) -> &'static str {
        match self {
            Level::Avx512 => "avx512",
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn detected(self) -> bool {
        match self {
            Level::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") && Level::Avx2.detected()
            }
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Level::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected(self) -> bool {
        self == Level::Portable
    }
}

impl Isa {
    /// Every instruction set of this CPU, fastest first. Never empty: `portable` is always there.
    pub fn available() -> &'static [Isa] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| Level::ALL.into_iter().filter(|l| l.detected()).map(Isa).collect())
    }

    /// The instruction set called `name`: `avx512`, `avx2` or `portable`.
    ///
    /// # Errors
    /// [`IsaError`] if the name is unknown or this CPU lacks the instructions.
    pub fn from_name(name: &str) -> Result<Isa, IsaError> {
        let level =
            Level::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| IsaError::Unknown { name: name.into() })?;
        match level.detected() {
            true => Ok(Isa(level)),
            false => Err(IsaError::Missing { name: name.into() }),
        }
    }

    /// The one named by the environment variable `FOOF_ISA`, else the fastest.
    ///
    /// # Errors
    /// [`IsaError`] if the variable is set to something this CPU cannot run.
    pub fn from_env() -> Result<Isa, IsaError> {
        match std::env::var("FOOF_ISA") {
            Ok(name) if !name.is_empty() => Isa::from_name(&name),
            _ => Ok(Isa::available()[0]),
        }
    }

    /// [`Isa::from_env`], read once per process. A bad `FOOF_ISA` is reported on stderr, once, and the fastest is taken.
    pub fn selected() -> Isa {
        static SELECTED: OnceLock<Isa> = OnceLock::new();
        *SELECTED.get_or_init(|| {
            Isa::from_env().unwrap_or_else(|error| {
                eprintln!("foof: FOOF_ISA ignored: {error}");
                Isa::available()[0]
            })
        })
    }

    /// `"avx512"`, `"avx2"` or `"portable"`.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    #[inline]
    pub(crate) fn level(self) -> Level {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
