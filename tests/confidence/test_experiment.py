"""The whole experiment with a simulated observer that sees text alone: what comes out, and what interrupts it."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from holdfast.confidence.contrasts import contrast
from holdfast.confidence.experiment import run
from holdfast.confidence.observers import Observer
from holdfast.confidence.plan import PILOT, Plan, TrialDesign
from holdfast.confidence.questions import Question
from holdfast.confidence.responders import NOT_FINITE, Answer, Backend, SimulatedResponder, simulated_questions
from holdfast.confidence.results import UnusableAnswers, refuse_nothing, results_of, trials_of
from holdfast.confidence.store import Keys, Store
from holdfast.confidence.templates import PLAIN, TEMPLATES
from holdfast.errors import ArgumentError, HoldfastError

SMALL = TrialDesign(displays=("shown", "hidden"), advice=("opposite", "neutral"), accuracies=(0.7, 0.9))


class Counting:
    """A responder that counts requests, and may be told what to answer.

    Arguments:
        responder: who answers.
        change: the number of a request and its answer -> the answer that is given; it may raise.
    """

    def __init__(self, responder=None, change=lambda number, answer: answer):
        self.responder = responder or SimulatedResponder(Observer())
        self.change = change
        self.asked = []

    @property
    def backend(self):
        return self.responder.backend

    def answer(self, asks):
        for ask in asks:
            self.asked.append(ask)
            (answer,) = self.responder.answer([ask])
            yield self.change(len(self.asked), answer)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.jsonl")


def columns(trials):
    """All of the trials, in a form that can be compared."""
    readings = [
        getattr(getattr(trials, stage), name) for stage in ("stage_1", "stage_2") for name in ("scores", "mass")
    ]
    words = [
        getattr(trials, name).tolist() for name in ("question", "template", "display", "advice", "choice", "invalid")
    ]
    return json.dumps([words, trials.accuracy.tolist(), [values.tolist() for values in readings]])


@pytest.mark.parametrize("form", ["chat", "flat"])
def test_parameters_are_recovered_from_text_alone(form, store):
    observer = Observer(
        noise=0.3,
        bias=0.8,
        bias_other=0.3,
        weight_same=0.8,
        weight_opposite=2.0,
        shift_opposite=0.4,
        position=0.7,
    )
    design = TrialDesign(accuracies=(0.6, 0.7, 0.8, 0.9), templates=(dataclasses.replace(PLAIN, form=form),))
    results = run(Plan(tuple(simulated_questions(80)), design), SimulatedResponder(observer), store)
    assert results.complete
    assert results.warnings == ()
    measured = contrast(results.trials)
    assert measured.questions == 80
    truth = {
        "choice_bias": observer.bias,
        "ownership_bias": observer.bias - observer.bias_other,
        "weight_same": observer.weight_same,
        "intercept_same": 0.0,
        "weight_opposite": observer.weight_opposite,
        "intercept_opposite": observer.shift_opposite,
        "position_bias": observer.position,
    }
    for name, value in truth.items():
        values = measured.values[name]
        # Four standard errors: one of seven falls out in 1 of 2,000 draws, and the draw is fixed.
        assert abs(values.mean() - value) < 4 * values.std(ddof=1) / math.sqrt(len(values)), name
    known = results.trials.choice == results.trials.answer
    assert 0.6 < known.mean() < 0.95


def test_without_noise_the_values_are_exact(store):
    observer = Observer(noise=0.0, bias=1.0, weight_same=0.8, weight_opposite=2.5)
    plan = Plan(tuple(simulated_questions(10)), TrialDesign(accuracies=(0.6, 0.9), templates=tuple(TEMPLATES.values())))
    measured = contrast(run(plan, SimulatedResponder(observer), store).trials)
    assert measured.mean("choice_bias") == pytest.approx(1.0, abs=1e-9)
    assert measured.mean("weight_same") == pytest.approx(0.8, abs=1e-9)
    assert measured.mean("weight_opposite") == pytest.approx(2.5, abs=1e-9)


def test_as_many_requests_as_planned_and_none_again(store):
    plan = Plan(tuple(simulated_questions(12)), PILOT)
    lines = []
    first = Counting()
    results = run(plan, first, store, tell=lines.append)
    assert len(first.asked) == len({ask.key for ask in first.asked}) == plan.requests == results.answered
    again = Counting()
    assert columns(run(plan, again, store, tell=lines.append).trials) == columns(results.trials)
    assert again.asked == []
    assert lines == [
        f"{plan.requests} requests were answered now, 0 before",
        f"0 requests were answered now, {plan.requests} before",
    ]


DRIFT = 0.3


def drifting(number, answer):
    """Equal prompts differ by 0.3 log-odds from one half of the requests to the other."""
    shift = DRIFT / 2 if number % 2 else -DRIFT / 2
    return dataclasses.replace(answer, scores=(answer.scores[0] + shift, answer.scores[1]))


def test_duplicates_are_counted_kept_and_tell_the_noise_of_equal_prompts(store):
    plan = Plan(tuple(simulated_questions(6)), SMALL, duplicates=7)
    first = Counting()
    results = run(plan, first, store)
    assert len(first.asked) == len({ask.key for ask in first.asked}) == plan.requests == 6 * 2 * (1 + 8) + 7
    assert results.complete
    assert results.answered == plan.requests
    # The observer answers equal prompts alike, to the bit.
    assert (results.noise.deviation, results.noise.duplicates) == (0.0, 7)
    again = [number for number, ask in enumerate(first.asked) if "-" in ask.key]
    assert [first.asked[number].messages for number in again] == [ask.messages for ask in first.asked[:7]]
    # They stand among the requests of stage 2, not beside each other.
    assert again[0] >= plan.first_requests
    assert min(np.diff(again)) > 10
    lines = [json.loads(line) for line in store.path.read_text().splitlines()]
    assert sum(line.get("about", {}).get("duplicate") == 1 for line in lines) == 7
    nobody = Counting()
    assert run(plan, nobody, store).noise == results.noise
    assert nobody.asked == []


def test_noise_of_equal_prompts_is_what_their_answers_differ_by(store):
    """Of 12 prompts of stage 1 all are asked thrice, some four times: first, and duplicates at even and odd numbers."""
    plan = Plan(tuple(simulated_questions(6)), SMALL, duplicates=29)
    results = run(plan, Counting(change=drifting), store)
    answers = store.answers()
    groups = {}
    for key, answer in answers.items():
        groups.setdefault(key.partition("-")[0], []).append(answer.scores[0] - answer.scores[1])
    repeated = [values for values in groups.values() if len(values) > 1]
    assert sorted(map(len, repeated)) == [3] * 7 + [4] * 5
    squares = sum(((np.array(values) - np.mean(values)) ** 2).sum() for values in repeated)
    assert results.noise.duplicates == 29
    assert results.noise.deviation == pytest.approx(math.sqrt(squares / 29), rel=1e-9)
    assert 0.1 < results.noise.deviation < 0.2


def test_duplicates_without_use_tell_nothing(store):
    plan = Plan(tuple(simulated_questions(6)), SMALL, duplicates=4)

    def refused(number, answer):
        return Answer(answer.key, problem="refusal") if answer.key.endswith("-1") else answer

    results = run(plan, Counting(change=refused), store)
    assert results.complete
    assert results.noise is None
    assert results.problems == {}
    assert (results.trials.invalid == "").all()
    bounds = Counting(change=lambda number, answer: dataclasses.replace(answer, missing=(1,)))
    assert run(plan, bounds, Store(store.path.with_name("bounds"))).noise is None


def test_a_pilot_is_the_beginning_of_a_larger_run(store):
    questions = tuple(simulated_questions(8))
    pilot = run(Plan(questions[:4], SMALL, duplicates=5), Counting(), store)
    rest = Counting()
    whole = Plan(questions, SMALL, duplicates=5)
    run(whole, rest, store)
    assert len(rest.asked) == (whole.requests - 5) // 2
    assert columns(trials_of(store, pilot.run.id)) == columns(pilot.trials)
    with pytest.raises(ArgumentError, match="one of the runs in the store"):
        trials_of(store)


def test_hidden_prompts_hold_nothing_of_stage_1(store):
    """Another first answer leaves all hidden prompts what they were."""
    plan = Plan(tuple(simulated_questions(6)), TrialDesign(displays=("hidden", "shown"), accuracies=(0.7,)))

    def prompts(path, change):
        responder = Counting(change=change)
        run(plan, responder, Store(path))
        second = [ask for ask in responder.asked if len(ask.messages) > 1]
        return {json.dumps(ask.messages) for ask in second if "masked" in ask.messages[2]["content"]}, second

    def flipped(number, answer):
        return dataclasses.replace(answer, scores=answer.scores[::-1]) if number <= 12 else answer

    one, every = prompts(store.path.with_name("one"), lambda number, answer: answer)
    other, _ = prompts(store.path.with_name("other"), flipped)
    assert one == other
    assert len(one) == 6 * 2 * 3
    assert len(every) == 2 * len(one)


KILLED = """
import os, signal, sys
from holdfast.confidence.experiment import run
from holdfast.confidence.observers import Observer
from holdfast.confidence.plan import TrialDesign, Plan
from holdfast.confidence.responders import SimulatedResponder, simulated_questions
from holdfast.confidence.store import Store

