"""A simulated observer behind a real HTTP server: the whole way of a number, and everything that gets in its way."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from holdfast.confidence.analysis import analyze
from holdfast.confidence.contrasts import contrast
from holdfast.confidence.experiment import run
from holdfast.confidence.extraction import NoLogprobs
from holdfast.confidence.latitude import latitude_questions
from holdfast.confidence.observer_server import (
    WITH_SPACE,
    Faults,
    ObserverServer,
    hidden_leak,
    latitude_answers,
    serving,
)
from holdfast.confidence.observers import PRESETS, Observer
from holdfast.confidence.plan import Plan, TrialDesign
from holdfast.confidence.responders import (
    Answer,
    Ask,
    ChatResponder,
    SimulatedResponder,
    SystemOneResponder,
    simulated_questions,
)
from holdfast.confidence.store import Store
from holdfast.confidence.templates import PLAIN, first_prompt, second_prompt
from holdfast.errors import ArgumentError
from holdfast.llm import Endpoint, EndpointError
from tests.command_line import ask as command

for module in ("aiohttp", "starlette", "tenacity", "uvicorn"):
    pytest.importorskip(module)

BOTH = SimulatedResponder(PRESETS["both"])
SMALL = TrialDesign(displays=("shown", "hidden"), accuracies=(0.6, 0.9))
PLAN = Plan(tuple(simulated_questions(6)), SMALL)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.jsonl")


def endpoint(base_url: str, **options) -> Endpoint:
    return Endpoint("obs", **{"base_url": base_url, "api_key_env": None, "first_wait_s": 0.005, **options})


def ask(server: ObserverServer, store: Store, plan: Plan = PLAN, **options):
    with serving(server) as base_url:
        return run(plan, ChatResponder(endpoint(base_url, **options)), store, progress=False)


def in_process(store: Store, plan: Plan = PLAN, responder: SimulatedResponder = BOTH):
    return run(plan, responder, Store(store.path.with_name("in_process.jsonl")), progress=False).trials


def assert_same(one, other) -> None:
    """Equal numbers: the way over the network adds a constant to log-probabilities, which their differences lose."""
    assert one.question.tolist() == other.question.tolist()
    assert one.choice.tolist() == other.choice.tolist()
    for name in ("initial_log_odds", "final_log_odds"):
        # Sums and logarithms of a few numbers in double precision.
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-12)


# What comes out.


def test_the_chat_protocol_changes_no_number(store):
    server = ObserverServer(BOTH, Faults(slow=1.0, slow_s=0.01))
    results = ask(server, store, concurrency=5)
    assert results.complete
    assert results.warnings == ()
    assert results.mass == pytest.approx(0.98)
    assert_same(results.trials, in_process(store))
    seen = server.seen
    assert dict(seen.statuses) == {200: PLAN.requests}, "as many requests as planned"
    assert (seen.repeated, seen.leaks) == (0, [])
    assert seen.hidden == PLAN.requests * 6 // 13, "every hidden prompt was put together anew"
    assert seen.most_at_once == 5


def test_the_systemone_protocol_changes_no_number(store):
    plan = dataclasses.replace(
        PLAN, design=dataclasses.replace(SMALL, templates=(dataclasses.replace(PLAIN, form="flat"),))
    )
    server = ObserverServer(BOTH)
    with serving(server) as base_url:
        responder = SystemOneResponder(endpoint(base_url, protocol="systemone"))
        results = run(plan, responder, store, progress=False)
    assert_same(results.trials, in_process(store, plan))
    assert dict(server.seen.statuses) == {200: plan.requests}


def test_parameters_are_recovered_over_the_network(store):
    observer = Observer(noise=0.3, bias=0.8, weight_same=0.8, weight_opposite=2.0)
    plan = Plan(
        tuple(simulated_questions(30)), TrialDesign(displays=("shown", "hidden"), accuracies=(0.6, 0.7, 0.8, 0.9))
    )
    results = ask(ObserverServer(SimulatedResponder(observer)), store, plan, concurrency=16)
    analysis = analyze(results.trials, resamples=500)
    for estimate, truth in (
        (analysis.choice_bias, 0.8),
        (analysis.weight_same, 0.8),
        (analysis.weight_opposite, 2.0),
        (analysis.ratio, 2.5),
    ):
        assert estimate.low <= truth <= estimate.high
    assert analysis.choice_bias.high - analysis.choice_bias.low < 0.5


@pytest.mark.parametrize("faults", [Faults(lower_case=True), Faults(extra_tokens=True)])
def test_ways_of_writing_a_label_change_no_number(faults, store):
    assert_same(ask(ObserverServer(BOTH, faults), store).trials, in_process(store))


def test_a_short_list_of_tokens_makes_bounds_and_says_so(store):
    results = ask(ObserverServer(BOTH, Faults(top=5)), store)
    censored = results.trials.stage_2.censored
    assert 0.2 < censored.mean() < 1
    exact, trials = in_process(store).final_log_odds, results.trials.final_log_odds
    cut = -math.log(1 - WITH_SPACE)  # the rarer spelling of a label may be what the list ends before
    known = ~censored.any(axis=1)
    assert np.abs(trials - exact)[known].max() <= cut + 1e-12
    assert (np.abs(trials) <= np.abs(exact) + cut + 1e-12).all(), "bounds are bounds"
    assert (np.abs(trials) < np.abs(exact) - 1)[~known].any()


def test_a_clipped_observer_is_censored_where_it_is(store):
    clipped = SimulatedResponder(dataclasses.replace(PRESETS["both"], clip=3.0))
    trials = ask(ObserverServer(clipped), store).trials
    exact = in_process(store, responder=clipped)
    assert_same(trials, exact)
    assert np.array_equal(trials.stage_2.censored, exact.stage_2.censored)
    assert exact.stage_2.censored.any()


def test_a_model_in_process_answers_through_the_server_with_its_own_probabilities(store):
    pytest.importorskip("transformers")
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder
    from tests.confidence.tiny import llama, tokenizer

    model = HuggingFaceResponder(llama(), tokenizer())
    asks = [
        Ask(str(place), tuple(first_prompt(question, question.order(place % 2), PLAIN)), ("A", "B"), ("", ""))
        for place, question in enumerate(latitude_questions(4))
    ]
    server = ObserverServer(model, mass=1.0)
    with serving(server) as base_url:
        there = {answer.key: answer for answer in ChatResponder(endpoint(base_url)).answer(asks)}
    assert server.seen.statuses == {200: 4}
    for ask in asks:
        (here,) = model.answer([ask])
        assert not there[ask.key].missing
        # Logarithms of parts of a probability, and their sum again.
        assert there[ask.key].scores == pytest.approx(here.scores, rel=0, abs=1e-12)
        assert there[ask.key].mass == pytest.approx(here.mass, rel=1e-9)
        assert here.mass < 0.5, "no constant of the server"


@pytest.mark.parametrize("mass", [0.0, 1.5])
def test_a_share_that_labels_cannot_have(mass):
    with pytest.raises(ArgumentError, match="mass"):
        ObserverServer(BOTH, mass=mass)


def test_labels_that_hold_everything_leave_nothing_to_other_words(store):
    with serving(ObserverServer(BOTH, mass=1.0)) as base_url:
        results = run(PLAN, ChatResponder(endpoint(base_url)), store, progress=False)
    assert results.mass == pytest.approx(1.0)
    assert_same(results.trials, in_process(store))


def test_an_answer_without_a_reading_is_refused():
    class Broken:
        """Its numbers are none."""

        backend = BOTH.backend

        def answer(self, asks):
            for ask in asks:
                yield Answer(ask.key, problem="not finite")

    ask = Ask("one", tuple(first_prompt(PLAN.questions[0], (0, 1), PLAIN)), ("A", "B"), ("red", "black"))
    with (
        serving(ObserverServer(Broken())) as base_url,
        pytest.raises(EndpointError, match="no reading: not finite"),
    ):
        list(ChatResponder(endpoint(base_url, attempts=1)).answer([ask]))


# What gets in the way.


def test_a_storm_ends_in_the_complete_result(store):
    """No request is given up here, however busy this machine is, so that all counts agree."""
    server = ObserverServer(BOTH, Faults(busy=0.15, broken=0.15, dropped=0.05, no_logprobs=0.1, seed=4))
    results = ask(server, store, concurrency=6, attempts=30, timeout_s=300.0)
    assert results.complete
    assert_same(results.trials, in_process(store))
    statuses = server.seen.statuses
    errors = [error for answer in store.answers().values() for error in answer.errors]
    assert errors.count("429") == statuses[429] > 0
    assert errors.count("500") + errors.count("503") == statuses[500] + statuses[503] > 0
    assert errors.count("no answer") == statuses[0] > 0
    assert errors.count("malformed") > 0
    assert sum(answer.attempts for answer in store.answers().values()) == len(errors) + PLAN.requests
    assert server.seen.most_at_once <= 6


def test_late_answers_are_asked_for_again(store):
    """A busy machine may make others late too: how many are is nobody's business."""
    server = ObserverServer(BOTH, Faults(slow=0.03, slow_s=600.0, seed=4))
    results = ask(server, store, concurrency=6, attempts=30, timeout_s=1.0)
    assert results.complete
    assert_same(results.trials, in_process(store))
    errors = [error for answer in store.answers().values() for error in answer.errors]
    assert set(errors) == {"no answer"}
    assert sum(answer.attempts for answer in store.answers().values()) == len(errors) + PLAN.requests


