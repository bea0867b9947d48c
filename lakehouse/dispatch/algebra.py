"""Linear algebra written as on paper: named variables and named constraint blocks over index arrays.

An `Expression` of shape S is, for each of its cells, a short list of (column, coefficient) pairs and a constant. Arithmetic on whole
arrays builds whole blocks of rows, and `LinearModel` hands them to HiGHS as one sparse matrix without ever making a Python object per
row. The last axis is time by convention. What the equations mean lives in `formulation`; how they are solved in `solver`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
NO_COLUMN = -1


class Expression:
    """A block of linear expressions: `sum(coefficient * x[column]) + constant`, cell by cell.

    Args:
        columns: integer array of shape (*shape, k); `NO_COLUMN` marks an absent term.
        coefficients: float array broadcastable to `columns`.
        constant: float array broadcastable to `shape`.
    """

    __slots__ = ("coefficients", "columns", "constant")
    __array_ufunc__ = None  # so that `array * expression` comes to `__rmul__`

    def __init__(self, columns: Array, coefficients: Array | float = 1.0, constant: Array | float = 0.0) -> None:
        self.columns = columns
        self.coefficients = np.broadcast_to(np.asarray(coefficients, float), columns.shape)
        self.constant = np.broadcast_to(np.asarray(constant, float), columns.shape[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the block, without the axis of terms."""
        return self.columns.shape[:-1]

    def __add__(self, other: Expression | Array | float) -> Expression:
        if not isinstance(other, Expression):
            other = np.asarray(other, float)
            shape = np.broadcast_shapes(self.shape, other.shape)
            wide = self.broadcast_to(shape)
            return Expression(wide.columns, wide.coefficients, wide.constant + other)
        shape = np.broadcast_shapes(self.shape, other.shape)
        a, b = self.broadcast_to(shape), other.broadcast_to(shape)
        return Expression(
            np.concatenate([a.columns, b.columns], axis=-1),
            np.concatenate([a.coefficients, b.coefficients], axis=-1),
            a.constant + b.constant,
        )

    __radd__ = __add__

    def __neg__(self) -> Expression:
        return self * -1.0

    def __sub__(self, other: Expression | Array | float) -> Expression:
        return self + (-other if isinstance(other, Expression) else -np.asarray(other, float))

    def __rsub__(self, other: Array | float) -> Expression:
        return -self + other

    def __mul__(self, factor: Array | float) -> Expression:
        factor = np.asarray(factor, float)
        wide = self.broadcast_to(np.broadcast_shapes(self.shape, factor.shape))
        return Expression(wide.columns, wide.coefficients * factor[..., None], wide.constant * factor)

    __rmul__ = __mul__

    def __le__(self, other: Expression | Array | float) -> Relation:  # type: ignore[misc]
        return _relation(self - other, lower=-np.inf, upper=0.0)

    def __ge__(self, other: Expression | Array | float) -> Relation:  # type: ignore[misc]
        return _relation(self - other, lower=0.0, upper=np.inf)

    def equals(self, other: Expression | Array | float) -> Relation:
        """The relation `self == other`; a method, so that `==` keeps its meaning."""
        return _relation(self - other, lower=0.0, upper=0.0)

    def __getitem__(self, key: Any) -> Expression:
        return Expression(self.columns[key], self.coefficients[key], self.constant[key])

    def broadcast_to(self, shape: tuple[int, ...]) -> Expression:
        """The same block repeated to a larger shape."""
        if shape == self.shape:
            return self
        terms = self.columns.shape[-1]
        return Expression(
            np.broadcast_to(self.columns, (*shape, terms)),
            np.broadcast_to(self.coefficients, (*shape, terms)),
            np.broadcast_to(self.constant, shape),
        )

    def sum(self, axis: int = 0) -> Expression:
        """Sum over an axis of the block."""

        def fold(terms: Array) -> Array:
            moved = np.moveaxis(terms, axis, -2)
            return moved.reshape(*moved.shape[:-2], -1)

        return Expression(fold(self.columns), fold(self.coefficients), self.constant.sum(axis=axis))

    def earlier(self, intervals: int = 1, before: Array | float = 0.0) -> Expression:
        """x[t - intervals]; `before` is the known value where that lies before the horizon."""
        return self._shifted(intervals, before)

    def later(self, intervals: int = 1) -> Expression:
        """x[t + intervals]; zero beyond the horizon."""
        return self._shifted(-intervals, 0.0)

    def _shifted(self, by: int, outside: Array | float) -> Expression:
        horizon = self.shape[-1]
        source = np.arange(horizon) - by
        inside = (source >= 0) & (source < horizon)
        at = np.clip(source, 0, horizon - 1)
        outside_block = np.broadcast_to(np.asarray(outside, float).reshape(*np.shape(outside), 1), self.shape)
        return Expression(
            np.where(inside[:, None], self.columns[..., at, :], NO_COLUMN),
            self.coefficients[..., at, :],
            np.where(inside, self.constant[..., at], outside_block),
        )

    def trailing(self, start: int, stop: int) -> Expression:
        """sum of x[t - i] for i in start..stop-1; terms outside the horizon count as zero."""
        horizon = self.shape[-1]
        source = np.arange(horizon)[:, None] - np.arange(start, min(stop, horizon + start))[None, :]
        inside = (source >= 0) & (source < horizon)
        at = np.clip(source, 0, horizon - 1)
        if self.columns.shape[-1] != 1:
            raise ValueError("trailing sums are taken of single variables")
        return Expression(np.where(inside, self.columns[..., 0][..., at], NO_COLUMN), self.coefficients[..., 0][..., at])

    def sum_by(self, owner: Array, groups: int) -> Expression:
        """Sums the rows of the first axis that belong to the same owner: shape (groups, *rest).

        Args:
            owner: group number of each row of the first axis, shape (rows,).
            groups: how many groups there are; a group without rows is an empty sum.
        """
        owner = np.asarray(owner, int)
        rows, terms = self.columns.shape[0], self.columns.shape[-1]
        order = np.argsort(owner, kind="stable")
        sizes = np.bincount(owner, minlength=groups)
        widest = max(int(sizes.max(initial=0)), 1)
        slot = np.empty(rows, int)
        slot[order] = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rest = self.columns.shape[1:-1]
        columns = np.full((groups, widest, *rest, terms), NO_COLUMN)
        coefficients = np.zeros((groups, widest, *rest, terms))
        constant = np.zeros((groups, *rest))
        columns[owner, slot] = self.columns
        coefficients[owner, slot] = self.coefficients
        np.add.at(constant, owner, self.constant)
        return Expression(columns, coefficients, 0.0).sum(axis=1) + constant


