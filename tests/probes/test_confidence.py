"""The probe of minds that change: one report, the same from the responder and from the store."""

from __future__ import annotations

import dataclasses
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from holdfast.confidence import (
    PRESETS,
    Answer,
    Plan,
    SimulatedResponder,
    Store,
    TrialDesign,
    UnusableAnswers,
    results_of,
    simulated_questions,
)
from holdfast.errors import ArgumentError
from holdfast.probes.confidence import TERMS, probe_confidence, report_of_results

QUESTIONS = tuple(simulated_questions(20))


def probe(store, preset="both", plan=QUESTIONS, **options):
    return probe_confidence(SimulatedResponder(PRESETS[preset]), plan, store, resamples=200, **options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store") / "store.jsonl")
    said: list[str] = []
    return store, probe(store, tell=said.append, price=(1.0, 2.0)), said


def test_the_report_begins_with_one_sentence_that_says_what_how_much_and_what_to_try(stored):
    _, report, _ = stored
    text = str(report)
    first = " ".join(text[: text.index("\n\n")].split())
    assert first == report.verdict
    assert report.verdict.count(". ") == 0
    assert "clings to its own earlier answer (+" in first
    assert "times as much as agreeing advice" in first
    assert "try hiding the earlier answer (mask_own_answer) and weighing advice outside of the model (fuse)" in first
    assert max(map(len, text.splitlines())) <= 80
    assert "20 questions" in report.asked
    assert "760 of 760 readings; equal prompts have equal answers." in report.asked


def test_an_ideal_observer_is_not_blamed(tmp_path):
    report = probe(tmp_path / "store", "bayes")
    assert report.analysis.flags == ()
    assert report.verdict.startswith("No departure from an ideal Bayesian observer was found in 20 questions")


def test_the_cost_is_told_before_the_first_request(stored):
    _, _, said = stored
    assert said[0].startswith("760 requests (40 in stage 1, 720 in stage 2), about ")
    assert " at the price given; answers are kept in " in said[0]
    assert said[-1] == "760 requests were answered now, 0 before"


def test_the_store_alone_gives_the_same_report_and_nothing_is_asked_again(stored):
    store, report, _ = stored
    again: list[str] = []
    assert report_of_results(results_of(store), resamples=200).to_dict() == report.to_dict()
    assert probe(store, tell=again.append).to_dict() == report.to_dict()
    assert again[-1] == "0 requests were answered now, 760 before"


def test_a_run_that_was_cut_off_is_reported_as_such(tmp_path):
    plan = Plan(QUESTIONS[:4], TrialDesign(displays=("shown", "hidden"), accuracies=(0.6, 0.9)))

    class Leaving:
        backend = SimulatedResponder(PRESETS["both"]).backend

        def answer(self, asks):
            for number, answer in enumerate(SimulatedResponder(PRESETS["both"]).answer(asks)):
                if number == 60:
                    raise UnusableAnswers("the power failed")
                yield answer

    store = Store(tmp_path / "store")
    with pytest.raises(UnusableAnswers, match="power"):
        probe_confidence(Leaving(), plan, store)
    report = report_of_results(results_of(store), resamples=50)
    assert "68 of 104 readings" in report.asked
    assert any("requests have no answer yet" in warning for warning in report.warnings)
    assert "! 36 of 104 requests have no answer yet" in str(report)


class Shaken:
    """An observer behind a server whose answers differ from one time to the next.

    Arguments:
        deviation: of the log-odds.
        change: the number of a request and its answer -> the answer that is given.
    """

    def __init__(self, deviation, change=lambda number, answer: answer):
        self.responder, self.change = SimulatedResponder(PRESETS["both"]), change
        self.deviation, self.rng = deviation, np.random.default_rng(5)
        self.backend = dataclasses.replace(self.responder.backend, kind="shaken", deterministic=False)

    def answer(self, asks):
        for number, answer in enumerate(self.responder.answer(asks)):
            shift = self.deviation * self.rng.standard_normal()
            yield self.change(number, dataclasses.replace(answer, scores=(answer.scores[0] + shift, answer.scores[1])))


def test_the_noise_of_equal_prompts_is_counted_and_said(tmp_path):
    said: list[str] = []
    report = probe_confidence(Shaken(0.05), QUESTIONS, tmp_path / "store", tell=said.append, resamples=200)
    assert said[0].startswith("780 requests (40 in stage 1, 720 in stage 2, 20 once more), about ")
    assert said[-1] == "780 requests were answered now, 0 before"
    # The standard deviation of twenty differences is known to about a third.
    assert 0.025 < report.noise.deviation < 0.1
    words = f"780 of 780 readings; equal prompts differ by {report.noise.deviation:.2g} log-odds (standard deviation"
    assert words in report.asked
    assert report.to_dict()["noise"] == {"deviation": report.noise.deviation, "duplicates": 20}
    # The observer's own noise is .3 a reading, of which this is little.
    assert report.warnings == ()


def test_noise_that_makes_the_intervals_is_warned_of(tmp_path):
    report = probe_confidence(Shaken(1.0), QUESTIONS, tmp_path / "store", resamples=200)
    [warning] = report.warnings
    assert warning.startswith(
        f"answers to equal prompts differ by {report.noise.deviation:.2g} log-odds, which is large"
    )
    assert "choice bias is known to ±" in warning
    text = " ".join(str(report).split())
    assert text.count("Ask fewer at a time") == 1


def test_what_a_plan_does_not_measure_is_not_said(tmp_path):
    report = probe_confidence(Shaken(0.05), Plan(QUESTIONS), tmp_path / "store", resamples=200)
    assert report.noise is None
    assert "equal prompts" not in report.asked
    assert report.to_dict()["noise"] is None


def test_little_mass_unusable_readings_and_one_order_are_said_once(tmp_path):
    def odd(number, answer):
        if number % 60 == 59:
            return Answer(answer.key, problem="refusal")
        return dataclasses.replace(answer, mass=0.8)

    plan = Plan(QUESTIONS, TrialDesign(accuracies=(0.6, 0.9), orders="listed"))
    report = probe_confidence(Shaken(0.0, odd), plan, tmp_path / "store", resamples=200)
    text = " ".join(str(report).split())
    assert text.count("80%") == 1
    assert text.count("refusal") == 1
    assert text.count("asked in one order") == 1
    assert {"mass", "invalid", "single_order"} <= {caution.name for caution in report.analysis.warnings}


def test_it_is_json_a_picture_and_an_explanation(stored):
    _, report, _ = stored
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["verdict"] == report.verdict
    assert plain["choice_bias"]["value"] == pytest.approx(report.analysis.choice_bias.value)
    assert "clings" in plain["flags"]
    explained = report.explain().splitlines()
    assert len(explained) == len(TERMS)
    # Everything that the table of estimates and that of cells name is explained.
    for term in ("choice bias", "weight of contradiction", "mere contradiction", "first place", "change of p"):
        assert term in str(report)
        assert any(line.startswith(term) for line in explained)
    _, axes = plt.subplots()
    report.plot(axes)
    assert "minds changed" in axes.get_ylabel()
    assert axes.patches
    plt.close("all")


def test_what_cannot_be_asked_is_said_before_anything_is(tmp_path):
    with pytest.raises(ArgumentError, match="there are no questions"):
        probe(tmp_path / "store", plan=())
    assert not (tmp_path / "store").exists()


def test_a_model_that_wants_to_write_something_else_is_refused_with_what_it_writes(tmp_path):
    class Talkative:
        backend = SimulatedResponder(PRESETS["bayes"]).backend

        def answer(self, asks):
            for ask in asks:
                yield Answer(ask.key, (math.log(0.2), math.log(0.1)), 0.3, tokens=(("The", math.log(0.7)),))

    with pytest.raises(UnusableAnswers, match=r"hold 30% of the probability.*'The' \(70%\)"):
        probe_confidence(Talkative(), QUESTIONS, tmp_path / "store")