def test_requests_that_wait_together_are_counted(store):
    """Though an answer is computed at one go."""
    server = ObserverServer(BOTH)
    ask(server, store, concurrency=6)
    assert 1 < server.seen.most_at_once <= 6


def test_a_storm_that_stays_is_one_diagnosis_and_the_answers_so_far_are_good(store):
    with pytest.raises(EndpointError, match="answered 429: slow down"):
        ask(ObserverServer(BOTH, Faults(busy=0.6, seed=1)), store, attempts=3)
    kept = len(store.answers())
    assert 0 < kept < PLAN.requests
    server = ObserverServer(BOTH)
    with serving(server) as base_url:
        # Another port is another host to the store, as it may be another model: the address has to stay.
        results = run(PLAN, _Same(ChatResponder(endpoint(base_url)), store.run().backend), store, progress=False)
    assert server.seen.requests == PLAN.requests - kept
    assert_same(results.trials, in_process(store))


class _Same:
    """A responder that is taken for another one."""

    def __init__(self, responder, backend):
        self.backend, self.answer = backend, responder.answer


KILLED = """
import sys
from holdfast.confidence.experiment import run
from holdfast.confidence.responders import ChatResponder
from holdfast.confidence.store import Store
from holdfast.llm import Endpoint
from tests.confidence.test_observer_server import LARGER

model = Endpoint("obs", base_url=sys.argv[2], api_key_env=None, concurrency=8)
run(LARGER, ChatResponder(model), Store(sys.argv[1]), progress=False)
"""

