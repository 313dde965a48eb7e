"""The order, the budget, and what is kept of a check that ends early."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import holdfast
from holdfast.card import CheckSettings, Outcome, checks
from holdfast.card.run import OutOfTime, Step, check_targets, key_of, within
from holdfast.card.target import Kind, Target
from holdfast.errors import ArgumentError, MissingExtraError
from tests.card.fakes import fake, target


@pytest.fixture
def use(monkeypatch):
    """A function that puts made-up checks in the place of all."""
    return lambda *made: monkeypatch.setattr(checks, "CHECKS", made)


def test_the_cheapest_goes_first_and_all_are_on_the_card(use):
    use(fake("slow", seconds=9), fake("never", unfit="it has no attention"), fake("quick"), fake("middle", seconds=3))
    steps: list[Step] = []
    card = check_targets([target()], CheckSettings(), tell=steps.append)
    assert [str(step) for step in steps] == [
        "[1/3] quick: What of quick?",
        "[2/3] middle: What of middle?",
        "[3/3] slow: What of slow?",
    ]
    assert [finding.probe for finding in card.findings] == ["slow", "never", "quick", "middle"]
    assert (card.finding("never").outcome, card.finding("never").sentence) == (
        Outcome.INAPPLICABLE,
        "it has no attention",
    )


def test_two_targets_share_one_queue(use):
    use(fake("slow", seconds=9), fake("quick"))
    steps: list[Step] = []
    card = check_targets([target("a"), target("b", "two")], CheckSettings(), tell=steps.append)
    assert [step.check.name for step in steps] == ["quick", "quick", "slow", "slow"]
    assert [[finding.outcome for finding in subject.findings] for subject in card.subjects] == [[Outcome.HOLDS] * 2] * 2


def test_time_is_shared_by_what_probes_need_and_what_is_left_goes_to_the_others(use):
    given: dict[str, float] = {}

    def note(name: str):
        return lambda target, settings, seconds: given.update({name: seconds})

    use(fake("quick", note("quick"), seconds=1), fake("slow", note("slow"), seconds=4))
    check_targets([target()], CheckSettings(budget_s=50))
    assert given["quick"] == pytest.approx(10, abs=1)
    assert given["slow"] > 45


def test_a_probe_that_takes_too_long_is_stopped_and_the_others_go_on(use):
    use(fake("hangs", lambda *_: time.sleep(60)), fake("quick", seconds=2))
    card = check_targets([target()], CheckSettings(budget_s=3))
    assert card.finding("hangs").outcome is Outcome.NOT_RUN
    assert "a longer --budget gives it more" in card.finding("hangs").sentence
    assert card.finding("quick").outcome is Outcome.HOLDS
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_no_time_left_is_said(use):
    use(fake("hangs", lambda *_: time.sleep(60)), fake("late", seconds=5))
    card = check_targets([target()], CheckSettings(budget_s=1.2))
    assert card.finding("late").sentence == "no time was left of 1.2 s"


def test_an_alarm_that_is_swallowed_comes_again():
    def stubborn():
        for _ in range(1000):
            try:
                time.sleep(60)
            except BaseException:
                break
        time.sleep(60)

    with pytest.raises(OutOfTime), within(0.1):
        stubborn()


def test_what_swallows_every_alarm_is_left(monkeypatch):
    monkeypatch.setattr("holdfast.card.run.AGAIN_S", 0.01)
    left = []

    def last():
        left.append(True)

    def stubborn():
        while not left:
            with contextlib.suppress(BaseException):
                time.sleep(60)
        time.sleep(60)

    with pytest.raises(OutOfTime), within(0.01, last):
        stubborn()
    assert left


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("of\n<b>what</b>"), "ZeroDivisionError: of <b>what</b>"),
        (SystemExit(3), "SystemExit: 3"),
        (ArgumentError("target", "a list", "7"), "target: expected a list, got 7"),
        (MissingExtraError("x is not installed"), "x is not installed"),
        (RecursionError("y" * 1000), f"RecursionError: {'y' * 199}…"),
    ],
)
def test_what_goes_wrong_is_told_and_the_others_go_on(use, error, said):
    def fall(*_):
        raise error

    use(fake("falls", fall), fake("stands", seconds=2))
    card = check_targets([target()], CheckSettings())
    assert card.finding("falls").outcome is Outcome.NOT_RUN
    assert card.finding("falls").sentence == said
    assert card.finding("stands").outcome is Outcome.HOLDS


def test_an_interruption_is_none_of_a_probes_errors(use, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    use(fake("quick"), fake("stopped", stop, seconds=2))
    with pytest.raises(KeyboardInterrupt):
        check_targets([target()], CheckSettings(), store=tmp_path)
    assert [path.name.split("-")[0] for path in tmp_path.glob("*.json")] == ["quick"]


CHILD = """
import os, signal, sys
from pathlib import Path
from holdfast.card import CheckSettings, checks
from holdfast.card.run import check_targets
from holdfast.card.target import Kind, Target
from tests.card.fakes import fake, target
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
checks.CHECKS = (fake("quick"), fake("dies", die, seconds=2), fake("later", seconds=3))
check_targets([target()], CheckSettings(), store=Path(sys.argv[1]))
"""


def test_a_killed_check_goes_on_where_it_was(use, tmp_path):
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], cwd=root, timeout=100, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    use(fake("quick", lambda *_: pytest.fail("asked twice")), fake("dies", seconds=2), fake("later", seconds=3))
    steps: list[Step] = []
    card = check_targets([target()], CheckSettings(), store=tmp_path, tell=steps.append)
    assert [step.kept for step in steps] == [True, False, False]
    assert "--fresh" in str(steps[0])
    assert [finding.outcome for finding in card.findings] == [Outcome.HOLDS] * 3


@pytest.mark.parametrize("content", [b"", b"{", b'{"probe": "a"}', b"\xff" * 100, b"[" * 100_000])
def test_a_damaged_finding_is_measured_anew(use, tmp_path, content):
    asked: list[int] = []
    use(fake("a", lambda *_: asked.append(1)))
    check_targets([target()], CheckSettings(), store=tmp_path)
    (path,) = tmp_path.glob("*.json")
    whole = path.read_bytes()
    path.write_bytes(content)
    check_targets([target()], CheckSettings(), store=tmp_path)
    assert len(asked) == 2
    path.write_bytes(whole.replace(b"was asked", b"was ASKED"))
    check_targets([target()], CheckSettings(), store=tmp_path)
    assert len(asked) == 3
    check_targets([target()], CheckSettings(), store=tmp_path)
    assert len(asked) == 3


def test_only_what_was_measured_is_kept_and_fresh_measures_anew(use, tmp_path):
    asked: list[int] = []

    def fall(*_):
        asked.append(1)
        raise ValueError

    use(fake("falls", fall), fake("stands", lambda *_: asked.append(2), seconds=2))
    check_targets([target()], CheckSettings(), store=tmp_path)
    check_targets([target()], CheckSettings(), store=tmp_path)
    assert asked == [1, 2, 1]
    check_targets([target()], CheckSettings(), store=tmp_path, fresh=True)
    assert asked == [1, 2, 1, 1, 2]


def test_what_cannot_be_told_from_another_is_not_kept(use, tmp_path):
    use(fake("a"))
    check_targets([target(identity="")], CheckSettings(), store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_key_changes_with_all_that_an_answer_rests_on(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one")
    check, settings = fake("a"), CheckSettings(text=text, data=data)
    key = key_of(target(), check, settings)
    others = {
        key_of(target(identity="two"), check, settings),
        key_of(target(), fake("b"), settings),
        key_of(target(), check, dataclasses.replace(settings, seed=1)),
        key_of(target(), check, dataclasses.replace(settings, budget_s=9)),
        key_of(target(), check, dataclasses.replace(settings, data=None)),
    }
    text.write_text("two")
    others.add(key_of(target(), check, settings))
    assert len(others - {key}) == 6


def data() -> tuple[list[int], list[int]]:
    return [1], [2]


def test_from_python(use):
    use(fake("a"), fake("b"))
    card = holdfast.check(sorted, probes=["b"])
    assert [finding.probe for finding in card.findings] == ["b"]
    with pytest.raises(ArgumentError, match="probes: expected some of a, b, got c"):
        holdfast.check(sorted, probes=["c"])
    with pytest.raises(ArgumentError, match="target: expected given"):
        holdfast.check(model="m")


def test_a_target_that_takes_too_long_to_load(use):
    def hangs():
        time.sleep(60)

    use(fake("a"))
    with pytest.raises(ArgumentError, match=r"target: expected to load within 0.2 s"):
        holdfast.check(hangs, settings=CheckSettings(budget_s=0.2))


def test_a_function_that_makes_processes_and_goes_elsewhere(use, tmp_path, monkeypatch):
    """Only the process that began makes a card, in the folder that it began in."""
    monkeypatch.chdir(tmp_path)
    finished = tmp_path / "finished"

    def forks(target, settings, seconds):
        target.subject([1])
        with finished.open("a") as stream:
            stream.write("once\n")

    def function(xs):
        os.chdir("/")
        os.fork()
        return xs

    use(fake("forks", forks))
    card = check_targets([Target(Kind.FUNCTION, "f", function, "")], CheckSettings())
    assert card.findings[0].outcome is Outcome.HOLDS
    os.wait()
    assert finished.read_text() == "once\n"
    assert Path.cwd() == tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not known how much memory is free")
def test_what_asks_for_more_memory_than_there_is_is_told_and_ended_by_nobody(use):
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    use(fake("greedy", lambda *_: bytearray(1 << 44)), fake("modest", lambda *_: bytearray(1 << 20), seconds=2))
    card = check_targets([target()], CheckSettings())
    assert [finding.outcome for finding in card.findings] == [Outcome.NOT_RUN, Outcome.HOLDS]
    assert card.findings[0].sentence.startswith("MemoryError")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_long_error_of_our_own_kind_is_one_short_line(use):
    def fall(*_):
        raise ArgumentError("target", "a list", "\x1b[2J" + "y\n" * 1_000_000)

    use(fake("falls", fall))
    (found,) = check_targets([target()], CheckSettings()).findings
    assert found.sentence.startswith("target: expected a list, got y y")
    assert len(found.sentence) <= 1000


def test_an_alarm_in_a_clean_up_is_not_printed_and_comes_again(monkeypatch, capsys):
    monkeypatch.setattr("holdfast.card.run.AGAIN_S", 0.05)

    class Slow:
        def __del__(self):
            time.sleep(60)

    def cleans_up():
        Slow()
        time.sleep(60)

    with pytest.raises(OutOfTime), within(0.05):
        cleans_up()
    assert capsys.readouterr().err == ""
