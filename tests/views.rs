//! Views from and to faer's and ndarray's: the same elements at the same addresses, whatever the strides.

use foof::{MatMut, MatRef};
use foof_oracle::Random;
use foof_oracle::layout::{Buffer, Layout};

/// Shapes with single and no rows or columns.
const SHAPES: [[usize; 2]; 7] = [[3, 5], [4, 4], [1, 6], [6, 1], [1, 1], [0, 3], [3, 0]];

fn buffers() -> Vec<(Buffer<f32, 2>, String)> {
    let mut random = Random::new(1);
    let mut all = Vec::new();
    for shape @ [m, n] in SHAPES {
        for layout in Layout::ALL {
            all.push((Buffer::matrix(&random.integers(m, n, 99), layout), format!("{shape:?} {layout:?}")));
        }
    }
    all
}

/// Shape, strides and address of each element.
#[track_caller]
fn assert_same_places(got: MatRef<'_, f32>, want: MatRef<'_, f32>, what: &str) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    if want.is_empty() {
        return;
    }
    assert_eq!(got.as_ptr(), want.as_ptr(), "{what}: not the same memory");
    assert_eq!(got.strides(), want.strides(), "{what}");
}

#[test]
fn faer_reads_the_same_elements() {
    for (buffer, what) in buffers() {
        let ours = buffer.view();
        let theirs: faer::MatRef<'_, f32> = ours.into();
        assert_eq!([theirs.nrows(), theirs.ncols()], ours.shape(), "{what}");
        for i in 0..ours.rows() {
            for j in 0..ours.cols() {
                assert_eq!(theirs[(i, j)], ours.at([i, j]), "{what}: ({i}, {j})");
            }
        }
        assert_same_places(theirs.into(), ours, &what);
        // What faer makes of a view is a view like any other.
        let (flipped, transposed) = (theirs.reverse_rows(), theirs.transpose());
        let (flipped, transposed) = (MatRef::from(flipped), MatRef::from(transposed));
        for i in 0..ours.rows() {
            for j in 0..ours.cols() {
                assert_eq!(flipped.at([ours.rows() - 1 - i, j]), ours.at([i, j]), "{what}: ({i}, {j}) flipped");
                assert_eq!(transposed.at([j, i]), ours.at([i, j]), "{what}: ({i}, {j}) transposed");
            }
        }
    }
}

#[test]
fn faer_writes_the_same_elements_and_no_others() {
    for (mut buffer, what) in buffers() {
        let [m, n] = buffer.shape;
        let mut theirs: faer::MatMut<'_, f32> = buffer.view_mut().into();
        for i in 0..m {
            for j in 0..n {
                theirs[(i, j)] = (10 * i + j) as f32;
            }
        }
        let mut ours: MatMut<'_, f32> = theirs.into();
        for i in 0..m {
            for j in 0..n {
                assert_eq!(ours.as_ref().at([i, j]), (10 * i + j) as f32, "{what}: ({i}, {j})");
                ours.set([i, j], -1.0);
            }
        }
        assert!(buffer.elements().iter().all(|&x| x == -1.0), "{what}");
        buffer.assert_margins_intact(&what);
    }
}

#[cfg(feature = "ndarray")]
mod ndarrays {
    use super::*;
    use foof::{View, ViewMut};
    use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut4, Axis};

    #[test]
    fn ndarray_reads_the_same_elements() {
        for (buffer, what) in buffers() {
            let ours = buffer.view();
            let theirs: ArrayView2<'_, f32> = ours.into();
            assert_eq!(theirs.shape(), ours.shape(), "{what}");
            for ((i, j), &x) in theirs.indexed_iter() {
                assert_eq!(x, ours.at([i, j]), "{what}: ({i}, {j})");
            }
            let back: MatRef<'_, f32> = theirs.into();
            assert_eq!(back.shape(), ours.shape(), "{what}");
            if !ours.is_empty() {
                assert_eq!(back.as_ptr(), ours.as_ptr(), "{what}: not the same memory");
            }
            let mut flipped = theirs;
            flipped.invert_axis(Axis(0));
            let flipped: MatRef<'_, f32> = flipped.into();
            for ((i, j), &x) in theirs.indexed_iter() {
                assert_eq!(back.at([i, j]), x, "{what}: ({i}, {j})");
                assert_eq!(flipped.at([ours.rows() - 1 - i, j]), x, "{what}: ({i}, {j}) flipped");
            }
        }
    }

    #[test]
    fn ndarray_writes_the_same_elements_and_no_others() {
        for (mut buffer, what) in buffers() {
            let mut theirs: ArrayViewMut2<'_, f32> = buffer.view_mut().into();
            theirs.indexed_iter_mut().for_each(|((i, j), x)| *x = (10 * i + j) as f32);
            let mut ours: MatMut<'_, f32> = theirs.into();
            for i in 0..ours.rows() {
                for j in 0..ours.cols() {
                    assert_eq!(ours.as_ref().at([i, j]), (10 * i + j) as f32, "{what}: ({i}, {j})");
                    ours.set([i, j], -1.0);
                }
            }
            assert!(buffer.elements().iter().all(|&x| x == -1.0), "{what}");
            buffer.assert_margins_intact(&what);
        }
    }

    #[test]
    fn tensors_of_any_rank() {
        let values: Vec<f64> = (0..60).map(f64::from).collect();
        for layout in Layout::ALL {
            let buffer = Buffer::<f64, 3>::embed(&values, [3, 4, 5], layout);
            let theirs: ArrayView3<'_, f64> = buffer.view().into();
            assert!(theirs.iter().eq(&values), "{layout:?}");
            let back: View<'_, f64, 3> = theirs.into();
            assert_eq!((back.shape(), back.strides()), (buffer.shape, buffer.strides), "{layout:?}");
            let mut buffer = Buffer::<f64, 4>::embed(&values, [3, 2, 2, 5], layout);
            let mut theirs: ArrayViewMut4<'_, f64> = buffer.view_mut().into();
            theirs.mapv_inplace(|x| -x);
            let back: ViewMut<'_, f64, 4> = theirs.into();
            assert_eq!(back.as_ref().at([2, 1, 0, 3]), -53.0, "{layout:?}");
            assert!(buffer.elements().iter().zip(&values).all(|(a, b)| *a == -b), "{layout:?}");
            buffer.assert_margins_intact("negated");
        }
    }
}
