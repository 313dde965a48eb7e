from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab.results import Failure, LeftOut, Results, ResultsError, Values
from holdfast.lab.trial import Config, Outcome, Trial
from holdfast.lab.verdict import mean_of


@dataclass(frozen=True)
class Settings:
    lr: float = 0.1


def results(*pairs: tuple[Trial, Outcome]) -> Results:
    return Results(Settings(), pairs)


def trial(seed, **labels) -> Trial[Settings]:
    return Trial(seed, Settings(), labels)


TWO_ARMS = results(
    *(
        (
            trial(seed, arm=arm),
            Outcome(
                [{"n": n, "accuracy": seed + n / 100 + (arm == "new")} for n in (16, 64)],
                {"loss": [{"step": step, "loss": 1.0 / step} for step in (1, 2)]},
            ),
        )
        for seed in (2, 0, 1)
        for arm in ("old", "new")
    )
)


def test_records_carry_labels_and_seed():
    assert len(TWO_ARMS.records) == 12
    assert TWO_ARMS.records[0] == {"arm": "old", "seed": 2, "n": 16, "accuracy": 2.16}


@pytest.mark.parametrize(("name", "value"), [("arm", "new"), ("seed", 8), ("seed", "3"), ("seed", None)])
def test_a_record_cannot_replace_the_seed_or_a_label_of_its_trial(name, value):
    found = results((trial(3, arm="old"), Outcome([{name: value, "x": 1.0}], {"c": [{name: value}]})))
    with pytest.raises(ArgumentError, match=f"^a record, column '{name}': expected the trial's"):
        found.by_seed("x")
    with pytest.raises(ArgumentError, match=f"^a record, column '{name}': expected the trial's"):
        found.curve("c")


def test_a_record_may_repeat_the_seed_and_labels_of_its_trial():
    found = results((trial(3, arm="old"), Outcome([{"seed": 3, "arm": "old", "x": 1.0}])))
    assert found.by_seed("x", arm="old") == {3: 1.0}


def test_merging_changes_neither_the_trial_nor_its_record():
    labels, record = {"arm": "old"}, {"x": 1.0}
    found = results((Trial(1, Settings(), labels), Outcome([record])))
    found.records[0]["x"] = 5.0
    assert (labels, record) == ({"arm": "old"}, {"x": 1.0})


def test_where():
    assert len(TWO_ARMS.where(arm="new", n=64)) == 3
    assert TWO_ARMS.where(arm="none") == []
    assert TWO_ARMS.where(colour="red") == []
    assert len(TWO_ARMS.where()) == 12


def test_where_does_not_take_a_missing_label_for_none():
    found = results((trial(0), Outcome([{"x": 1.0, "depth": None}, {"x": 2.0}])))
    assert [row["x"] for row in found.where(depth=None)] == [1.0]


def test_by_seed_is_ordered_by_seed():
    found = TWO_ARMS.by_seed("accuracy", arm="new", n=16)
    assert list(found) == [0, 1, 2]
    assert found == pytest.approx({0: 1.16, 1: 2.16, 2: 3.16})


@pytest.mark.parametrize("labels", [{"arm": "lost"}, {"arm": "new", "n": 17}, {"colour": "red"}])
def test_what_is_not_there_is_empty(labels):
    assert TWO_ARMS.by_seed("accuracy", **labels) == {}


def test_a_metric_that_is_not_there_is_empty():
    assert TWO_ARMS.by_seed("reward", arm="new", n=16) == {}
    assert results().by_seed("accuracy") == {}
    assert results().records == []


def test_too_few_labels_are_an_error_and_not_a_choice():
    with pytest.raises(ResultsError, match=r"more than one record has seed \d.*arm.*name more labels"):
        TWO_ARMS.by_seed("accuracy", arm="new")
    with pytest.raises(ResultsError, match="more than one record"):
        TWO_ARMS.by_seed("accuracy", n=16)


