"""What a fleet file gives, before it is a unit: whether each parameter is the number, the yes or no or the curve that it should be.

Whether parameters fit together is checked by the classes in `fleet`.
"""

from __future__ import annotations

from dataclasses import fields
from numbers import Real
from typing import Any

import numpy as np

from lakehouse.errors import DispatchError

# What no quantity reaches: beyond it, differences mean nothing.
LARGEST = 1e15


def refuse(owner: str, problem: str, remedy: str) -> None:
    """Raises what is wrong with a unit, and what to do."""
    raise DispatchError(f"{owner}: {problem}", remedy)


# The only parameters that may be infinite, for no limit.
MAY_BE_ENDLESS = ("ramp_up_mw_per_hour", "ramp_down_mw_per_hour", "forward_mw", "backward_mw")


def is_number(value: Any, endless: bool = False) -> bool:
    """Whether a value is a number that a quantity may have."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return bool(-LARGEST <= value <= LARGEST or (endless and value == np.inf))  # type: ignore[operator]


def check_kinds(owner: str, item: Any) -> None:
    """Whether every parameter that is a number or a yes or no is one; fleets come from files in which anything may stand."""
    for one in fields(item):
        value = getattr(item, one.name)
        if one.type == "bool" and not (isinstance(value, bool | np.bool_) or (isinstance(value, Real) and value in (0, 1))):
            refuse(owner, f"expected {one.name} as true or false, found {shown(value)}", f"Correct {one.name} of {owner}.")
        needed = one.type == "float" or (one.type == "float | None" and value is not None)
        if needed and not is_number(value, one.name in MAY_BE_ENDLESS):
            refuse(owner, f"expected {one.name} as a finite number, found {shown(value)}", f"Correct {one.name} of {owner}.")


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def points_of(owner: str, what: str, points: Any) -> np.ndarray:
    """Pairs of finite numbers as an array, shape (points, 2)."""
    try:
        pairs = [(mw, eur) for mw, eur in points]
    except (TypeError, ValueError):
        pairs = [(None, None)]
    if not all(is_number(x) for pair in pairs for x in pair):
        refuse(owner, f"expected {what} as pairs of finite numbers, found {shown(points)}", f"Correct {what} of {owner}.")
    return np.asarray(pairs, float).reshape(-1, 2)


def check_not_negative(owner: str, **values: float) -> None:
    """Raises where a value is below 0."""
    for name, value in values.items():
        if not value >= 0.0:
            refuse(owner, f"expected {name} of at least 0, found {value:g}", f"Correct {name} of {owner}.")
