"""Every way to be misled, shown to mislead, and named by the analysis."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logit

from holdfast.confidence import Analysis, Observer, Trials, advice_log_odds, analyze, ideal, simulate
from tests.confidence.trials_made import readings

PAPER_LIKE = Observer(bias=1.0, weight_same=0.8, weight_opposite=2.5)
FEW = 400
"""Resamples: what is asserted of intervals here is far from their limits."""


def cautions(analysis: Analysis) -> dict[str, str]:
    return {caution.name: caution.text for caution in analysis.warnings}


@pytest.mark.parametrize(("accuracy", "ratio"), [(0.6, 1.381), (0.7, 1.941), (0.8, 2.846), (0.9, 4.556)])
def test_probabilities_fake_an_asymmetry(accuracy: float, ratio: float) -> None:
    down, up = (abs(float(expit(ideal(logit(0.9), side, accuracy))) - 0.9) for side in ("opposite", "same"))
    assert down / up == pytest.approx(ratio, abs=1e-3)


def test_the_asymmetry_of_an_ideal_observer_is_shown_and_called_no_bias() -> None:
    analysis = analyze(simulate(Observer(noise=0), 300, seed=1), resamples=FEW)
    assert analysis.probability_asymmetry is not None
    assert analysis.probability_asymmetry.observed > 1.3
    assert analysis.probability_asymmetry.observed == pytest.approx(analysis.probability_asymmetry.ideal)
    assert "ideal observer" in cautions(analysis)["probability_asymmetry"]
    assert analysis.flags == ()


def test_measured_from_stage_1_a_visible_answer_fakes_weights() -> None:
    """b = 1 and ideal weights would be read as 1.83 and .17; contrasts within a display say 1 and 1."""
    analysis = analyze(simulate(Observer(bias=1.0), 400), resamples=FEW)
    faked = [analysis.secondary[f"shown_from_stage_1_{side}"].value for side in ("same", "opposite")]
    worth = advice_log_odds(np.array([0.6, 0.7, 0.8, 0.9])).mean()
    assert faked == pytest.approx([1 + 1 / worth, 1 - 1 / worth], abs=0.1)
    assert analysis.weight_same.value == pytest.approx(1.0, abs=0.05)
    assert analysis.weight_opposite.value == pytest.approx(1.0, abs=0.05)
    assert "mixed_visibility" in cautions(analysis)
    assert "asymmetric" not in analysis.flags


def test_a_visible_answer_hides_a_real_asymmetry() -> None:
    analysis = analyze(simulate(PAPER_LIKE, 400), resamples=FEW)
    shown, hidden = (
        [analysis.secondary[f"{display}_from_stage_1_{side}"].value for side in ("same", "opposite")]
        for display in ("shown", "hidden")
    )
    assert abs(shown[0] - shown[1]) < 0.3
    assert hidden == pytest.approx([0.8, 2.5], abs=0.1)
    assert "asymmetric" in analysis.flags


@pytest.mark.parametrize(
    ("noise", "least", "most"), [(0.0, 0.0, 0.0), (0.3, 0.04, 0.1), (1.0, 0.13, 0.22), (2.0, 0.2, 0.32)]
)
def test_noise_changes_minds_without_a_reason(noise: float, least: float, most: float) -> None:
    trials = simulate(Observer(noise=noise), 1000, displays=("hidden",), accuracies=(0.7,))
    neutral = trials.advice == "neutral"
    assert least <= trials.change_of_mind[neutral].mean() <= most
    fall = (trials.final_log_odds - trials.initial_log_odds)[neutral].mean()
    assert fall == 0 if noise == 0 else fall < 0


def test_regression_to_the_mean_is_named_and_no_bias() -> None:
    analysis = analyze(simulate(Observer(noise=1.0), 200, seed=1), resamples=FEW)
    assert "reliability" in cautions(analysis)["regression_to_the_mean"]
    # Evidence has a variance of about 5, each reading noise of variance 1.
    assert 0.7 < analysis.reliability < 0.98
    assert "clings" not in analysis.flags
    assert "backs_away" not in analysis.flags
    still = analyze(simulate(Observer(noise=0), 100), resamples=FEW)
    assert "regression_to_the_mean" not in cautions(still)


@pytest.mark.parametrize(("clip", "ratio"), [(9.2, 3.35), (6.9, 3.50), (4.6, 3.86), (3.0, 4.29)])
def test_a_limit_of_readings_inflates_the_ratio(clip: float, ratio: float) -> None:
    trials = simulate(dataclasses.replace(PAPER_LIKE, clip=clip), 400, accuracies=(0.6, 0.7, 0.8, 0.9))
    analysis = analyze(trials, resamples=FEW)
    free = analyze(simulate(PAPER_LIKE, 400, accuracies=(0.6, 0.7, 0.8, 0.9)), resamples=FEW)
    # The ratio may be refused; its parts are not.
    measured = analysis.weight_opposite.value / analysis.weight_same.value
    assert measured > free.ratio.value
    assert measured == pytest.approx(ratio, rel=0.1)
    assert analysis.choice_bias.value < 1
    assert analysis.censored_share > 0
    assert "censored" in cautions(analysis)
    assert analysis.ratio.known == (analysis.censored_share <= 0.2)
    if clip >= 4.6:
        assert analysis.ratio_unsaturated is not None
        assert analysis.ratio_unsaturated.value == pytest.approx(3.125, abs=0.3)


def test_no_ratio_from_a_fifth_of_censored_readings() -> None:
    analysis = analyze(simulate(dataclasses.replace(PAPER_LIKE, clip=3.0), 100), resamples=FEW)
    assert analysis.censored_share > 0.2
    assert not analysis.ratio.known
    assert "bound" in analysis.ratio.reason
    assert "asymmetric" not in analysis.flags


def test_overconfidence_scales_biases_and_weights_but_not_their_ratio() -> None:
    plain, scaled = (analyze(simulate(dataclasses.replace(PAPER_LIKE, scale=s), 400), resamples=FEW) for s in (1, 2.5))
    for name in ("choice_bias", "weight_same", "weight_opposite"):
        assert getattr(scaled, name).value == pytest.approx(2.5 * getattr(plain, name).value, rel=1e-9)
        assert scaled.calibrated[name].value == pytest.approx(plain.calibrated[name].value, rel=1e-6)
    assert scaled.ratio.value == pytest.approx(plain.ratio.value, rel=1e-9)
    assert scaled.temperature.value == pytest.approx(2.5 * plain.temperature.value, rel=1e-6)
    assert "overconfident" in cautions(scaled)["miscalibrated"]
    assert "miscalibrated" not in cautions(plain)


def test_an_overconfident_ideal_observer_does_not_over_weight() -> None:
    analysis = analyze(simulate(Observer(scale=2.5), 300, seed=2), resamples=FEW)
    assert analysis.weight_opposite.low > 2
    assert analysis.flags == ()


def test_mere_disagreement_is_no_weight() -> None:
    analysis = analyze(simulate(Observer(bias=0.5, shift_opposite=0.7), 300, seed=1), resamples=FEW)
    assert analysis.intercept_opposite.value == pytest.approx(0.7, abs=0.05)
    assert analysis.weight_opposite.value == pytest.approx(1.0, abs=0.05)
    assert analysis.secondary["through_zero_opposite"].value == pytest.approx(1.445, abs=0.05)
    assert "disagreement_intercept" in cautions(analysis)
    assert "over_weights_opposite" not in analysis.flags
    assert analysis.comparison is not None
    assert analysis.comparison.needed == "shifts"


def test_one_regression_over_all_cells_is_bent_by_a_limit() -> None:
    analysis = analyze(simulate(dataclasses.replace(PAPER_LIKE, clip=6.9), 200), resamples=FEW)
    assert "contrasts are sounder" in cautions(analysis)["pooled_regression"]
    assert "pooled_regression" not in cautions(analyze(simulate(PAPER_LIKE, 200), resamples=FEW))


def test_noise_does_not_look_like_too_little_weight() -> None:
    """A reading that is noisy is overconfident; the weights of an ideal observer that reads so are 1 all the same."""
    values = []
    for seed in range(3):
        analysis = analyze(simulate(Observer(noise=1.0), 1200, seed=seed, displays=("hidden", "shown")), resamples=200)
        assert analysis.calibration is not None
        assert analysis.calibration.temperature > analysis.temperature.value
        values.append(analysis.calibrated["weight_opposite"].value)
    assert np.mean(values) == pytest.approx(1.0, abs=0.12)


def test_readings_with_little_in_common_are_not_calibrated() -> None:
    analysis = analyze(simulate(Observer(noise=4.0), 300), resamples=FEW)
    assert not analysis.temperature.known
    assert not any("weight" in flag for flag in analysis.flags)


def marked(trials: Trials, share: float, reason: str) -> Trials:
    invalid = np.where(np.random.default_rng(0).random(len(trials)) < share, reason, "")
    return dataclasses.replace(trials, invalid=invalid)


def test_refusals_are_counted_and_their_questions_left_out() -> None:
    analysis = analyze(marked(simulate(PAPER_LIKE, 100), 0.005, "refusal"), resamples=FEW)
    assert "refusal" in cautions(analysis)["invalid"]
    assert "lack a cell" in cautions(analysis)["dropped"]
    assert analysis.compared < 100
    assert analysis.choice_bias.known


def test_broken_readings_are_refused() -> None:
    trials = simulate(PAPER_LIKE, 200)
    invalid = np.where(np.isin(trials.question, (0, 1, 2, 3)), "not finite", "")
    analysis = analyze(dataclasses.replace(trials, invalid=invalid), resamples=FEW)
    assert "broken_readings" in cautions(analysis)
    assert not analysis.choice_bias.known
    assert analysis.sentence.startswith("Nothing can be said: 2.0% of readings")


@pytest.mark.parametrize(("mass", "known"), [(0.8, True), (0.4, False)])
def test_probability_that_goes_to_other_words(mass: float, known: bool) -> None:
    trials = simulate(PAPER_LIKE, 40)
    stage_2 = dataclasses.replace(trials.stage_2, mass=np.full_like(trials.stage_2.mass, mass))
    analysis = analyze(dataclasses.replace(trials, stage_2=stage_2), resamples=FEW)
    assert f"{mass:.0%}" in cautions(analysis)["mass"]
    assert analysis.choice_bias.known is known
    assert bool(analysis.flags) is known


def test_a_leaning_to_a_place_is_measured_and_named() -> None:
    analysis = analyze(simulate(Observer(position=1.5), 100), resamples=FEW)
    assert analysis.position_bias.value == pytest.approx(1.5, abs=0.1)
    assert "shown first" in cautions(analysis)["position_bias"]
    assert analysis.choice_bias.value == pytest.approx(0.0, abs=0.1)


def test_a_single_order_is_named() -> None:
    trials = simulate(Observer(), 60)

    def one(stage):
        scores = stage.scores.copy()
        scores[:, 1] = np.nan
        return dataclasses.replace(stage, scores=scores)

    analysis = analyze(
        dataclasses.replace(trials, stage_1=one(trials.stage_1), stage_2=one(trials.stage_2)), resamples=FEW
    )
    assert "100%" in cautions(analysis)["single_order"]
    assert not analysis.position_bias.known


@pytest.mark.parametrize(("share", "name"), [(0.0, "at_chance"), (1.0, "at_ceiling")])
def test_sets_that_tell_nothing(share: float, name: str) -> None:
    trials = simulate(PAPER_LIKE, 100)
    right = trials.question < 100 * share
    analysis = analyze(
        dataclasses.replace(trials, answer=np.where(right, trials.choice, 1 - trials.choice)), resamples=FEW
    )
    assert "uninformative" in cautions(analysis)[name]
    assert not any("weight" in flag for flag in analysis.flags)
    assert "clings" in analysis.flags


def test_without_answers_weights_are_not_called_right_or_wrong() -> None:
    trials = simulate(PAPER_LIKE, 100)
    analysis = analyze(dataclasses.replace(trials, answer=np.full(len(trials), -1)), resamples=FEW)
    assert "no_answers" in cautions(analysis)
    assert set(analysis.flags) == {"clings", "own_answer", "asymmetric"}
    assert not analysis.calibrated["weight_opposite"].known


def test_ties_and_few_questions_are_said() -> None:
    trials = simulate(PAPER_LIKE, 12)
    flat = readings(np.zeros((len(trials), 2)))
    rows = trials.question == 0
    scores = np.where(rows[:, None, None], flat.scores, trials.stage_2.scores)
    analysis = analyze(
        dataclasses.replace(trials, stage_2=dataclasses.replace(trials.stage_2, scores=scores)), resamples=FEW
    )
    assert str(rows.sum()) in cautions(analysis)["ties"]
    assert "12 questions" in cautions(analysis)["few_questions"]


@pytest.mark.parametrize(("right", "name"), [(0.5, "at_chance"), (1.0, "at_ceiling"), (0.75, "")])
def test_sets_of_bare_choices_that_tell_nothing(right: float, name: str) -> None:
    """Answers are known, and so is how often the choices are right, without any confidence."""
    trials = simulate(PAPER_LIKE, 40)
    correct = trials.question % 4 < 4 * right
    bare = {
        stage: dataclasses.replace(readings, scores=(readings.scores > np.log(0.5)).astype(float))
        for stage, readings in (("stage_1", trials.stage_1), ("stage_2", trials.stage_2))
    }
    answer = np.where(correct, trials.choice, 1 - trials.choice)
    said = cautions(analyze(dataclasses.replace(trials, **bare, answer=answer, source="choices"), resamples=FEW))
    assert [word for word in ("at_chance", "at_ceiling", "no_answers") if word in said] == ([name] if name else [])


def test_sampled_confidences_are_said() -> None:
    trials = dataclasses.replace(simulate(PAPER_LIKE, 40), source="sampled", samples=20)
    assert "20 answers" in cautions(analyze(trials, resamples=FEW))["sampled"]
