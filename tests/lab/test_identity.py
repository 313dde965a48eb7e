"""The key of a trial tells it from all others, types included."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.lab import Config, Trial
from holdfast.lab.identity import identity, key_of


@dataclass(frozen=True)
class Adam:
    rate: float = 0.1


@dataclass(frozen=True)
class Sgd:
    rate: float = 0.1


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    ONE = 1


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    value: Any = 0


def key(value: Any = 0, **labels: Any) -> str:
    return key_of(identity("toy", Trial(0, Settings(value=value), labels), {__name__}))


ALIKE = [
    [0, 0.0, -0.0, False, "0", None, "", [], (), {}],
    [1, 1.0, True, "1", Size.ONE, np.float64(1.0), [1], (1,)],
    [float("nan"), float("inf"), "nan", "inf", float("-inf")],
    [Adam(), Sgd(), {"rate": 0.1}, [0.1], OrderedDict(rate=0.1)],
    [Colour.RED, "red", "RED", Path("red")],
    [{"type": "Adam", "value": {"rate": 0.1}}, Adam()],
    [[Adam()], [Sgd()], (Adam(),)],
    [{1: 2}, {"1": 2}],
]


@pytest.mark.parametrize("values", ALIKE, ids=repr)
def test_values_that_look_alike_are_told_apart(values: list[Any]) -> None:
    assert len({key(value) for value in values}) == len(values)
    assert [key(value) for value in values] == [key(value) for value in values]


def test_labels_and_variables_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({key(n=1), key(n=1.0), key(n=True), key(n="1"), key(m=1)}) == 5
    before = key()
    monkeypatch.setenv("HOLDFAST_KERNELS", "reference")
    assert key() != before
    monkeypatch.delenv("HOLDFAST_KERNELS")
    monkeypatch.setenv("OTHER", "1")
    assert key() == before


def test_classes_of_the_study_go_by_their_names_and_others_by_their_modules_too() -> None:
    trial = Trial(0, Settings(value=Adam()))
    assert identity("toy", trial, {__name__})["config_type"] == "Settings"
    assert identity("toy", trial)["config"]["value"]["type"] == f"{__name__}.Adam"


def test_how_many_seeds_a_study_has_is_no_part_of_the_key() -> None:
    more = Trial(0, Settings(seeds=9, first_seed=3))
    assert identity("toy", more) == identity("toy", Trial(0, Settings(seeds=2)))


@dataclass(frozen=True)
class Nested:
    inner: Adam | Sgd = field(default_factory=Adam)


def test_types_count_at_any_depth() -> None:
    assert key(Nested()) != key(Nested(Sgd()))
