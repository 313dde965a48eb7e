"""The record of trials: frames, orders, more than two options, one clear error, and the way through a file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from holdfast.confidence import Readings, Trials, concatenate, read_trials, simulate, write_trials
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
