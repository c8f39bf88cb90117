//! A part of a matrix: some of its rows and columns. Parts that do not overlap are written at the same time.

use std::marker::PhantomData;

use super::row_functions;
use crate::epilogue::Epilogue;
use crate::isa::Isa;

/// Some rows and columns of a matrix that is stored row by row.
pub(crate) struct Columns<'a> {
    pointer: *mut f32,
    /// Distance between rows, in elements.
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a part has its elements for itself, as `&mut [f32]` has.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All rows and columns of a matrix.
    pub(crate) fn new(matrix: &'a mut [f32], columns: usize) -> Self {
        let rows = matrix.len().checked_div(columns).unwrap_or(0);
        Self { pointer: matrix.as_mut_ptr(), stride: columns, rows, columns, matrix: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Divides it into parts of `width` columns. The last one has what is left.
    pub(crate) fn divide(self, width: usize) -> Vec<Self> {
        let part = |begin: usize| Self {
            // Not `add`: a part without rows may begin behind the matrix, and then nothing is accessed.
            pointer: self.pointer.wrapping_add(begin),
            columns: width.min(self.columns - begin),
            ..self.again()
        };
        // The parts have different columns, and `self`, which has all of them, ends here.
        (0..self.columns).step_by(width.max(1)).map(part).collect()
    }

    /// Divides it in two at a column.
    pub(crate) fn split_at(self, column: usize) -> (Self, Self) {
        assert!(column <= self.columns, "the column is outside of the matrix");
        let rest = Self {
            // Not `add`: an empty part may begin behind the matrix.
            pointer: self.pointer.wrapping_add(column),
            columns: self.columns - column,
            ..self.again()
        };
        // The parts have different columns, and `self`, which has all of them, ends here.
        (Self { columns: column, ..self }, rest)
    }

    /// Some rows and columns of it, for as long as this is borrowed.
    pub(crate) fn part(&mut self, row: usize, column: usize, rows: usize, columns: usize) -> Columns<'_> {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "the part is outside of the matrix");
        // Not `add`: an empty part may begin behind the matrix.
        let pointer = self.pointer.wrapping_add(row * self.stride + column);
        Columns { pointer, rows, columns, ..self.again() }
    }

    fn again(&self) -> Self {
        Self { matrix: PhantomData, ..*self }
    }

    /// The elements of a row.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "the row is outside of the matrix");
        // SAFETY: the row is one of this part.
        let first = unsafe { self.pointer.add(row * self.stride) };
        // SAFETY: the elements are those of this part, which no other reference can access: parts are made of a
        // `&mut [f32]`, by division into parts without common elements, or while the larger part is borrowed.
        unsafe { std::slice::from_raw_parts_mut(first, self.columns) }
    }

    /// The first element, and the distance between rows, for a kernel that writes the elements of all rows.
    pub(super) fn raw(&mut self) -> (*mut f32, usize) {
        (self.pointer, self.stride)
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Applies an epilogue. The first element is at `row` and `column` of a result with `n` columns.
    pub(crate) fn finish(&mut self, isa: Isa, epilogue: &Epilogue<'_>, row: usize, column: usize, n: usize) {
        if epilogue.is_empty() {
            return;
        }
        row_functions::finish(isa, epilogue, self, row, column, n);
    }
}