def test_none_is_missing_and_nan_is_a_value():
    found = results((trial(0), Outcome([{"x": None}])), (trial(1), Outcome([{"x": math.nan}])))
    assert list(found.by_seed("x")) == [1]
    assert math.isnan(found.by_seed("x")[1])
    assert found.by_seed("x").failed == {0: "x is None"}
    assert results((trial(0), Outcome([{"x": None}]))).by_seed("x").missing == "x is None"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ([{"n": 1, "x": None}], "x is None"),
        ([{"n": 1, "y": 2.0}], "no record with x, n = 1"),
        ([{"n": 2, "x": 2.0}], "no record with x, n = 1"),
    ],
)
def test_a_seed_that_lacks_the_value_of_the_others_is_named(odd, reason):
    pairs = [(trial(seed, arm="new"), Outcome([{"n": 1, "x": 1.0 + seed / 10}])) for seed in range(4)]
    values = results(*pairs, (trial(4, arm="new"), Outcome(odd))).by_seed("x", n=1)
    assert list(values) == [0, 1, 2, 3]
    assert values.failed == {4: reason}
    evidence = mean_of(values, threshold=0.0)
    assert evidence.p_value is None
    assert evidence.reason == f"no result for seed 4 ({reason})"


def test_trials_of_another_kind_need_not_have_the_metric():
    pairs = [(trial(seed, arm="new"), Outcome([{"x": 1.0}])) for seed in range(2)]
    assert results(*pairs, (trial(7, arm="closed form"), Outcome([{"y": 1.0}]))).by_seed("x").failed == {}


def test_none_beside_a_value_of_the_same_seed_is_no_loss():
    found = results((trial(0), Outcome([{"x": None, "arm": "a"}, {"x": 2.0, "arm": "b"}])))
    assert found.by_seed("x").failed == {}


def test_what_was_left_out_answers_no_query_that_it_could_have_changed():
    done = [(trial(seed, part="a", arm="new"), Outcome([{"x": 1.0}], {"c": [{"y": 1}]})) for seed in (0, 1)]
    found = Results(Settings(), done, [], [trial(1, part="b", arm="old"), trial((2, 3), part="c")])
    assert found.by_seed("x", part="a") == {0: 1.0, 1: 1.0}
    assert found.levels("x", arm="new", seed=1) == [1.0]
    queries = [
        (lambda: found.records, ("b", "c")),
        (lambda: found.where(arm="new"), ("c",)),
        (lambda: found.by_seed("x", arm="old"), ("b", "c")),
        (lambda: found.curve("c", seed=3), ("c",)),
        (lambda: found.failed(), ("b", "c")),
        (lambda: found.levels("x", part="b"), ("b",)),
        (lambda: len(found.guarded().outcomes), ("b", "c")),
        (lambda: list(found.guarded().failures), ("b", "c")),
    ]
    for query, parts in queries:
        with pytest.raises(LeftOut) as caught:
            query()
        assert caught.value.parts == parts
    assert str(LeftOut(["b", "c", "b"])) == "needs parts b, c, which --only leaves out"
    assert found.guarded().by_seed("x", part="a") == {0: 1.0, 1: 1.0}
    assert (len(found.outcomes), len(found.failures)) == (2, 0)


def test_whole_numbers_and_truth_values_become_floats():
    found = results((trial(0), Outcome([{"x": 3, "ok": True}])))
    assert found.by_seed("x") == {0: 3.0}
    assert found.by_seed("ok") == {0: 1.0}
    assert isinstance(found.by_seed("ok")[0], float)


def test_text_is_no_metric():
    found = results((trial(0), Outcome([{"x": "fast"}])))
    with pytest.raises(ResultsError, match="x: expected a number"):
        found.by_seed("x")


def test_batched_seeds_stand_in_the_records():
    found = results((trial((3, 4), arm="old"), Outcome([{"seed": seed, "x": seed / 10} for seed in (4, 3)])))
    assert found.by_seed("x", arm="old") == {3: 0.3, 4: 0.4}
    assert list(found.by_seed("x")) == [3, 4]


def test_a_batched_trial_that_forgot_its_seeds_is_an_error_that_says_so():
    found = results((trial((3, 4)), Outcome([{"x": 0.3}, {"x": 0.4}])))
    with pytest.raises(ArgumentError, match=r"column 'seed': expected one of the trial's seeds \(3, 4\)"):
        found.by_seed("x")


def test_levels_are_distinct_and_sorted_with_numbers_first():
    assert TWO_ARMS.levels("n") == [16, 64]
    assert TWO_ARMS.levels("arm") == ["new", "old"]
    assert TWO_ARMS.levels("n", arm="lost") == []
    rows = [{"depth": depth} for depth in ("deep", 10, 9, None, 2.5, "deep")]
    assert results((trial(0), Outcome(rows))).levels("depth") == [2.5, 9, 10, "deep"]