ROOT = Path(__file__).parents[2]
LARGER = Plan(tuple(simulated_questions(30)), SMALL)


def test_three_kills_repeat_no_more_than_what_was_under_way(store):
    server = ObserverServer(BOTH, Faults(slow=1.0, slow_s=0.005))
    with serving(server) as base_url:
        for most in (60, 150, 260):
            with subprocess.Popen([sys.executable, "-c", KILLED, str(store.path), base_url], cwd=ROOT) as process:
                while server.seen.requests < most and process.poll() is None:
                    time.sleep(0.002)
                process.kill()
            assert process.returncode == -9
        results = run(LARGER, ChatResponder(endpoint(base_url)), store, progress=False)
    assert results.complete
    assert server.seen.requests == LARGER.requests + server.seen.repeated
    assert server.seen.repeated <= 3 * 8
    assert_same(results.trials, in_process(store, LARGER))


@pytest.mark.parametrize("faults", [Faults(no_logprobs=1.0), Faults(placeholders=True), Faults(zeros=True)])
def test_no_log_probabilities_are_one_request_and_one_diagnosis(faults, store):
    server = ObserverServer(BOTH, faults)
    with pytest.raises(NoLogprobs, match="answers 200 without log-probabilities that can be used"):
        ask(server, store)
    assert server.seen.requests == 1
    assert store.answers() == {}


def test_refusals_are_kept_with_their_reason_and_left_out(store):
    plan = dataclasses.replace(PLAN, questions=tuple(simulated_questions(12)))
    results = ask(ObserverServer(BOTH, Faults(refusal=0.01, seed=2)), store, plan)
    refused = results.problems["refusal"]
    assert results.complete
    assert 0 < refused < 20
    measured = contrast(results.trials)
    assert 0 < measured.dropped < 12
    assert measured.mean("weight_opposite") == pytest.approx(2.5, abs=0.5)


def test_a_model_that_is_swapped_is_noticed(store):
    results = ask(ObserverServer(BOTH, Faults(swapped_after=40)), store)
    [warning] = results.warnings
    assert warning == "the server changed its model during the run: obs observer-1, obs observer-2"


