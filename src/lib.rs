//! foof
#![forbid(unsafe_code)]