def test_curves_carry_labels_and_seed():
    rows = TWO_ARMS.curve("loss", arm="new", seed=1)
    assert rows == [
        {"arm": "new", "seed": 1, "step": 1, "loss": 1.0},
        {"arm": "new", "seed": 1, "step": 2, "loss": 0.5},
    ]
    assert len(TWO_ARMS.curve("loss")) == 12
    assert TWO_ARMS.curve("lost") == []


def test_a_curve_that_only_some_trials_have():
    found = results((trial(0), Outcome([{"x": 1.0}], {"c": [{"y": 1}]})), (trial(1), Outcome([{"x": 1.0}])))
    assert found.curve("c") == [{"seed": 0, "y": 1}]


def test_failures_are_beside_the_results():
    failure = Failure("key", trial(0), "ValueError: no", "log")
    assert Results(Settings(), (), [failure]).failures == [failure]
    assert Results(Settings(), ()).failures == ()


def test_by_seed_names_the_seeds_that_failed():
    trials = [(trial(seed, part=part), Outcome([{"arm": "new", "x": seed}])) for seed in (0, 1) for part in ("a", "b")]
    failures = [
        Failure("k1", trial(2, part="a"), "ValueError: no", ""),
        Failure("k2", trial((3, 4), part="b"), "killed", ""),
        Failure("k3", trial(5, part="c", arm="old"), "killed", ""),
    ]
    found = Results(Settings(), trials, failures)
    assert found.by_seed("x", part="a").failed == {2: "ValueError: no"}
    assert found.by_seed("x", part="b", arm="new").failed == {3: "killed", 4: "killed"}
    assert found.by_seed("x", part="c", arm="new").failed == {}
    assert found.by_seed("x", part="c", arm="old").failed == {5: "killed"}
    assert found.failed() == {2: "ValueError: no", 3: "killed", 4: "killed", 5: "killed"}
    assert Results(Settings(), trials).by_seed("x", part="a").failed == {}


def test_a_failure_of_another_part_is_no_failure_of_the_metric():
    trials = [(trial(seed, part="a"), Outcome([{"x": seed}])) for seed in (0, 1)]
    found = Results(Settings(), trials, [Failure("k", trial(2, part="b"), "killed", "")])
    assert found.by_seed("x").failed == {}
    assert found.failed(part="a") == {}


def test_a_seed_with_a_value_did_not_fail():
    trials = [(trial(seed, arm="new"), Outcome([{"gain": seed}])) for seed in (0, 1)]
    found = Results(Settings(), trials, [Failure("k", trial(1, arm="old"), "killed", "")])
    assert found.by_seed("gain") == {0: 0.0, 1: 1.0}
    assert found.by_seed("gain").failed == {}


def test_values_computed_from_several_metrics_keep_what_failed():
    large = Values({0: 3.0, 1: 5.0, 4: 1.0}, failed={2: "killed"})
    small = Values({0: 1.0, 1: 2.0, 2: 3.0, 3: 7.0})
    found = Values.of(lambda a, b: a - b, large, small)
    assert found == {0: 2.0, 1: 3.0}
    assert found.failed == {2: "killed", 3: "some of its values are missing", 4: "some of its values are missing"}
    assert Values.of(max, Values(missing="no record"), Values()).missing == "no record"


@pytest.mark.parametrize(
    ("metric", "labels", "reason"),
    [
        ("scores", {"arm": "old"}, "no record has a column 'scores'; there are: arm, score, seed"),
        ("score", {"amr": "old"}, "no record has a column 'amr'; there are: arm, score, seed"),
        ("score", {"arm": "older"}, "no record has arm = 'older'; there are: 'new', 'old'"),
    ],
)
def test_missing_values_say_what_there_is_instead(metric, labels, reason):
    trials = [(Trial(0, Config(), {"arm": arm}), Outcome([{"score": 1.0}])) for arm in ("old", "new")]
    found = Results(Config(), trials).by_seed(metric, **labels)
    assert found == {}
    assert found.missing == reason
    assert reason in mean_of(found, threshold=0.0).reason
    assert Results(Config(), []).by_seed("score").missing == "no trial has finished"
