//! A matrix cut into rectangles that threads write at the same time.
#![allow(unsafe_code)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A rectangle of a row-major matrix, to be written by one task.
#[derive(Debug)]
pub struct Rectangle<'a, T> {
    /// The first element.
    data: *mut T,
    /// Elements from one row of the matrix to the next.
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a rectangle is the only way to its elements for 'a, as `&mut [T]` is.
unsafe impl<T: Send> Send for Rectangle<'_, T> {}

impl<T> Rectangle<'_, T> {
    /// Which rows of the matrix it covers.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Which columns of the matrix it covers.
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// Its part of row `i` of the matrix.
    ///
    /// # Panics
    /// If it does not cover that row.
    #[inline(always)]
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(self.rows.contains(&i), "row {i} of a rectangle of rows {:?}", self.rows);
        // SAFETY: by construction `rows` and `cols` lie in the matrix, no other rectangle covers them, and the result
        // borrows this one.
        unsafe {
            let start = self.data.add((i - self.rows.start) * self.stride);
            std::slice::from_raw_parts_mut(start, self.cols.len())
        }
    }
}

impl<T> Rectangle<'_, T> {
    /// Asks for the cache lines of `cols` of row `i` of the matrix, which are about to be written.
    ///
    /// # Panics
    /// If it does not cover them.
    #[inline(always)]
    pub fn prefetch(&mut self, i: usize, cols: Range<usize>) {
        let first = self.cols.start;
        let part = &mut self.row_mut(i)[cols.start - first..cols.end - first];
        for line in part.chunks(LINE / size_of::<T>()) {
            // SAFETY: a hint; it reads and writes nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

/// The rectangles of a part of a matrix, rows of `height` and columns of `width` at a time; down first, then right.
#[derive(Debug)]
pub struct Rectangles<'a, T> {
    // One pointer, taken once: each way to it through the slice would end the rectangles that are out.
    data: *mut T,
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    height: usize,
    width: usize,
    next: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it holds the matrix as `&mut [T]` would.
unsafe impl<T: Send> Send for Rectangles<'_, T> {}

impl<'a, T> Rectangles<'a, T> {
    /// Cuts `rows` and `cols` of a matrix with rows of `stride` elements; what is left at the ends makes smaller
    /// rectangles.
    ///
    /// # Panics
    /// If the part does not lie in the matrix, or a height or width is 0.
    pub fn new(
        matrix: &'a mut [T],
        stride: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        [height, width]: [usize; 2],
    ) -> Self {
        assert!(cols.start <= cols.end && cols.end <= stride, "columns {cols:?} of {stride}");
        let all = matrix.len().checked_div(stride).unwrap_or(rows.end);
        assert!(rows.start <= rows.end && rows.end <= all, "rows {rows:?} of {all}");
        assert!(height > 0 && width > 0, "rectangles of {height} × {width}");
        Self { data: matrix.as_mut_ptr(), stride, rows, cols, height, width, next: 0, lifetime: PhantomData }
    }

    /// How many are stacked above each other.
    fn stacked(&self) -> usize {
        self.rows.len().div_ceil(self.height)
    }
}

impl<'a, T> Iterator for Rectangles<'a, T> {
    type Item = Rectangle<'a, T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.len() == 0 {
            return None;
        }
        let (down, right) = (self.next % self.stacked(), self.next / self.stacked());
        self.next += 1;
        let top = self.rows.start + down * self.height;
        let left = self.cols.start + right * self.width;
        let rows = top..self.rows.end.min(top + self.height);
        let cols = left..self.cols.end.min(left + self.width);
        // SAFETY: the first element lies in the matrix, as `new` has checked.
        let data = unsafe { self.data.add(top * self.stride + left) };
        Some(Rectangle { data, stride: self.stride, rows, cols, lifetime: PhantomData })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.stacked() * self.cols.len().div_ceil(self.width) - self.next;
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Rectangles<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_cover_their_part_once_and_nothing_else() {
        let mut matrix = vec![0; 7 * 10];
        let rectangles = Rectangles::new(&mut matrix, 10, 1..6, 2..9, [2, 3]);
        assert_eq!(rectangles.len(), 9);
        for (i, mut rectangle) in rectangles.collect::<Vec<_>>().into_iter().enumerate() {
            for row in rectangle.rows() {
                rectangle.row_mut(row).iter_mut().for_each(|x| *x += i + 1);
            }
        }
        let row = |a: usize, b: usize, c: usize| vec![0, 0, a, a, a, b, b, b, c, 0];
        let expected = [vec![0; 10], row(1, 4, 7), row(1, 4, 7), row(2, 5, 8), row(2, 5, 8), row(3, 6, 9)];
        assert_eq!(matrix, [expected.concat(), vec![0; 10]].concat());
    }

    #[test]
    fn nothing_is_cut_from_nothing() {
        assert_eq!(Rectangles::new(&mut [0; 0], 0, 0..3, 0..0, [1, 1]).count(), 0);
        assert_eq!(Rectangles::new(&mut [0; 0], 4, 0..0, 0..4, [1, 1]).count(), 0);
    }

    #[test]
    #[should_panic(expected = "columns")]
    fn a_part_lies_in_the_matrix() {
        Rectangles::new(&mut [0; 12], 4, 0..3, 2..5, [1, 1]);
    }

    #[test]
    #[should_panic(expected = "row 2 of a rectangle")]
    fn a_rectangle_gives_its_own_rows() {
        Rectangles::new(&mut [0; 12], 4, 0..3, 0..4, [2, 4]).next().unwrap().row_mut(2);
    }
}
