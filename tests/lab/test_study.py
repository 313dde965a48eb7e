from __future__ import annotations

import dataclasses
import math
import pickle
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction

import numpy as np
import pytest

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.lab import Claim, Config, Figure, Outcome, Paper, Study, Trial, unusable
from holdfast.lab.trial import as_outcome


@dataclass(frozen=True)
class Settings(Config):
    lr: float = 0.1


@dataclass
class NotAConfig:
    seeds: int = 3


def trials(config):
    return [Trial(seed, config) for seed in config.seed_range]


def run(trial):
    return {"x": 1.0}


def claim(name):
    return Claim(name, "text", lambda results: unusable("no"))


def figure(name):
    return Figure(name, "caption", lambda results, axes: [])


def make(**changes) -> Study:
    arguments = {
        "name": "toy",
        "question": "?",
        "scales": {"quick": Settings()},
        "trials": trials,
        "run": run,
        "claims": [],
    }
    return Study(**{**arguments, **changes})


# Validation.


@pytest.mark.parametrize("name", ["toy", "a", "0", "two-words", "two_words", "v2"])
def test_names_of_studies(name):
    assert make(name=name).name == name


@pytest.mark.parametrize("name", ["", "Toy", "two words", "-x", "_x", "a/b", "../x", "toy.py", "ü", "toy\n"])
def test_malformed_names_of_studies(name):
    with pytest.raises(ArgumentError, match=r"^Study\.name: expected lower-case"):
        make(name=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": {}}, r"^Study\.scales: expected a configuration for at least one of"),
        ({"scales": {"huge": Settings()}}, r"^Study\.scales: expected names among quick, laptop, gpu, paper, got huge"),
        ({"scales": {"quick": NotAConfig()}}, r"^Study\.scales\['quick'\]: expected an instance of a subclass"),
        ({"scales": {"quick": Settings}}, r"^Study\.scales\['quick'\]"),
        ({"claims": [claim("a"), claim("b"), claim("a")]}, r"^Study\.claims: expected unique names, got 'a' more"),
        ({"figures": [figure("f"), figure("f")]}, r"^Study\.figures: expected unique names, got 'f' more"),
    ],
)
def test_malformed_studies(changes, message):
    with pytest.raises(ArgumentError, match=message):
        make(**changes)


def test_a_claim_and_a_figure_may_share_a_name():
    assert make(claims=[claim("a")], figures=[figure("a")])


