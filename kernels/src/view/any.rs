//! Views whose element type is known at run time only.

use super::View;
use crate::element::{Element, Input};
use core::fmt;

/// A view of elements of any type that is accumulated in `T`: made by `View::into`.
#[derive(Clone, Copy)]
pub enum AnyView<'a, T: Element, const R: usize> {
    /// Of the type itself.
    Full(View<'a, T, R>),
    /// Of `bf16`, which accumulates in `f32`.
    Bf16(View<'a, T::Bf16, R>),
    /// Of `f16`, which accumulates in `f32`.
    F16(View<'a, T::F16, R>),
}

impl<'a, I: Input, const R: usize> From<View<'a, I, R>> for AnyView<'a, I::Acc, R> {
    fn from(view: View<'a, I, R>) -> Self {
        I::any(view)
    }
}

impl<'a, T: Element, const R: usize> AnyView<'a, T, R> {
    /// As [`View::as_images`].
    pub fn as_images(self) -> Option<AnyView<'a, T, 5>> {
        Some(match self {
            AnyView::Full(view) => AnyView::Full(view.as_images()?),
            AnyView::Bf16(view) => AnyView::Bf16(view.as_images()?),
            AnyView::F16(view) => AnyView::F16(view.as_images()?),
        })
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> [usize; R] {
        match self {
            AnyView::Full(view) => view.shape(),
            AnyView::Bf16(view) => view.shape(),
            AnyView::F16(view) => view.shape(),
        }
    }
}

impl<'a, T: Element> AnyView<'a, T, 2> {
    /// As [`View::positions`].
    ///
    /// # Panics
    /// If `t` is zero or does not divide the number of rows.
    #[track_caller]
    pub fn positions(self, t: usize) -> AnyView<'a, T, 3> {
        match self {
            AnyView::Full(view) => AnyView::Full(view.positions(t)),
            AnyView::Bf16(view) => AnyView::Bf16(view.positions(t)),
            AnyView::F16(view) => AnyView::F16(view.positions(t)),
        }
    }
}

impl<T: Element, const R: usize> fmt::Debug for AnyView<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            AnyView::Full(_) => core::any::type_name::<T>(),
            AnyView::Bf16(_) => "bf16",
            AnyView::F16(_) => "f16",
        };
        write!(f, "AnyView({name}, {:?})", self.shape())
    }
}