path, log, most = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Killed(SimulatedResponder):
    def answer(self, asks):
        with open(log, "a") as asked:
            for number, ask in enumerate(asks):
                print(ask.key, file=asked, flush=True)
                if number == most:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield from super().answer([ask])

design = TrialDesign(displays=("shown", "hidden"), advice=("opposite", "neutral"), accuracies=(0.7, 0.9))
run(Plan(tuple(simulated_questions(30)), design, duplicates=20), Killed(Observer()), Store(path))
"""


def test_three_kills_cost_the_requests_that_were_under_way(store, tmp_path):
    log = tmp_path / "asked"
    for most in (25, 150, 100):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(store.path), str(log), str(most)], timeout=120)
        assert killed.returncode == -9
    plan = Plan(tuple(simulated_questions(30)), SMALL, duplicates=20)
    last = Counting()
    resumed = run(plan, last, store)
    asked = Counter([*log.read_text().split(), *(ask.key for ask in last.asked)])
    assert len(asked) == plan.requests
    assert asked.total() == plan.requests + 3
    whole = run(plan, Counting(), Store(tmp_path / "whole.jsonl"))
    assert columns(resumed.trials) == columns(whole.trials)


def test_an_interrupted_run_says_what_is_missing(store):
    def stop(number, answer):
        if number > 30:
            raise HoldfastError("the server is gone")
        return answer

    plan = Plan(tuple(simulated_questions(5)), SMALL)
    with pytest.raises(HoldfastError, match="the server is gone"):
        run(plan, Counting(change=stop), store)
    results = results_of(store)
    assert not results.complete
    assert results.answered == 30
    assert f"{plan.requests - 30} of {plan.requests} requests have no answer yet" in results.warnings
    assert set(results.trials.invalid) == {"", "not asked"}
    assert (results.trials.invalid == "").sum() == 8  # both orders of two questions, eight cells less of the third
    assert run(plan, Counting(), store).complete


def test_two_programs_do_not_write_to_one_store(store):
    plan = Plan(tuple(simulated_questions(2)), SMALL)

    def interfere(number, answer):
        with pytest.raises(ArgumentError, match="nobody else"):
            run(plan, Counting(), Store(store.path))
        return answer

    run(plan, Counting(change=interfere), store)


def test_a_changed_template_is_a_run_of_its_own(store):
    questions = tuple(simulated_questions(3))
    run(Plan(questions, SMALL), Counting(), store)
    lines = []
    changed = dataclasses.replace(PLAIN, final="So, which one? Letter only.")
    responder = Counting(SimulatedResponder(Observer(), templates=(changed,)))
    plan = Plan(questions, dataclasses.replace(SMALL, templates=(changed,)))
    results = run(plan, responder, store, tell=lines.append)
    assert len(responder.asked) == plan.requests
    assert "template plain is not what it was" in lines[0]
    assert results.run.id in lines[0]
    assert len(store.runs()) == 2


def test_keys_depend_on_all_that_decides_an_answer():
    backend = Backend("m", "chat", "host", {"temperature": 0})
    messages = [{"role": "user", "content": "x"}]
    keys = {Keys(backend, PLAIN).of(messages)}
    for name, value in {
        "model": "n",
        "kind": "systemone",
        "host": "other",
        "params": {"temperature": 1},
        "samples": 20,
    }.items():
        keys.add(Keys(dataclasses.replace(backend, **{name: value}), PLAIN).of(messages))
    keys.add(Keys(backend, TEMPLATES["form"]).of(messages))
    keys.add(Keys(backend, PLAIN).of([{"role": "user", "content": "y"}]))
    keys.add(Keys(backend, PLAIN).of([{"role": "system", "content": "x"}]))
    assert len(keys) == 9
    assert Keys(backend, PLAIN).of(messages) in keys


def test_answers_survive_the_file(store):
    reading = Answer(
        "k",
        (-0.1, -2.5),
        0.99,
        (1,),
        tokens=(("A", -0.1),),
        raw={"model": "m"},
        seconds=0.5,
        attempts=2,
        errors=("429",),
    )
    for answer in (reading, Answer("k", (0.0, -1.0), 0.0), Answer("k", problem="refusal")):
        again = Answer.of_record("k", json.loads(json.dumps(answer.to_record())))
        assert again.to_record() == answer.to_record()
        assert again.scores == answer.scores
        assert again.problem == answer.problem
        assert np.array_equal(again.mass, answer.mass, equal_nan=True)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"scores": [-0.1, math.nan]},
        {"scores": [-0.1, -2.5], "problem": "refusal"},
        {"scores": [-0.1, -2.5], "mass": 7},
        {"scores": [-0.1, -2.5], "missing": [2]},
        {"scores": [-0.1, -2.5], "missing": [math.inf]},
        {"scores": [-0.1, -2.5], "tokens": [["A"]]},
        {"scores": [-0.1, -2.5], "raw": 5},
        {"scores": 5},
        7,
    ],
)
def test_a_record_that_is_no_answer_is_asked_for_again(record, store):
    plan = Plan(tuple(simulated_questions(6)), SMALL)
    run(plan, Counting(), store, progress=False)
    before = columns(trials_of(store))
    lines = store.path.read_text().splitlines()
    lines[5] = json.dumps({"key": json.loads(lines[5])["key"], "answer": record})
    store.path.write_text("\n".join([*lines, '{"key": 5, "answer": {}}']) + "\n")
    again = Counting()
    results = run(plan, again, Store(store.path), progress=False)
    assert len(again.asked) == 1
    assert results.complete
    assert columns(results.trials) == before


def test_refusals_are_kept_counted_and_left_out(store):
    plan = Plan(tuple(simulated_questions(20)), SMALL)
    refused = Counting(change=lambda number, answer: Answer(answer.key, problem="refusal") if number == 60 else answer)
    results = run(plan, refused, store)
    assert results.problems == {"refusal": 1}
    assert results.complete
    assert (results.trials.invalid == "refusal").sum() == 1
    measured = contrast(results.trials)
    assert (measured.dropped, measured.questions) == (1, 19)


def test_a_run_of_refusals_says_why_nothing_can_be_said(store):
    """And one that has begun says how far it is; neither is a mistake of whoever calls."""
    plan = Plan(tuple(simulated_questions(4)), SMALL)

    def leaving(number, answer):
        if number > 20:
            raise HoldfastError("the server is gone")
        return answer

    with pytest.raises(HoldfastError, match="gone"):
        run(plan, Counting(change=leaving), store)
    with pytest.raises(UnusableAnswers, match=f"20 of {plan.requests} requests are answered.*To go on"):
        refuse_nothing(results_of(store))
    refuses = Counting(change=lambda number, answer: Answer(answer.key, problem="refusal"))
    with pytest.raises(UnusableAnswers, match="of 32 trials refusal in 32 are left out"):
        refuse_nothing(run(plan, refuses, Store(store.path.with_name("other"))))


def test_a_refusal_in_stage_1_ends_that_question(store):
    plan = Plan(tuple(simulated_questions(20)), SMALL)
    refused = Counting(change=lambda number, answer: Answer(answer.key, problem="refusal") if number == 3 else answer)
    results = run(plan, refused, store)
    assert len(refused.asked) == plan.requests - 16
    assert results.complete
    assert results.undecided == 1
    assert (results.trials.invalid == "refusal").sum() == 8


def test_a_model_that_refuses_everything_has_no_valid_trial(store):
    plan = Plan(tuple(simulated_questions(4)), SMALL)
    refuses = Counting(change=lambda number, answer: Answer(answer.key, problem="refusal"))
    results = run(plan, refuses, store)
    assert len(refuses.asked) == plan.first_requests
    assert results.complete
    assert not results.trials.valid.any()
    assert results.problems == {"refusal": 8}


def test_little_mass_stops_early_and_says_what_was_seen(store):
    tokens = (("The", math.log(0.7)), ("A", math.log(0.2)))
    responder = Counting(change=lambda number, answer: dataclasses.replace(answer, mass=0.3, tokens=tokens))
    with pytest.raises(UnusableAnswers, match=r"labels hold 30% .*'The' \(70%\), 'A' \(20%\)"):
        run(Plan(tuple(simulated_questions(50)), SMALL), responder, store)
    assert len(responder.asked) == 20


def test_some_mass_elsewhere_is_a_warning(store):
    def elsewhere(number, answer):
        return dataclasses.replace(answer, mass=0.0) if number in range(20, 90, 7) else answer

    results = run(Plan(tuple(simulated_questions(5)), SMALL), Counting(change=elsewhere), store)
    assert results.problems == {"little mass on the labels": 10}
    assert results.mass == pytest.approx(80 / 90)
    assert set(results.trials.invalid) == {"", "little mass on the labels"}


def test_numbers_that_are_none_end_it_beyond_one_percent(store):
    broken = Counting(
        change=lambda number, answer: Answer(answer.key, problem=NOT_FINITE) if number in (50, 90) else answer
    )
    with pytest.raises(UnusableAnswers, match="2 of 90 readings are infinite or no numbers"):
        run(Plan(tuple(simulated_questions(5)), SMALL), broken, store)


def test_ties_have_no_choice(store):
    plan = Plan(tuple(simulated_questions(20)), SMALL)

    def tied(most):
        return lambda number, answer: dataclasses.replace(answer, scores=(-0.7, -0.7)) if number <= most else answer

    results = run(plan, Counting(change=tied(2)), store)
    assert results.undecided == 1
    assert (results.trials.invalid == "tie").sum() == 8
    with pytest.raises(UnusableAnswers, match="2 of 20 questions have no choice"):
        run(plan, Counting(change=tied(4)), Store(store.path.with_name("other")))


def test_a_model_that_is_changed_behind_its_name_is_noticed(store):
    def swapped(number, answer):
        return dataclasses.replace(answer, raw={"model": "m", "system_fingerprint": "one" if number < 40 else "two"})

    results = run(Plan(tuple(simulated_questions(5)), SMALL), Counting(change=swapped), store)
    assert "the server changed its model during the run: m one, m two" in results.warnings


def test_a_responder_that_breaks_the_contract_is_stopped(store):
    plan = Plan(tuple(simulated_questions(2)), SMALL)
    for change in (
        lambda number, answer: dataclasses.replace(answer, key="other"),
        lambda number, answer: dataclasses.replace(answer, scores=(0.0, 0.0, 0.0)),
    ):
        with pytest.raises(HoldfastError, match="what was not asked"):
            run(plan, Counting(change=change), store)

    class Lazy(Counting):
        def answer(self, asks):
            list(asks)
            yield from ()

    with pytest.raises(HoldfastError, match="4 requests without an answer"):
        run(plan, Lazy(), store)


class OfThree:
    """Likes the third option best, whatever stands where, and follows whoever names one."""

    backend = Backend("three", "test")

    def answer(self, asks):
        for ask in asks:
            liking = {"x": 0.0, "y": 1.0, "z": 2.0}
            text = ask.messages[-1]["content"]
            followed = [label for label in ask.labels if f"chose {label}." in text]
            scores = [
                liking[option] + 5 * (label in followed) for label, option in zip(ask.labels, ask.options, strict=True)
            ]
            total = math.log(sum(map(math.exp, scores)))
            yield Answer(ask.key, tuple(score - total for score in scores), 1.0)


def test_three_options(store):
    questions = (Question("a", "Which?", ("x", "y", "z"), 2), Question("b", "Which then?", ("z", "x"), 0))
    trials = run(Plan(questions, TrialDesign(accuracies=(0.8,), neutral="absent")), OfThree(), store).trials
    of_three = trials.where(trials.question == "a")
    assert set(of_three.choice) == {2}
    assert set(of_three.options) == {3}
    assert set(trials.where(trials.question == "b").choice) == {0}
    opposite = of_three.where((of_three.advice == "opposite") & (of_three.display == "hidden"))
    assert opposite.advised.tolist() == [questions[0].rival(2)]
    assert opposite.change_of_mind.tolist() == [1.0]
    neutral = trials.where((trials.advice == "neutral") & (trials.display == "hidden"))
    assert neutral.change_of_mind.tolist() == [0.0, 0.0]
    assert np.isnan(neutral.accuracy).all()


class OfTheFirstPlace:
    """Likes options by their numbers, and whatever stands first by 1.5 more."""

    backend = Backend("first", "test", deterministic=True)

    def answer(self, asks):
        for ask in asks:
            scores = [0.7 * int(option) + 1.5 * (place == 0) for place, option in enumerate(ask.options)]
            total = math.log(sum(map(math.exp, scores)))
            yield Answer(ask.key, tuple(score - total for score in scores), 1.0)


def test_each_option_stands_at_each_place_once(store):
    """Whatever stands first is liked, which no mean of an order and its reverse would take from options at the end."""
    questions = (Question("four", "?", ("2", "3", "0", "1")), Question("two", "??", ("0", "1")))
    plan = Plan(questions, SMALL)
    assert plan.first_requests == 4 + 2
    results = run(plan, OfTheFirstPlace(), store)
    assert results.complete
    scores = results.trials.stage_1.mean_scores
    of_four = scores[results.trials.question == "four"]
    assert np.diff(of_four, axis=1) == pytest.approx(np.array([[0.7, -2.1, 0.7]] * len(of_four)), abs=1e-12)
    of_two = scores[results.trials.question == "two"]
    assert of_two[:, 1] - of_two[:, 0] == pytest.approx(0.7, abs=1e-12)
    assert np.isnan(of_two[:, 2:]).all()


class OfPlaces:
    """Says a bare letter: always the first, or the right one."""

    backend = Backend("places", "test", source="choices")

    def answer(self, asks):
        for ask in asks:
            choice = ask.options.index("red") if "round 1 " in ask.messages[0]["content"] else 0
            yield Answer(ask.key, tuple(float(place == choice) for place in range(2)))


def test_bare_choices_that_follow_the_order_are_no_choices(store):
    results = run(Plan(tuple(simulated_questions(3)), SMALL), OfPlaces(), store)
    assert results.complete
    assert results.undecided == 2
    assert results.trials.source == "choices"
    assert set(results.trials.invalid) == {"undecided", ""}
    assert math.isnan(results.mass)
    assert set(results.trials.where(results.trials.valid).question) == {"game 0, round 1"}


def test_a_store_of_something_else_is_one_line(store):
    store.path.write_text('{"key": "run-x", "answer": {"plan": 3}}\n{"key": "y", "answer": 7}\n')
    with pytest.raises(ArgumentError, match="runs of this version"):
        results_of(store)
    assert store.answers() == {}
    with pytest.raises(ArgumentError, match="empty, which holds none"):
        results_of(Store(store.path.with_name("empty")))


def test_a_run_that_cannot_be_read_leaves_the_others_alone(store):
    store.path.write_text('{"key": "run-x", "answer": {"plan": 3}}\n')
    plan = Plan(tuple(simulated_questions(2)), SMALL)
    results = run(plan, Counting(), store, progress=False)
    assert results.complete
    assert list(store.runs()) == [results.run.id]
    assert columns(results_of(store).trials) == columns(results.trials)
    with pytest.raises(ArgumentError, match=r"runs of this version.*run x cannot be read"):
        results_of(store, "x")
    lines = store.path.read_text().splitlines()
    lines[1] = json.dumps({"key": json.loads(lines[1])["key"], "answer": {}})
    store.path.write_text("\n".join(lines) + "\n")
    again = Counting()
    assert columns(run(plan, again, Store(store.path), progress=False).trials) == columns(results.trials)
    assert again.asked == []
