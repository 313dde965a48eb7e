"""The record of trials: frames, orders, more than two options, one clear error, and the way through a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from holdfast.confidence import Observer, Readings, Trials, analyze, concatenate, read_trials, simulate, write_trials
from holdfast.confidence.contrasts import position
from holdfast.confidence.trials import lead, log_odds
from holdfast.errors import ArgumentError
from tests.confidence.trials_made import of_two, readings


def test_the_mean_of_both_orders_has_no_leaning_to_a_place() -> None:
    """L = .8 with +1 for the first place is read as 1.8 and -.2."""
    trials = of_two(stage_1=[[1.8, -0.2]], stage_2=[[1.8, -0.2]])
    assert_allclose(trials.initial_log_odds, 0.8, atol=1e-15)
    assert_allclose(trials.final_log_odds, 0.8, atol=1e-15)
    assert_allclose(position(trials), 1.0, atol=1e-15)


def test_everything_is_seen_from_the_chosen_option() -> None:
    trials = of_two(stage_1=[[-2.0, -2.0]], stage_2=[[0.5, 0.5]], choice=[1])
    assert_allclose(trials.initial_log_odds, 2.0, atol=1e-15)
    assert_allclose(trials.final_log_odds, -0.5, atol=1e-15)
    assert trials.change_of_mind.tolist() == [1.0]


def test_a_tie_is_half_a_change_of_mind() -> None:
    trials = of_two(stage_1=[[1, 1]] * 3, stage_2=[[1, -1], [1, 1], [-3, 1]], display=["shown", "hidden", "other"])
    assert trials.change_of_mind.tolist() == [0.5, 0.0, 1.0]


def test_an_order_that_was_not_asked_is_left_out_of_the_mean() -> None:
    trials = of_two(stage_1=[[1.8, np.nan]], stage_2=[[0.3, 0.7]])
    assert_allclose(trials.initial_log_odds, 1.8)
    assert_allclose(trials.final_log_odds, 0.5)
    assert np.isnan(position(trials)).all()


def test_three_options_are_one_against_the_rest() -> None:
    shares = np.log([[0.5, 0.3, 0.2]])
    assert_allclose(log_odds(shares, np.array([0])), 0.0, atol=1e-12)
    assert_allclose(log_odds(shares, np.array([1])), np.log(0.3 / 0.7))
    padded = np.log([[0.4, 0.6, np.nan]])
    assert_allclose(log_odds(padded, np.array([1])), np.log(1.5))
    assert_allclose(lead(padded, np.array([0])), np.log(0.4 / 0.6))


def test_a_share_below_one_half_that_leads_is_no_change_of_mind() -> None:
    shares = np.log([[0.4, 0.35, 0.25]])
    stage = Readings(np.repeat(shares[:, None], 2, axis=1), np.ones((1, 2)), np.zeros((1, 2), bool))
    trials = Trials(
        question=np.array(["q"]),
        template=np.array(["t"]),
        display=np.array(["hidden"]),
        advice=np.array(["opposite"]),
        accuracy=np.array([0.7]),
        choice=np.array([0]),
        advised=np.array([2]),
        stage_1=stage,
        stage_2=stage,
        answer=np.array([-1]),
    )
    assert trials.final_log_odds[0] < 0
    assert trials.change_of_mind.tolist() == [0.0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"display": np.array(["visible"])}, "display not one of"),
        ({"advice": np.array(["same!"])}, "advice not one of"),
        ({"accuracy": np.array([0.0])}, "accuracy outside"),
        ({"accuracy": np.array([1.5])}, "accuracy outside"),
        ({"accuracy": np.array([np.nan])}, "accuracy outside"),
        ({"choice": np.array([2])}, "choice not an option"),
        ({"answer": np.array([7])}, "answer neither"),
        ({"advised": np.array([1])}, "advised not what advice says"),
        ({"template": np.array(["a", "b"])}, r"template has shape \(2,\)"),
        ({"stage_2": readings([[1.0, np.inf]])}, "stage_2.scores infinite"),
        ({"stage_1": readings([[np.nan, np.nan]])}, "stage_1.scores missing"),
        (
            {"stage_1": readings([[1.0, 2.0, 1.0]]), "stage_2": readings([[1.0, 2.0, np.nan]])},
            "1.scores in more orders",
        ),
        ({"stage_1": readings([[1.0, 2.0]], mass=1.2)}, "stage_1.mass outside"),
        ({"source": "verbal"}, "source 'verbal'"),
        ({"source": "sampled"}, "samples is 0"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], expected: str) -> None:
    trials = of_two(stage_1=[[1.0, 2.0]], stage_2=[[1.0, 2.0]], advice=["same"])
    with pytest.raises(ArgumentError, match=expected):
        dataclasses.replace(trials, **change)  # type: ignore[arg-type]


def test_all_problems_are_in_one_message() -> None:
    trials = of_two(stage_1=[[1.0, 2.0]], stage_2=[[1.0, 2.0]])
    with pytest.raises(ArgumentError, match=r"display .*; accuracy .*; choice "):
        dataclasses.replace(trials, display=np.array(["x"]), accuracy=np.array([2.0]), choice=np.array([5]))


def test_trials_marked_invalid_may_lack_scores() -> None:
    trials = of_two(stage_1=[[1.0, 2.0]], stage_2=[[np.nan, np.nan]], invalid=["refusal"])
    assert not trials.valid.any()
    assert np.isnan(trials.change_of_mind).all()


def test_the_same_trial_twice_is_refused() -> None:
    trials = simulate_few()
    with pytest.raises(ArgumentError, match="repeat a question"):
        concatenate([trials, trials])


def test_parts_are_put_together_and_taken_apart() -> None:
    trials = simulate_few()
    shown, rest = trials.where(trials.display == "shown"), trials.where(trials.display != "shown")
    whole = concatenate([shown, rest])
    assert len(whole) == len(trials)
    assert whole.questions == trials.questions
    assert_array_equal(np.sort(whole.final_log_odds), np.sort(trials.final_log_odds))


def test_sources_are_never_pooled() -> None:
    trials = simulate_few()
    sampled = dataclasses.replace(trials.where(trials.display == "shown"), source="sampled", samples=20)
    with pytest.raises(ArgumentError, match="never pooled"):
        concatenate([trials.where(trials.display == "hidden"), sampled])


def test_a_file_gives_back_every_bit(tmp_path) -> None:
    trials = simulate_few()
    stage_2 = dataclasses.replace(trials.stage_2, mass=np.full_like(trials.stage_2.mass, np.nan))
    trials = dataclasses.replace(trials, stage_2=stage_2)
    write_trials(trials, tmp_path / "trials.jsonl")
    again = read_trials(tmp_path / "trials.jsonl")
    for field in dataclasses.fields(trials):
        before, after = getattr(trials, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            assert_array_equal(before, after)
    assert_array_equal(again.stage_2.scores, trials.stage_2.scores)
    assert np.isnan(again.stage_2.mass).all()


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"format": "other"}\n{}', '{"format": "holdfast-trials-1"}\n'])
def test_another_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(text)
    with pytest.raises(ArgumentError, match="path"):
        read_trials(path)


def simulate_few() -> Trials:
    from holdfast.confidence import Observer

    return simulate(Observer(), 4, accuracies=(0.6, 0.9))


@pytest.mark.parametrize("name", ["choice", "answer", "options"])
def test_rows_of_one_question_agree_on_it(name: str) -> None:
    """A contrast of trials that were made from different first choices would mix log-odds of different options."""
    trials = simulate(Observer(), 3, accuracies=(0.6, 0.9))
    wide = {
        stage: Readings(*(getattr(getattr(trials, stage), column) for column in ("scores", "mass", "censored")))
        for stage in ("stage_1", "stage_2")
    }
    values = getattr(trials, name).copy()
    neutral = np.flatnonzero((trials.advice == "neutral") & (trials.question == 1))[0]
    if name == "options":
        wide = {stage: _padded(readings) for stage, readings in wide.items()}
        values[neutral] = 3
        for stage in wide.values():
            stage.scores[neutral, :, 2] = -3.0
    else:
        values[neutral] = 1 - values[neutral]
    with pytest.raises(ArgumentError, match=f"{name} differs between the rows of a question"):
        dataclasses.replace(trials, **wide, **{name: values})


def _padded(readings: Readings) -> Readings:
    scores = np.pad(readings.scores, ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
    return Readings(scores, readings.mass, readings.censored)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (0, "[" * 100_000),
        (0, "5"),
        (1, '{"column": "options", "shape": [1], "values": [1e400]}'),
        (1, '{"column": "options", "shape": [1], "values": [10000000000000000000000]}'),
        (1, '{"column": "question"}'),
    ],
)
def test_damaged_trials_are_one_line(place: int, line: str, tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    write_trials(simulate(Observer(), 2), path)
    lines = path.read_text().splitlines()
    if place:
        lines = [text for text in lines if json.loads(line)["column"] not in text[:30]]
    lines.insert(place, line)
    path.write_text("\n".join(lines))
    with pytest.raises(ArgumentError, match="trials as write_trials writes them"):
        read_trials(path)
    with pytest.raises(ArgumentError, match="trials as write_trials writes them"):
        read_trials(tmp_path)


def test_seeds_are_whole_numbers() -> None:
    with pytest.raises(ArgumentError, match="seed: expected a whole number"):
        simulate(Observer(), 2, seed=-1)
    with pytest.raises(ArgumentError, match="seed: expected a whole number"):
        analyze(simulate(Observer(), 2), seed=-1)