def test_a_configuration_that_forgot_the_decorator_is_refused():
    class Forgetful(Config):
        lr: float = 0.1

    with pytest.raises(ArgumentError, match=r"Study\.scales\['quick'\]: expected .*@dataclass"):
        make(scales={"quick": Forgetful()})
    with pytest.raises(ArgumentError, match=r"Trial\.config: expected .*@dataclass"):
        Trial(0, Forgetful())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": ()}, r"^Trial\.seed: expected at least one seed"),
        ({"seed": [0, 1]}, r"^Trial\.seed: expected a whole number or a tuple"),
        ({"seed": "0"}, r"^Trial\.seed"),
        ({"seed": 0.5}, r"^Trial\.seed"),
        ({"seed": (0, "1")}, r"^Trial\.seed"),
        ({"seed": None}, r"^Trial\.seed"),
        ({"config": {"lr": 1}}, r"^Trial\.config: expected .*dataclass.*got dict"),
        ({"config": Settings}, r"^Trial\.config: expected .*dataclass.*got type"),
        ({"gpu": -0.1}, r"^Trial\.gpu: expected a share between 0 and 1, got -0\.1"),
        ({"gpu": 2}, r"^Trial\.gpu"),
        ({"gpu": math.nan}, r"^Trial\.gpu"),
        ({"cost": 0}, r"^Trial\.cost: expected a positive number, got 0"),
        ({"cost": math.nan}, r"^Trial\.cost"),
    ],
)
def test_malformed_trials(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Trial(**{"seed": 0, "config": Settings(), **arguments})


def test_an_argument_error_is_a_value_error_that_the_command_line_knows():
    with pytest.raises(ValueError) as caught:
        make(name="")
    assert isinstance(caught.value, HoldfastError)


# Plain properties.


def test_seeds_of_a_configuration():
    assert list(Config().seed_range) == [0, 1, 2, 3, 4]
    assert list(Settings(seeds=2, first_seed=100).seed_range) == [100, 101]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().seeds = 3


def test_seeds_of_a_trial():
    assert Trial(3, Settings()).seeds == (3,)
    assert Trial((3, 4), Settings()).seeds == (3, 4)


def test_a_trial_can_be_sent_to_another_process():
    trial = Trial((1, 2), Settings(lr=0.5), {"arm": "new"}, cost=2.0, gpu=0.5)
    assert pickle.loads(pickle.dumps(trial)) == trial


def test_address_of_a_paper():
    assert Paper("Title", "2410.01104").url == "https://arxiv.org/abs/2410.01104"
    assert Paper("Title").url == ""


# What run may return.

RECORD = {"accuracy": 0.5, "n": 3, "arm": "new", "ok": True, "nothing": None}


@pytest.mark.parametrize("result", [RECORD, [RECORD], (RECORD,), Outcome([RECORD]), Outcome((RECORD,))])
def test_all_forms_of_a_result(result):
    outcome = as_outcome(result)
    assert list(outcome.records) == [RECORD]
    assert outcome.curves == {}


def test_curves_are_kept_and_may_be_empty():
    outcome = as_outcome(Outcome([RECORD], {"loss": [{"step": np.int64(1), "loss": np.float32(0.5)}], "none": []}))
    assert outcome.curves == {"loss": ({"step": 1, "loss": 0.5},), "none": ()}
    assert type(outcome.curves["loss"][0]["step"]) is int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.array(0.5), 0.5),
        (np.array([0.5]), 0.5),
        (np.str_("new"), "new"),
    ],
)
def test_numpy_scalars_become_plain(value, expected):
    found = as_outcome({"x": value}).records[0]["x"]
    assert (found, type(found)) == (expected, type(expected))


def test_torch_scalars_become_plain():
    torch = pytest.importorskip("torch")
    values = {
        "loss": torch.tensor(0.5, requires_grad=True),
        "half": torch.tensor(0.5, dtype=torch.bfloat16),
        "n": torch.tensor(3),
        "ok": torch.tensor(True),
        "one": torch.tensor([0.5]),
    }
    found = as_outcome(values).records[0]
    assert found == {"loss": 0.5, "half": 0.5, "n": 3, "ok": True, "one": 0.5}
    assert [type(value) for value in found.values()] == [float, float, int, bool, float]


def test_not_a_number_is_a_result():
    assert math.isnan(as_outcome({"loss": float("nan")}).records[0]["loss"])
    assert as_outcome({"loss": np.float32("inf")}).records[0]["loss"] == math.inf


@pytest.mark.parametrize(
    "result", [None, 0.5, "text", {1, 2}, object(), np.zeros(3), [], (), Outcome([]), iter([RECORD])]
)
def test_what_is_no_result_is_refused(result):
    with pytest.raises(ArgumentError, match=r"^the result of run: expected an Outcome, a record"):
        as_outcome(result)


@pytest.mark.parametrize("result", [{}, [{}], [0.5], ["text"], [RECORD, {}], Outcome(RECORD)])
def test_what_is_no_record_is_refused(result):
    with pytest.raises(ArgumentError, match=r"^a record: expected a mapping from column to value"):
        as_outcome(result)


@pytest.mark.parametrize(
    "value",
    [np.zeros(2), np.zeros(0), [1.0], {"a": 1}, 1j, np.complex64(1j), b"x", Fraction(1, 2), np.datetime64("2024")],
)
def test_what_is_no_number_or_text_is_refused_with_its_column(value):
    with pytest.raises(ArgumentError, match=r"^a record, column 'loss': expected a number or text"):
        as_outcome({"x": 1.0, "loss": value})
    with pytest.raises(ArgumentError, match=r"^curve 'train', column 'loss': expected a number or text"):
        as_outcome(Outcome([RECORD], {"train": [{"loss": value}]}))


