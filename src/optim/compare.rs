//! How alike two updates are (Benzing 2022, Fig. 3B).

use crate::dense::{dot, temporary, temporary_scratch};
use crate::error::{check_parameter, check_shape};
use crate::product::{product, product_scratch};
use crate::{Blend, Element, Error, MatMut, MatRef, MemBuffer, MemStack, Par};

/// The Euclidean cosine `<D, D'> / (|D| |D'|)` of two updates of one shape; NaN if one is zero.
///
/// # Errors
/// [`Error::Shape`].
pub fn cosine<T: Element>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Result<T, Error> {
    check_shape("b", &a.shape(), &b.shape())?;
    Ok(dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()))
}

/// The cosine in FOOF's metric, `<D, D'> = tr(D (scale A + damping I) D'^T)`, for updates `[o, i]` and the lower triangle of `factor`
/// `[i, i]`; NaN if one is zero. Allocates.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Parameter`] for damping that is negative or not finite.
pub fn metric_cosine<T: Element>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    factor: MatRef<'_, T>,
    scale: T,
    damping: T,
    par: Par,
) -> Result<T, Error> {
    blocks_cosine(a, b, core::iter::once((factor, scale)), damping, par)
}

/// [`metric_cosine`] of updates that are blocks of rows of one size, each with a factor and its scale.
pub(super) fn blocks_cosine<'f, T: Element>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    blocks: impl ExactSizeIterator<Item = (MatRef<'f, T>, T)>,
    damping: T,
    par: Par,
) -> Result<T, Error> {
    check_shape("b", &a.shape(), &b.shape())?;
    let valid = damping >= T::zero() && damping.is_finite();
    check_parameter("damping", damping.to_f64(), valid, "a finite number, not negative")?;
    let rows = a.rows() / blocks.len().max(1);
    let mut sums = [T::zero(); 3];
    for (block, (factor, scale)) in blocks.enumerate() {
        let [a, b] = [a, b].map(|d| d.row_range(block * rows..(block + 1) * rows));
        let products = metric_products(a, b, factor, scale, damping, par)?;
        sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }
    let [aa, bb, ab] = sums;
    Ok(ab / (aa.sqrt() * bb.sqrt()))
}

/// `<D, D>`, `<D', D'>` and `<D, D'>` in the metric `scale A + damping I`.
fn metric_products<T: Element>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    factor: MatRef<'_, T>,
    scale: T,
    damping: T,
    par: Par,
) -> Result<[T; 3], Error> {
    let [o, i] = a.shape();
    check_shape("factor", &[i, i], &factor.shape())?;
    let req = [i * i, o * i, o * i].map(temporary_scratch::<T>);
    let mut memory = MemBuffer::new(crate::StackReq::all_of(&req).and(product_scratch::<T>(o, i, i, par)));
    let (mut metric, stack) = temporary::<T>(MemStack::new(&mut memory), i * i);
    let mut metric = MatMut::new(&mut metric, [i, i])?;
    for row in 0..i {
        for col in 0..i {
            let value = scale * factor.at([row.max(col), row.min(col)]);
            metric.set([row, col], if row == col { value + damping } else { value });
        }
    }
    let (mut am, stack) = temporary::<T>(stack, o * i);
    let (mut bm, stack) = temporary::<T>(stack, o * i);
    let (mut am, mut bm) = (MatMut::new(&mut am, [o, i])?, MatMut::new(&mut bm, [o, i])?);
    product(am.rb_mut(), Blend::set(T::one()), a, metric.as_ref(), par, stack)?;
    product(bm.rb_mut(), Blend::set(T::one()), b, metric.as_ref(), par, stack)?;
    Ok([dot(am.as_ref(), a), dot(bm.as_ref(), b), dot(am.as_ref(), b)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() -> Result<(), Error> {
        let (a, b, identity) = ([3.0, 4.0], [4.0, 3.0], [1.0, f64::NAN, 0.0, 1.0]);
        let (a, b) = (MatRef::new(&a, [1, 2])?, MatRef::new(&b, [1, 2])?);
        assert_eq!(cosine(a, b)?, 24.0 / 25.0);
        let metric = MatRef::new(&identity, [2, 2])?;
        // The metric is 3 + 1 = 4 times the identity.
        assert_eq!(metric_cosine(a, b, metric, 3.0, 1.0, Par::seq())?, 24.0 / 25.0);
        Ok(())
    }
}
