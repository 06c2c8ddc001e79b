//! From and to faer's matrix views: the same memory under the same strides, nothing is copied.

use super::{MatMut, MatRef};
use core::ptr::NonNull;

impl<'a, T> From<::faer::MatRef<'a, T>> for MatRef<'a, T> {
    fn from(a: ::faer::MatRef<'a, T>) -> Self {
        let (shape, strides) = ([a.nrows(), a.ncols()], [a.row_stride(), a.col_stride()]);
        // SAFETY: faer's view borrows these elements for 'a.
        unsafe { MatRef::from_raw(a.as_ptr(), shape, strides) }
    }
}

impl<'a, T> From<::faer::MatMut<'a, T>> for MatMut<'a, T> {
    fn from(a: ::faer::MatMut<'a, T>) -> Self {
        let (shape, strides) = ([a.nrows(), a.ncols()], [a.row_stride(), a.col_stride()]);
        // SAFETY: faer's view borrows these elements, which are distinct, exclusively for 'a.
        unsafe { MatMut::from_raw(a.as_ptr_mut(), shape, strides) }
    }
}

impl<'a, T> From<MatRef<'a, T>> for ::faer::MatRef<'a, T> {
    fn from(a: MatRef<'a, T>) -> Self {
        let ([m, n], [rs, cs]) = (a.shape(), a.strides());
        // An empty view may point anywhere.
        let ptr = if a.is_empty() { NonNull::dangling().as_ptr() } else { a.as_ptr() };
        // SAFETY: the view borrows these elements for 'a, and the pointer is not null.
        unsafe { ::faer::MatRef::from_raw_parts(ptr, m, n, rs, cs) }
    }
}

impl<'a, T> From<MatMut<'a, T>> for ::faer::MatMut<'a, T> {
    fn from(mut a: MatMut<'a, T>) -> Self {
        let ([m, n], [rs, cs]) = (a.shape(), a.strides());
        let ptr = if a.is_empty() { NonNull::dangling().as_ptr() } else { a.as_mut_ptr() };
        // SAFETY: the view borrows these elements, which are distinct, exclusively for 'a, and the pointer is not null.
        unsafe { ::faer::MatMut::from_raw_parts_mut(ptr, m, n, rs, cs) }
    }
}