def test_a_wrong_key_is_told_without_it(store, monkeypatch):
    server = ObserverServer(BOTH, key="sk-right-0123456789")
    monkeypatch.setenv("OBSERVER_KEY", "sk-wrong-0123456789")
    with pytest.raises(EndpointError, match="answered 401: wrong key"):
        ask(server, store, api_key_env="OBSERVER_KEY")
    monkeypatch.setenv("OBSERVER_KEY", "sk-right-0123456789")
    assert ask(server, store, api_key_env="OBSERVER_KEY").complete
    assert "sk-right" not in store.path.read_text(encoding="utf-8")


# Hidden prompts.


def hidden(**options):
    question = PLAN.questions[0]
    return second_prompt(question, (0, 1), PLAIN, "hidden", displayed=None, advised=1, accuracy=0.7, **options)


def test_a_hidden_prompt_holds_nothing_else():
    question = PLAN.questions[0]
    assert hidden_leak(hidden(), (PLAIN,)) == ""
    assert hidden_leak(first_prompt(question, (0, 1), PLAIN), (PLAIN,)) is None
    shown = second_prompt(question, (0, 1), PLAIN, "shown", displayed=0, advised=1, accuracy=0.7)
    assert hidden_leak(shown, (PLAIN,)) is None
    smuggled = json.loads(json.dumps(hidden()))
    smuggled[0]["name"] = "A"
    assert "more than it may hold" in hidden_leak(smuggled, (PLAIN,))
    padded = json.loads(json.dumps(hidden()).replace("70%", "70.0%"))
    assert "more than it may hold" in hidden_leak(padded, (PLAIN,))


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (lambda body: body, 200, ""),
        (lambda body: {**body, "user": "A"}, 400, "fields user"),
        (lambda body: {**body, "messages": [{**body["messages"][0], "name": "A"}, *body["messages"][1:]]}, 400, "more"),
        (lambda body: {**body, "messages": [*body["messages"], {"role": "user", "content": "?"}]}, 400, "templates"),
        (lambda body: {"model": "m"}, 422, "KeyError"),
        (lambda body: [], 422, "not an object"),
    ],
)
def test_the_server_refuses_what_could_carry_the_first_answer(change, status, words):
    server = ObserverServer(BOTH)
    body = change({"model": "m", "messages": hidden(), "logprobs": True, "top_logprobs": 20})
    with serving(server) as base_url:
        request = urllib.request.Request(f"{base_url}/chat/completions", json.dumps(body).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            reply = opener.open(request, timeout=30)
        except urllib.request.HTTPError as error:
            reply = error
        with reply:
            assert reply.status == status
            assert words in reply.read().decode()
    assert bool(server.seen.leaks) == (words in ("fields user", "more"))


# The command line.


def test_the_latitudes_are_known():
    answers = latitude_answers()
    for question in latitude_questions(300, seed=5, difference=4.0):
        assert answers[question.text] == question.options[question.answer]


def test_the_command_serves_until_it_is_interrupted(store):
    words = [sys.executable, "-m", "holdfast", "confidence", "serve-observer", "--port", "0"]
    words += ["--preset", "bayes", "--set", "noise=0", "bias=2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline(), process.stdout.readline()]
            base_url = lines[1].split()[2]
            plan = dataclasses.replace(PLAN, questions=PLAN.questions[:2])
            results = run(plan, ChatResponder(endpoint(base_url)), store, progress=False)
        finally:
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert "noise=0.0, bias=2.0" in lines[0]
    measured = contrast(results.trials)
    assert measured.mean("choice_bias") == pytest.approx(2.0, abs=1e-9)
    assert f"{plan.requests} requests ({plan.requests} with 200)" in said
    assert "24 hidden prompts held nothing of the first answer, 0 were refused" in said
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "bias"), "--set: expected NAME=NUMBER, got bias"),
        (("--set", "charm=1"), "--set: expected one of scale, noise"),
        (("--set", "noise=-1"), "noise not negative"),
        (("--port", "-1"), "port: expected one that is free"),
        (("--key-env", "NO_SUCH_KEY"), "--key-env: expected an environment variable that holds a key"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path):
    status, _, error = command("confidence", "serve-observer", *words, cwd=tmp_path)
    assert status == 2
    assert message in error
