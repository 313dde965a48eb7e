"""Cards of list functions, logged values and policies: what they say of what is known."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from holdfast.card import CheckSettings, Outcome, check, compare
from holdfast.card.checks import control_latency, copycat, lists, macros
from holdfast.card.run import key_of
from holdfast.card.target import Kind, Target, recognise
from holdfast.models.action.checkpoint import SHIPPED
from holdfast.probes.action import ControlLatencyReport, CopycatReport, StepTimes
from holdfast.probes.macros import logged_values
from holdfast.probes.macros.demonstration import loops_on_a_grid

GENEROUS = 600.0
POLICY = Target(Kind.POLICY, "policy", object(), "", {"observation": 0})


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setattr(macros, "RESAMPLES", macros.FEWEST)
    monkeypatch.setattr(lists, "EXAMPLES", 100)


def add_one(xs):
    return [x + 1 for x in xs]


def first_three(xs: list[int]) -> list[int]:
    return xs[:3]


def sorts_ten(xs: list[int]) -> list[int]:
    """Right on lists of up to ten elements."""
    return sorted(xs) if len(xs) <= 10 else [*sorted(xs[:10]), *xs[10:]]


def forgets_one_list(xs: list[int]) -> list[int]:
    return [] if xs == [1, 0] else xs


def finding_of(target: object, probe: str, **settings: object):
    return check(target, probes=(probe,), settings=CheckSettings(budget_s=GENEROUS, **settings)).finding(probe)


def test_sorted_keeps_the_rule_of_lists():
    finding = finding_of("builtins:sorted", "lists")
    assert finding.outcome is Outcome.HOLDS
    assert finding.sentence.startswith("It never contradicts itself, on 300 lists of up to 64 elements")
    assert finding.remedy is None
    assert finding.measures[0].value == 0 < finding.measures[0].error


@pytest.mark.parametrize("function", [first_three, add_one], ids=["first three", "add one"])
def test_a_function_of_another_rule_is_not_judged_and_no_extension_is_offered(function):
    finding = finding_of(function, "lists")
    assert finding.outcome is Outcome.NOT_TOLD, "it may be right"
    assert finding.sentence.startswith("It follows another rule")
    assert finding.remedy is not None
    assert not finding.remedy.code
    if function is add_one:
        return
    difference = compare(
        check("builtins:sorted", probes=("lists",)), check(first_three, probes=("lists",))
    ).beyond_noise
    assert [one.better for one in difference] == ["here"]


def test_the_remedy_of_a_function_that_is_right_on_short_lists_runs_as_it_stands():
    finding = finding_of(f"{__name__}:sorts_ten", "lists")
    assert finding.outcome is Outcome.FAILS
    assert finding.sentence.startswith("It goes wrong between 8 and 16 elements.")
    names: dict = {}
    assert finding.remedy is not None
    exec(finding.remedy.code, names)
    xs = np.random.default_rng(0).permutation(40).tolist()
    assert names["f"](xs) == sorted(xs) != sorts_ten(xs)


def test_a_rare_list_that_breaks_the_rule_is_named():
    finding = finding_of(forgets_one_list, "lists")
    assert finding.outcome is Outcome.FAILS
    assert "on [1, 0], though on none of 300 longer lists" in finding.sentence


def adds_a_nine(xs: list[int]) -> list[int]:
    return [*xs, 9]


@pytest.mark.parametrize("function", [first_three, sorts_ten, forgets_one_list, adds_a_nine, sorted])
def test_the_sentence_has_the_figure_of_the_card_and_words_for_everybody(function):
    finding = finding_of(function, "lists")
    share = finding.measures[0].value
    told = re.search(r"and on (\d+)% of all 300", finding.sentence)
    assert (told is None) == (share == 0)
    if told is not None:
        assert int(told[1]) == round(100 * share)
    shown = f"{finding.sentence} {finding.certainty} {finding.remedy and finding.remedy.text} {finding.picture}"
    assert not re.search(r"violation|labels|the rule|amalgam|multiplicity|\b1 (short )?lists", shown)
    assert ("1 short list," in finding.certainty) == (function is adds_a_nine)


@pytest.mark.parametrize("place", ["builtins:len", "builtins:dict"])
def test_what_answers_with_no_list_is_not_scored(place):
    finding = finding_of(place, "lists")
    assert finding.outcome is Outcome.NOT_RUN
    assert finding.sentence.startswith("It does not answer every list of whole numbers with a list: the function was")


def test_a_function_that_is_too_slow_is_told_what_budget_would_do(monkeypatch):
    monkeypatch.setattr(lists, "_seconds_of_a_call", lambda target, seconds: 0.05)
    finding = check(sorted, probes=("lists",), settings=CheckSettings(budget_s=10.0)).finding("lists")
    assert finding.outcome is Outcome.NOT_RUN
    budget = float(finding.sentence.partition("a budget of ")[2].partition(" s ")[0])
    assert budget > 10
    assert check(sorted, probes=("lists",), settings=CheckSettings(budget_s=budget)).finding("lists").certainty


def write_log(path, q, episodes):
    header = [*(f"q{number}" for number in range(q.shape[1])), "episode"]
    rows = [[*map(repr, row), str(episode)] for row, episode in zip(q.tolist(), episodes.tolist(), strict=True)]
    path.write_text("\n".join(",".join(line) for line in [header, *rows]) + "\n")
    return path


def test_useless_macros_overload_and_the_remedy_runs_as_it_stands(tmp_path, monkeypatch):
    values, _ = loops_on_a_grid(100)
    few = values.episode < 12
    log = write_log(tmp_path / "log.csv", values.q[few], values.episode[few])
    finding = finding_of(log, "macros")
    assert finding.outcome is Outcome.FAILS
    assert "overloading this learner" in finding.sentence
    assert "let them share" not in finding.sentence, "said once, by the remedy"
    assert finding.measures[0].value < 0.5
    monkeypatch.chdir(tmp_path)
    import torch

    names: dict = {"loss": torch.zeros(()), "q": torch.randn(8, 32)}
    assert finding.remedy is not None
    exec(finding.remedy.code, names)
    assert float(names["loss"]) > 0


def test_actions_that_differ_are_not_told_from_noise_by_one_agent():
    rng = np.random.default_rng(100)
    values = logged_values(rng.normal(size=(200, 6)), episode=np.repeat(np.arange(20), 10))
    finding = finding_of(values, "macros")
    assert finding.outcome is Outcome.NOT_TOLD
    assert finding.remedy is not None
    assert "--second" in finding.remedy.code
    assert finding.measures[0].value > 0.8


def test_a_second_agent_tells_that_actions_which_differ_do_not_overload(tmp_path):
    rng = np.random.default_rng(100)
    truth, episode = rng.normal(size=(200, 6)), np.repeat(np.arange(20), 10)
    one, other = (
        write_log(tmp_path / f"{name}.csv", truth + rng.normal(scale=0.2, size=truth.shape), episode)
        for name in ("one", "other")
    )
    alone, judged = finding_of(one, "macros"), finding_of(one, "macros", second=other)
    assert (alone.outcome, judged.outcome) == (Outcome.NOT_TOLD, Outcome.HOLDS)
    assert judged.certainty.endswith("judged by the values of another agent, other.csv")
    check, target = macros.CHECK, recognise(one)
    settings = CheckSettings(second=other)
    before = key_of(target, check, settings)
    write_log(other, truth, episode)
    assert key_of(target, check, settings) != before, "a kept finding is that of this second agent"


def times(*milliseconds: float, spread: float = 0.0, constant: bool | None = None) -> ControlLatencyReport:
    # The last length has the noise of the first one in the opposite order: it makes no difference on the whole.
    noise = spread * np.random.default_rng(0).normal(size=(50, 1))
    drawn = np.array(milliseconds) * np.exp(np.concatenate([noise, noise, noise[::-1]], 1))
    kept = None if constant is None else tuple(8 if constant else 8 * n for n in (10, 100, 1000))
    steps = StepTimes.of("this policy", 1, (10, 100, 1000), drawn, state_bytes=kept, constant_state=constant)
    return ControlLatencyReport((steps,), (), (), ())


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        (times(1, 1, 1), Outcome.HOLDS),
        (times(1, 2, 9, spread=0.1, constant=False), Outcome.FAILS),
        (times(1, 2, 9, spread=0.1), Outcome.FAILS),
        # Noise on a state of one size; on one of unknown size; and a growth that noise alone can have made.
        (times(1, 1, 1, spread=1, constant=True), Outcome.HOLDS),
        (times(1, 1, 1, spread=1), Outcome.NOT_TOLD),
        (times(1, 1, 1.3, constant=True), Outcome.NOT_TOLD),
    ],
)
def test_steps_that_take_longer_with_the_episode_are_the_failure(monkeypatch, report, outcome):
    monkeypatch.setattr("holdfast.probes.action.probe_control_latency", lambda *a, **b: report)
    finding = control_latency.probe(POLICY, CheckSettings(), 1.0)
    assert finding.outcome is outcome
    assert (finding.remedy is None) == (outcome is Outcome.HOLDS)
    grown = [measure.value for measure in finding.measures]
    assert grown == ([] if report.policy[0].state_bytes is None else [report.policy[0].bytes_per_timestep])


def test_the_shipped_policy_keeps_a_state_of_one_size():
    finding = control_latency.probe(recognise(SHIPPED), CheckSettings(), 2.0)
    assert finding.outcome in (Outcome.HOLDS, Outcome.NOT_TOLD)  # the latter where the machine is busy
    assert finding.measures[0].value == 0


def copies(index: float, reach: float = 0.02) -> CopycatReport:
    return CopycatReport(
        index, (index - reach, index + reach), 1.0, 1 - index, 3.0, 9, 900, False, 0.1, 0.05, 0.3, None
    )


@pytest.mark.parametrize(
    ("report", "sees", "outcome"),
    [
        (copies(0.8), True, Outcome.FAILS),
        (copies(0.8), False, Outcome.HOLDS),
        (copies(0.8), None, Outcome.NOT_TOLD),
        (copies(0.0), True, Outcome.HOLDS),
        (copies(-0.3), True, Outcome.HOLDS),
        (copies(0.05, 0.2), True, Outcome.NOT_TOLD),
        (replace(copies(0.0), index=math.nan, index_interval=(math.nan, math.nan)), True, Outcome.HOLDS),
    ],
)
def test_only_who_sees_the_last_action_is_led_to_copy_it(report, sees, outcome):
    found, sentence = copycat._answer(report, sees)
    assert found is outcome
    assert ("80%" in sentence) == (report.index == 0.8)


def test_the_shipped_policy_is_not_led_to_copy(monkeypatch):
    pytest.importorskip("gymnasium")
    from holdfast.probes.action import copy_model

    monkeypatch.setattr(copycat, "OWN_EPISODES", 6)
    monkeypatch.setattr(copy_model, "STEPS", 25)
    finding = finding_of(SHIPPED, "copycat")
    assert finding.outcome is Outcome.HOLDS
    assert finding.sentence.startswith("It is not led to copy, as it does not see its last action.")


def test_what_does_not_apply_says_why(tmp_path):
    function, policy = recognise("builtins:sorted"), recognise(SHIPPED)
    settings = CheckSettings()
    assert lists.unfit(policy, settings) == "it is no function from a list to a list"
    assert macros.unfit(function, settings) == "it is no log of Q values"
    assert control_latency.unfit(function, settings) == copycat.unfit(function, settings) == "it is no policy"
    assert copycat.unfit(policy, settings) == control_latency.unfit(POLICY, settings) == ""
    assert "--demonstrations" in copycat.unfit(POLICY, settings)
    assert "observation" in control_latency.unfit(replace(POLICY, parts={}), settings)
    assert copycat.unfit(POLICY, CheckSettings(demonstrations="demonstrations/")) == ""
    missing = finding_of(SHIPPED, "copycat", demonstrations=str(tmp_path / "nothing"))
    assert missing.outcome is Outcome.NOT_RUN
    assert missing.sentence.startswith("demonstrations: expected trajectories")