@dataclass(frozen=True)
class Relation:
    """`lower <= expression <= upper`, the constant already moved to the bounds."""

    expression: Expression
    lower: Array
    upper: Array


def _relation(difference: Expression, lower: float, upper: float) -> Relation:
    return Relation(difference, lower - difference.constant, upper - difference.constant)


def empty(shape: tuple[int, ...]) -> Expression:
    """An expression without terms: zero."""
    return Expression(np.full((*shape, 1), NO_COLUMN), 0.0)


@dataclass(frozen=True)
class SparseProgram:
    """A mixed-integer linear programme as HiGHS takes it: minimise, rows compressed row-wise."""

    cost: Array
    lower: Array
    upper: Array
    is_integer: Array
    row_lower: Array
    row_upper: Array
    row_start: Array
    row_columns: Array
    row_values: Array

    @property
    def n_columns(self) -> int:
        """Number of variables."""
        return len(self.cost)

    @property
    def n_rows(self) -> int:
        """Number of constraints."""
        return len(self.row_lower)


class LinearModel:
    """Named variables and constraint blocks on their way to HiGHS."""

    def __init__(self) -> None:
        self.variables: dict[str, Array] = {}
        self.rows: dict[str, Array] = {}
        self._columns: list[tuple[Array, Array, Array, Array]] = []
        self._blocks: list[tuple[Array, Array, Array, Array, Array]] = []
        self._n_columns = 0
        self._n_rows = 0

    def variable(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        lower: Array | float = 0.0,
        upper: Array | float = np.inf,
        cost: Array | float = 0.0,
        integer: bool | Array = False,
    ) -> Expression:
        """Adds a block of variables and returns it as an expression of the same shape.

        Bounds, cost (EUR per unit of the variable) and integrality broadcast from the leading axes only if given with full rank.
        """
        size = int(np.prod(shape))
        index = np.arange(self._n_columns, self._n_columns + size).reshape(shape)
        self._n_columns += size
        self.variables[name] = index
        parts = (
            np.broadcast_to(np.asarray(x, kind), shape).ravel()
            for x, kind in ((lower, float), (upper, float), (cost, float), (integer, bool))
        )
        self._columns.append(tuple(parts))  # type: ignore[arg-type]
        return Expression(index[..., None])

    def subject_to(self, name: str, relation: Relation, where: Array | None = None) -> None:
        """Adds a block of rows, or only its cells where `where` is true."""
        expression, lower, upper = relation.expression, relation.lower, relation.upper
        row_of = np.full(expression.shape, NO_COLUMN)
        keep = np.ones(expression.shape, bool) if where is None else np.broadcast_to(where, expression.shape)
        columns, coefficients = expression.columns[keep], expression.coefficients[keep]
        present = (columns != NO_COLUMN) & (coefficients != 0.0)
        row_of[keep] = self._n_rows + np.arange(len(columns))
        self._n_rows += len(columns)
        self.rows[name] = row_of
        self._blocks.append((columns[present], coefficients[present], present.sum(axis=1), lower[keep], upper[keep]))

    def program(self) -> SparseProgram:
        """Everything added so far as one sparse programme."""
        lower, upper, cost, integer = (np.concatenate(parts) for parts in zip(*self._columns, strict=True))
        columns, values, counts, row_lower, row_upper = (np.concatenate(parts) for parts in zip(*self._blocks, strict=True))
        start = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=start[1:])
        return SparseProgram(cost, lower, upper, integer, row_lower, row_upper, start, columns.astype(np.int32), values)


def highs_with(program: SparseProgram, **options: Any) -> Any:
    """A silent `highspy.Highs` that holds the programme, with the options set."""
    import highspy

    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(
        program.n_columns,
        program.n_rows,
        len(program.row_values),
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        program.cost,
        program.lower,
        program.upper,
        program.row_lower,
        program.row_upper,
        program.row_start[:-1],
        program.row_columns,
        program.row_values,
        program.is_integer.astype(np.int32),
    )
    return highs