def test_a_tensor_of_several_values_is_refused_with_its_column():
    torch = pytest.importorskip("torch")
    for value in (torch.zeros(2), torch.zeros(0), torch.zeros((), device="meta")):
        with pytest.raises(ArgumentError, match="column 'loss'"):
            as_outcome({"loss": value})


def test_a_result_is_not_changed_by_reading_it():
    record = {"x": np.float64(1.0)}
    as_outcome(record)
    assert isinstance(record["x"], np.float64)


class Arm(StrEnum):
    NEW = "new"


class Level(IntEnum):
    LOW = 3


class Ratio(float):
    pass


@pytest.mark.parametrize(
    ("value", "expected"), [(Arm.NEW, "new"), (Level.LOW, 3), (Ratio(0.5), 0.5), (2**13_999, 2**13_999)]
)
def test_values_of_derived_types_become_plain(value, expected):
    record = as_outcome({"x": value, Arm.NEW: 1}).records[0]
    assert (record["x"], type(record["x"])) == (expected, type(expected))
    assert [type(name) for name in record] == [str, str]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"x": 10**5000}, r"a record, column 'x': expected a whole number of at most 14000 bits, got a larger one"),
        ({"x": "\ud800"}, r"a record, column 'x': expected a value of whole Unicode letters, got '\\ud800'"),
        ({"\ud800": 1}, r"a record: expected a column of whole Unicode letters, got '\\ud800'"),
        ({3: 1}, r"a record: expected a column that is text, got 3"),
        (Outcome([RECORD], {3: []}), r"curve 3: expected a name that is text, got 3"),
        (Outcome([RECORD], [[RECORD]]), r"the result of run: expected curves as a mapping"),
    ],
)
def test_what_cannot_be_stored_is_refused(result, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        as_outcome(result)


@pytest.mark.parametrize(
    ("seed", "result", "message"),
    [
        (3, {"seed": 4, "x": 1}, "a record, column 'seed': expected the trial's seed 3, got 4"),
        (3, {"seed": 3.0, "x": 1}, "a record, column 'seed': expected the trial's seed 3, got 3.0"),
        (3, {"arm": "old", "x": 1}, "a record, column 'arm': expected the trial's label 'new', or no such column"),
        (3, Outcome([{"x": 1}], {"c": [{"arm": 1}]}), "curve 'c', column 'arm': expected the trial's label 'new'"),
        ((3, 4), {"x": 1}, r"a record, column 'seed': expected one of the trial's seeds \(3, 4\), got no such column"),
        ((3, 4), [{"seed": 3}, {"seed": 5}], "a record, column 'seed': expected one of the trial's seeds"),
        ((3, 4), {"seed": 3, "x": 1}, "the result of run: expected a record for each seed, got none for seed 4"),
        (
            (3, 4),
            Outcome([{"seed": 3}, {"seed": 4}], {"c": [{"y": 1}]}),
            "curve 'c', column 'seed': expected one of the trial's seeds",
        ),
    ],
)
def test_a_result_that_disagrees_with_its_trial_is_refused(seed, result, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        as_outcome(result, Trial(seed, Config(), {"arm": "new"}))


def test_a_result_may_repeat_what_its_trial_says():
    alone = {"seed": 3, "arm": "new", "x": 1}
    assert as_outcome(alone, Trial(3, Config(), {"arm": "new"})).records == (alone,)
    many = [{"seed": seed, "x": 1} for seed in (4, 3, 3)]
    assert list(as_outcome(many, Trial((3, 4), Config())).records) == many


@pytest.mark.parametrize("name", ["failed", "set-aside", "x" * 65, "x" * 5000])
def test_names_that_the_store_needs_or_cannot_hold_are_refused(name):
    with pytest.raises(ArgumentError, match=r"^Study\.name: expected"):
        make(name=name)


def test_labels_are_text_or_numbers():
    with pytest.raises(ArgumentError, match=r"Trial\.labels\['arm'\]: expected text or a number, got \['new'\]"):
        Trial(0, Config(), {"arm": ["new"]})
