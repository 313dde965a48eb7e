"""The whole analysis: what it declares, what it prints, and what it hands on."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from holdfast.confidence import PRESETS, Observer, Readings, analyze, contrast, simulate
from holdfast.confidence.estimates import estimate
from holdfast.confidence.intervals import Estimate
from holdfast.confidence.verdicts import IDEAL, judge, summary
from holdfast.errors import ArgumentError
from tests.confidence.test_choices import bare

FAINT = {"under_weights_same"}
"""True of some presets (a weight of .8), and too faint for 200 questions to be sure of."""

FOUND = {
    "choice_supportive": {"clings", "own_answer"},
    "opposition_sensitive": {"over_weights_opposite", "asymmetric"},
    "both": {"clings", "own_answer", "over_weights_opposite", "asymmetric"},
    "stubborn": {"clings", "own_answer", "under_weights_opposite", "under_weights_same"},
    "contrarian": {"goes_against_opposite", "goes_against_same"},
    "position_biased": set(),
    "anchorer": {"clings"},
    "bayes": set(),
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_called_what_it_is(name: str) -> None:
    observer = PRESETS[name]
    analysis = analyze(simulate(observer), resamples=400)
    faint = FAINT if observer.weight_same == 0.8 else set()
    assert FOUND[name] <= set(analysis.flags) <= FOUND[name] | faint
    truth = {
        "choice_bias": observer.bias,
        "ownership_bias": observer.bias - observer.bias_other,
        "weight_same": observer.weight_same,
        "weight_opposite": observer.weight_opposite,
        "intercept_opposite": observer.shift_opposite,
        "position_bias": observer.position,
    }
    for estimate_name, value in truth.items():
        # Four standard errors, of which the interval has two on each side.
        entry: Estimate = getattr(analysis, estimate_name)
        assert abs(entry.value - value) <= entry.high - entry.low, estimate_name
        assert entry.low <= entry.value <= entry.high


def test_an_ideal_observer_is_declared_unbiased() -> None:
    """In at least 92 of 100 seeds, all five comparisons together."""
    unbiased = 0
    for seed in range(100):
        trials = simulate(PRESETS["bayes"], 150, seed, accuracies=(0.6, 0.8, 0.9))
        estimates = estimate(trials, contrast(trials), 300, seed)
        entries = {name: (estimates.calibrated if "weight" in name else estimates.reported)[name] for name in IDEAL}
        verdicts = judge(entries, estimates.p_values)
        assert all(verdict.p_adjusted >= 0 for verdict in verdicts), "every comparison was made"
        unbiased += not any(verdict.flag for verdict in verdicts)
    assert unbiased >= 92


def test_an_observer_who_is_biased_is_seldom_missed() -> None:
    observer = Observer(bias=0.1, weight_same=1.0, weight_opposite=1.3)
    for seed in range(5):
        flags = analyze(simulate(observer, 100, seed), resamples=300).flags
        assert {"clings", "own_answer", "asymmetric"} <= set(flags)


def test_without_noise_estimates_are_exact_and_rounding_is_no_bias() -> None:
    exact = analyze(simulate(Observer(noise=0, bias=1, weight_same=0.8, weight_opposite=2.5), 50), resamples=100)
    assert exact.choice_bias.value == pytest.approx(1.0, abs=1e-9)
    assert exact.weight_same.value == pytest.approx(0.8, abs=1e-9)
    assert exact.weight_opposite.value == pytest.approx(2.5, abs=1e-9)
    assert exact.ratio.value == pytest.approx(3.125, abs=1e-9)
    ideal = analyze(simulate(Observer(noise=0), 50, seed=1), resamples=100)
    assert "clings" not in ideal.flags
    assert "backs_away" not in ideal.flags
    assert "asymmetric" not in ideal.flags


def test_words_need_an_interval_and_a_clear_p_value() -> None:
    wide, clear = Estimate(1.4, 0.9, 1.9), Estimate(1.4, 1.2, 1.6)
    others = {name: Estimate(value, value - 0.1, value + 0.1) for name, value in IDEAL.items()}
    p_values = dict.fromkeys(IDEAL, 0.9)
    said = judge({**others, "weight_opposite": clear}, {**p_values, "weight_opposite": 0.001})
    assert [verdict.flag for verdict in said] == ["", "", "over_weights_opposite", "", ""]
    unclear = judge({**others, "weight_opposite": clear}, {**p_values, "weight_opposite": 0.02})
    assert not any(verdict.flag for verdict in unclear)
    assert "too weak for one of five comparisons" in unclear[2].sentence
    assert not any(v.flag for v in judge({**others, "weight_opposite": wide}, {**p_values, "weight_opposite": 0.001}))
    tiny = Estimate(0.005, 0.004, 0.006)
    assert not any(v.flag for v in judge({**others, "choice_bias": tiny}, {**p_values, "choice_bias": 0.0}))


def test_what_cannot_be_judged_is_said() -> None:
    unknown = Estimate(math.nan, math.nan, math.nan, "no answer key")
    entries = dict.fromkeys(IDEAL, unknown)
    verdicts = judge(entries, dict.fromkeys(IDEAL, 0.5))
    assert all("no verdict (no answer key)" in verdict.sentence for verdict in verdicts)
    assert summary(verdicts, "", 10).startswith("Nothing can be said")


def test_the_text_begins_with_the_sentence_and_is_eighty_columns_wide() -> None:
    for observer in (PRESETS["both"], PRESETS["contrarian"], Observer(scale=40.0, clip=250.0, position=-3)):
        analysis = analyze(
            simulate(observer, 40, displays=("shown", "hidden", "other", "shown_flipped")), resamples=200
        )
        lines = str(analysis).splitlines()
        first = " ".join(lines[: lines.index("")])
        assert first == analysis.sentence
        assert max(map(len, lines)) <= 80
        for caution in analysis.warnings:
            assert f"! {caution.name}:" in str(analysis)


def test_the_sentence_says_what_to_try() -> None:
    sentence = analyze(simulate(PRESETS["both"], 100), resamples=200).sentence
    assert "clings to its own earlier answer" in sentence
    assert "mask_own_answer" in sentence
    assert "fuse" in sentence


def test_numbers_go_into_json() -> None:
    analysis = analyze(simulate(PRESETS["contrarian"], 40, templates=2), resamples=200)
    document = json.loads(json.dumps(analysis.to_dict(), allow_nan=False))
    assert document["choice_bias"]["value"] == analysis.choice_bias.value
    assert document["ratio"]["value"] is None
    assert document["ratio"]["reason"]
    assert document["flags"] == list(analysis.flags)
    assert {caution["name"] for caution in document["warnings"]} == {caution.name for caution in analysis.warnings}


def test_the_table_of_cells_counts_changes() -> None:
    trials = simulate(PRESETS["both"], 50, accuracies=(0.6, 0.9))
    analysis = analyze(trials, resamples=200)
    assert len(analysis.cells) == 9 * 3
    for cell in analysis.cells:
        rows = (trials.display == cell.display) & (trials.advice == cell.advice)
        if cell.accuracy is not None:
            rows &= trials.accuracy == cell.accuracy
        changed = trials.change_of_mind[rows]
        assert cell.trials == rows.sum()
        assert cell.change_of_mind.value == pytest.approx(changed.mean())
        assert cell.standard_error == pytest.approx(changed.std(ddof=1) / math.sqrt(len(changed)))
        assert cell.change_of_mind.low <= cell.change_of_mind.value <= cell.change_of_mind.high
    assert analysis.change_of_mind is not None
    assert analysis.change_of_mind.odds_ratio.high < 1
    assert analysis.change_of_mind.difference.value == pytest.approx(
        analysis.change_of_mind.hidden.value - analysis.change_of_mind.shown.value
    )


def test_wordings_are_compared() -> None:
    one, three = (analyze(simulate(PRESETS["both"], 40, templates=n), resamples=200) for n in (1, 3))
    assert one.template_spread == {}
    assert 0 < three.template_spread["choice_bias"] < 0.1


def test_bare_choices_are_read_by_their_own_model() -> None:
    analysis = analyze(bare(Observer(noise=1.0, bias=1.5, weight_same=0.8, weight_opposite=2.4)), resamples=200)
    assert set(analysis.flags) == {"clings", "asymmetric"}
    assert analysis.choices is not None
    assert not analysis.choice_bias.known
    assert "model of choices" in analysis.choice_bias.reason
    assert analysis.calibration is None
    assert analysis.comparison is None
    assert "Model of choices" in str(analysis)
    json.dumps(analysis.to_dict(), allow_nan=False)


def test_more_than_two_options_are_analysed() -> None:
    from tests.confidence.test_contrasts import ideal_among

    options = np.random.default_rng(1).integers(2, 5, 60)
    analysis = analyze(ideal_among(options, np.random.default_rng(2)), resamples=200)
    assert analysis.weight_same.value == pytest.approx(1.0, abs=1e-9)
    assert analysis.ratio.value == pytest.approx(1.0, abs=1e-9)
    assert analysis.comparison is None


@pytest.mark.parametrize("questions", [1, 3])
@pytest.mark.parametrize("displays", [("shown",), ("hidden", "other"), ("shown_flipped",), ("shown", "hidden")])
@pytest.mark.parametrize("advice", [("same",), ("neutral",), ("same", "opposite", "neutral")])
def test_no_design_is_too_poor_to_be_read(questions: int, displays: tuple, advice: tuple) -> None:
    for observer in (Observer(noise=0), Observer(clip=0.5), Observer(scale=300.0, noise=5.0)):
        for accuracies in ((0.7,), (0.5, 1.0)):
            trials = simulate(observer, questions, displays=displays, advice=advice, accuracies=accuracies)
            analysis = analyze(trials, resamples=20)
            assert analysis.sentence
            assert not analysis.weight_same.known
            json.dumps(analysis.to_dict(), allow_nan=False)
            assert max(map(len, str(analysis).splitlines())) <= 80


def test_nothing_valid_is_an_error() -> None:
    trials = simulate(Observer(), 3)
    with pytest.raises(ArgumentError, match="valid trial"):
        analyze(dataclasses.replace(trials, invalid=np.full(len(trials), "refusal")))


@pytest.mark.parametrize("what", ["all right", "all wrong", "one order", "one reading for all", "no wrong half"])
def test_what_has_no_number_is_not_printed_as_one(what: str) -> None:
    trials = simulate(Observer(noise=1.0), 40, seed=3)
    if what == "one order":
        once = {
            name: Readings(part.scores[:, :1], part.mass[:, :1], part.censored[:, :1])
            for name, part in (("stage_1", trials.stage_1), ("stage_2", trials.stage_2))
        }
        trials = dataclasses.replace(trials, **once)
        trials = trials.where(trials.stage_1.mean_scores.argmax(axis=1) == trials.choice)
    elif what == "one reading for all":
        trials = trials.where(trials.choice == 0)
        scores = np.broadcast_to(np.log([0.7, 0.3]), trials.stage_1.scores.shape).copy()
        trials = dataclasses.replace(trials, stage_1=dataclasses.replace(trials.stage_1, scores=scores))
    else:
        answer = 1 - trials.choice if what == "all wrong" else trials.choice.copy()
        if what == "no wrong half":
            answer[trials.question_code == 0] = 1 - answer[trials.question_code == 0]
        trials = dataclasses.replace(trials, answer=answer)
    text = str(analyze(trials, resamples=100))
    assert "First answers: " in text
    assert "nan" not in text.lower()
