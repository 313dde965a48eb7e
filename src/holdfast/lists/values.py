"""What counts as the same element: lists of any elements become labels 0, 1, 2, ... in order of appearance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import copysign
from typing import Any

import numpy as np
from jaxtyping import Int

from holdfast.errors import ArgumentError

Key = Callable[[Any], Any] | None
"""What decides whether elements are the same value; `None`: the elements themselves."""

PLAIN = (int, str, bytes, bool, type(None))
"""Types whose equal elements are alike."""


class Alphabet:
    """The distinct values of a list.

    Elements are the same value where they are equal (`==`), as with Python's own sets. Elements that cannot be hashed
    are compared one by one, which takes time that grows with the square of their number.

    Arguments:
        elements: the list.
        key: what decides whether elements are the same value, for example `operator.itemgetter("id")` for dicts, which
            cannot be hashed; `None`: the elements themselves. It is no key to sort by: elements with one key must be
            alike, for one stands for all of them.

    Errors:
        ArgumentError: an element does not equal itself (NaN), cannot be compared, has no key, equals one of another
            type (1, 1.0 and True are equal, and would be taken for one value), or equals one that looks otherwise, such
            as 0.0 and -0.0, or a record that is compared by one of its fields: an answer could not say which of them is
            meant.
    """

    def __init__(self, elements: Iterable[Any], key: Key = None) -> None:
        self._key = key
        self._label: dict[Any, int] = {}
        self._unhashable: list[tuple[Any, int]] = []
        self._kinds: list[type] = []
        values: list[Any] = []
        labels: list[int] = []
        for position, element in enumerate(elements):
            try:
                name = self._name(element)
            except Exception as error:
                got = f"{type(error).__name__}: {error} for {element!r} at position {position}"
                raise ArgumentError("key", "a function of every element", got) from error
            label = self._find(name)
            if label is None:
                if not _equal(name, name):
                    raise ArgumentError("xs", "elements that equal themselves", f"{name!r} at position {position}")
                label = len(values)
                self._remember(name, label)
                self._kinds.append(type(name))
                values.append(element)
            elif type(name) is not self._kinds[label]:
                first = self._kinds[label].__name__
                raise ArgumentError(
                    "xs",
                    "elements that differ if their types do, or a key",
                    f"{name!r} ({type(name).__name__}) at position {position}, which equals an earlier {first}",
                )
            elif not _alike(element, values[label]):
                got = f"{values[label]!r}, and {element!r} at position {position}"
                what = "equal elements that are alike" if key is None else "a key that tells elements apart"
                raise ArgumentError("xs" if key is None else "key", f"{what}, since one stands for all of them", got)
            labels.append(label)
        self.values: tuple[Any, ...] = tuple(values)
        """The values, by label."""
        self.labels: Int[np.ndarray, " n"] = np.array(labels, dtype=np.int64)
        """Label of each element of the list."""

    def encode(self, answer: Sequence[Any]) -> Int[np.ndarray, " m"]:
        """Labels of the elements of another list; -1 for what is no value of this one, whatever it is.

        Numbers may come in another type, as from an array; 0.0 does not stand for -0.0.
        """
        return np.array([self._label_of(element) for element in answer], dtype=np.int64)

    def decode(self, labels: Iterable[int]) -> list[Any]:
        """The values that labels stand for."""
        return [self.values[label] for label in labels]

    def _label_of(self, element: Any) -> int:
        try:
            label = self._find(self._name(element))
            if label is not None and self._key is None and isinstance(element, float) and element == 0:
                zero = self.values[label]
                label = None if isinstance(zero, float) and copysign(1, zero) != copysign(1, element) else label
        except Exception:  # it has no key, or cannot be compared
            return -1
        return -1 if label is None else label

    def _name(self, element: Any) -> Any:
        return element if self._key is None else self._key(element)

    def _find(self, name: Any) -> int | None:
        try:
            label = self._label.get(name)
            known: Iterable[tuple[Any, int]] = self._unhashable
        except TypeError:
            label, known = None, chain(self._unhashable, self._label.items())
        if label is not None:
            return label
        # What can be hashed may equal what cannot: a frozenset and a set.
        return next((label for other, label in known if _equal(other, name)), None)

    def _remember(self, name: Any, label: int) -> None:
        try:
            self._label[name] = label
        except TypeError:
            self._unhashable.append((name, label))


def _equal(x: Any, y: Any) -> bool:
    """Whether two names are equal; arrays and the like, whose comparison is no truth value, are refused."""
    try:
        return bool(x == y)
    except Exception:
        raise ArgumentError("xs", "elements that compare as true or false, or a key", type(y).__name__) from None


def as_given(xs: Sequence[Any], output: list[Any]) -> Any:
    """A list in the type of another one: text for text, a tuple for a tuple, else a list."""
    if isinstance(xs, str):
        return "".join(output)
    return tuple(output) if isinstance(xs, tuple) else output


def _alike(element: Any, first: Any) -> bool:
    """Whether one of two equal elements can stand for the other."""
    if element is first:
        return True
    if type(element) in PLAIN and type(first) in PLAIN:
        return bool(element == first)
    if isinstance(element, float) and isinstance(first, float):
        return copysign(1, element) == copysign(1, first)
    return repr(element) == repr(first)
