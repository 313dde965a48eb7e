from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass

import pytest
from rich.console import Console

from holdfast.lab import progress_bar
from holdfast.lab.progress import listen, report
from holdfast.lab.progress_bar import ProgressBar, _duration
from holdfast.lab.results import Failure
from holdfast.lab.store import Store
from holdfast.lab.trial import Outcome, Trial


@dataclass(frozen=True)
class Settings:
    lr: float = 0.1


def trial(seed, cost=1.0, **labels) -> Trial[Settings]:
    return Trial(seed, Settings(), labels, cost=cost)


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when a test says so."""

    class Clock:
        now = time.monotonic()

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def bar(clock, stream):
    with ProgressBar(stream) as bar:
        yield bar


def lines(stream) -> list[str]:
    return stream.getvalue().splitlines()


def outcome(**record) -> Outcome:
    return Outcome([record])


def test_a_short_run_off_a_terminal(bar, clock, stream):
    trials = [trial(seed, arm=arm) for seed in (0, 1) for arm in ("old", "new")]
    bar.planned("toy", trials)
    for item in trials:
        clock.now += 10
        bar.finished("toy", item, outcome(n=3, arm="x", accuracy=0.8125, later=9.0))
    assert lines(stream) == [
        "toy: 1/4 trials, 0/2 seeds, accuracy 0.812",
        "toy: 2/4 trials, 1/2 seeds, accuracy 0.812, about 20 s left",
        "toy: 3/4 trials, 1/2 seeds, accuracy 0.812, about 10 s left",
        "toy: 4/4 trials, 2/2 seeds, accuracy 0.812, done",
    ]


def test_no_escape_codes_and_no_wrapping_off_a_terminal(bar, clock, stream):
    bar.planned("toy", [trial(0, arm="[red]x[/red]"), trial(1)])
    bar.failed("toy", Failure("key", trial(0, arm="[red]x[/red]"), "ValueError: [bold]" + "long " * 100, "log"))
    first = lines(stream)[0]
    assert first.startswith("toy arm=[red]x[/red] seed 0 failed: ValueError: [bold]long")
    assert first.count("long") == 100
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_lines_come_now_and_then_but_the_last_always(bar, clock, stream):
    trials = [trial(seed) for seed in range(100)]
    bar.planned("toy", trials)
    for item in trials:
        clock.now += 0.5
        bar.advanced("toy", item, 0.5, {"loss": 1.0})
        bar.finished("toy", item, outcome(x=1.0))
    assert 5 <= len(lines(stream)) <= 12
    assert lines(stream)[-1] == "toy: 100/100 trials, 100/100 seeds, x 1, done"


def test_reused_trials_say_nothing_about_the_time_left(bar, clock, stream):
    trials = [trial(seed) for seed in range(10)]
    bar.planned("toy", trials)
    clock.now += 0.01
    for item in trials[:8]:
        bar.reused("toy", item)
    assert "left" not in stream.getvalue()
    clock.now += 30
    bar.advanced("toy", trials[8], 0.5, {})
    clock.now += 30
    bar.finished("toy", trials[8], outcome(x=1.0))
    assert lines(stream)[-1] == "toy: 9/10 trials, 9/10 seeds, x 1, about 60 s left"


def test_no_time_left_is_told_before_a_tenth_is_done(bar, clock, stream):
    """The first of a hundred trials has waited for its worker to start, too."""
    trials = [trial(seed) for seed in range(100)]
    bar.planned("toy", trials)
    told = []
    for item in trials[:12]:
        clock.now += 20
        bar.finished("toy", item, outcome(x=1.0))
        told.append("left" in lines(stream)[-1])
    assert told == [False] * 9 + [True] * 3


def test_no_time_left_is_told_while_the_pace_changes(bar, clock, stream):
    """Trials whose cost says nothing of how long they take."""
    bar.planned("toy", [trial(seed) for seed in range(8)])
    told = []
    for seed, seconds in enumerate((400, 300, 60, 60, 60, 60, 60)):
        clock.now += seconds
        bar.finished("toy", trial(seed), outcome(x=1.0))
        told.append("left" in lines(stream)[-1])
    assert told == [False, True, False, False, False, False, False]


def test_time_that_other_studies_took_is_no_pace(bar, clock, stream):
    """The second study waits for an hour until its first trial begins."""
    first, second = trial(0), [trial(seed) for seed in range(10)]
    bar.planned("one", [first])
    bar.planned("two", second)
    clock.now += 3600
    bar.finished("one", first, outcome(x=1.0))
    for item in second[:2]:
        clock.now += 200
        bar.finished("two", item, outcome(x=1.0))
    assert lines(stream)[-1] == "two: 2/10 trials, 2/10 seeds, x 1, about 27 min left"


def test_a_failure_names_its_trial_and_its_log(clock, stream, tmp_path):
    with ProgressBar(stream, Store(tmp_path)) as bar:
        bar.planned("toy", [trial((1, 2), part="main", arm="new"), trial(3)])
        bar.failed("toy", Failure("key1", trial((1, 2), part="main", arm="new"), "timeout", "some words"))
        bar.failed("toy", Failure("key2", trial(3), "killed", "\n"))
    assert f"toy arm=new seed 1 2 failed: timeout (log: {tmp_path / 'failed' / 'toy' / 'key1' / 'log.txt'})" in lines(
        stream
    )
    assert "toy seed 3 failed: killed" in lines(stream)


def test_everything_reused(bar, stream):
    trials = [trial(seed) for seed in range(3)]
    bar.planned("toy", trials)
    for item in trials:
        bar.reused("toy", item)
    assert lines(stream)[-1] == "toy: 3/3 trials, 3/3 seeds, done"


def test_time_left_goes_by_cost_and_counts_running_trials(bar, clock, stream):
    long, short = trial(0, cost=9.0), trial(1, cost=1.0)
    bar.planned("toy", [long, short])
    clock.now += 15
    bar.advanced("toy", long, 1 / 6, {"loss": 0.7})
    clock.now += 15
    bar.advanced("toy", long, 1 / 3, {"loss": 0.5})  # 3 of 10 in 30 s: 70 s for the other 7
    assert lines(stream)[-1] == "toy: 0/2 trials, 0/2 seeds, loss 0.5, about 70 s left"
    clock.now += 10
    bar.finished("toy", short, outcome(x=2.0))  # 4 of 10 in 40 s
    assert lines(stream)[-1] == "toy: 1/2 trials, 1/2 seeds, x 2, about 60 s left"


@pytest.mark.parametrize("fraction", [-1.0, 0.0, 1.0, 7.0])
def test_a_fraction_out_of_range_never_gives_a_negative_time(bar, clock, stream, fraction):
    bar.planned("toy", [trial(0), trial(1)])
    clock.now += 10
    bar.advanced("toy", trial(0), fraction, {})
    assert "-" not in stream.getvalue()
    assert "0/2 trials" in stream.getvalue()


def test_a_trial_that_is_tried_again_is_not_counted_twice(bar, clock, stream):
    item = trial(0)
    bar.planned("toy", [item, trial(1)])
    clock.now += 10
    bar.advanced("toy", item, 0.9, {})
    for fraction in (0.2, 0.4):  # its worker died
        clock.now += 10
        bar.advanced("toy", item, fraction, {})
    assert lines(stream)[-1].endswith("about 2 min left")  # 0.4 of 2 in 30 s


def test_failures_are_counted_and_explained(bar, clock, stream):
    bar.planned("toy", [trial(0, arm="old"), trial(1)])
    bar.failed("toy", Failure("key", trial(0, arm="old"), "ValueError: no", ""))
    clock.now += 10
    bar.failed("toy", Failure("key", trial(1), "worker died", ""))
    assert "toy arm=old seed 0 failed: ValueError: no" in lines(stream)
    assert "toy seed 1 failed: worker died" in lines(stream)
    assert lines(stream)[-1] == "toy: 2/2 trials, 2/2 seeds, 2 failed, done"


def test_batched_seeds_are_counted_one_by_one(bar, clock, stream):
    both, one = trial((0, 1), arm="a"), trial(1, arm="b")
    bar.planned("toy", [both, one])
    clock.now += 10
    bar.finished("toy", both, outcome(x=1.0))
    assert "1/2 trials, 1/2 seeds" in lines(stream)[-1]
    bar.finished("toy", one, outcome(x=1.0))
    assert "2/2 trials, 2/2 seeds" in lines(stream)[-1]


def test_studies_have_their_own_counts(bar, clock, stream):
    bar.planned("one", [trial(0)])
    bar.planned("two", [trial(0), trial(1)])
    clock.now += 10
    bar.finished("one", trial(0), outcome(x=1.0))
    bar.finished("two", trial(0), outcome(y=2.0))
    assert lines(stream)[0] == "one: 1/1 trials, 1/1 seeds, x 1, done"
    clock.now += 10
    bar.finished("two", trial(1), outcome(y=2.0))
    assert lines(stream)[-1] == "two: 2/2 trials, 2/2 seeds, y 2, done"


def test_a_result_without_a_real_number_shows_none(bar, clock, stream):
    bar.planned("toy", [trial(0)])
    bar.finished("toy", trial(0), outcome(seed=0, text="fast", ok=True, nothing=None))
    assert lines(stream)[-1] == "toy: 1/1 trials, 1/1 seeds, done"


def test_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    real = Console
    monkeypatch.setattr(progress_bar, "Console", lambda file: real(file=file, force_terminal=True, width=120))
    trials = [trial(0, arm="old"), trial((1, 2), arm="new"), trial(3)]
    with ProgressBar(stream) as bar:
        bar.planned("toy", trials)
        bar.planned("other", [trial(0)])
        bar.reused("toy", trials[0])
        bar.advanced("toy", trials[1], 0.5, {"loss[/x]": 0.25})
        bar.finished("toy", trials[1], outcome(**{"acc[/]": 0.5}))
        bar.failed("toy", Failure("key", trials[2], "ValueError: [/no] markup", ""))
        bar.finished("other", trial(0), outcome(x=1.0))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "\x1b" in stream.getvalue()
    assert "toy seed 3 failed: ValueError: [/no] markup" in shown
    assert "3/3 trials, 4/4 seeds, 1 failed, acc[/] 0.5" in shown
    assert "1/1 trials, 1/1 seeds, x 1" in shown
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h"), "the cursor must come back"


def test_the_cursor_comes_back_after_an_error(monkeypatch):
    stream = io.StringIO()
    real = Console
    monkeypatch.setattr(progress_bar, "Console", lambda file: real(file=file, force_terminal=True, width=80))

    def interrupted():
        with ProgressBar(stream) as bar:
            bar.planned("toy", [trial(0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "60 s"),
        (89, "89 s"),
        (90, "2 min"),
        (600, "10 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (86400, "24.0 h"),
    ],
)
def test_durations(seconds, text):
    assert _duration(seconds) == text


def test_reports_reach_the_listener_and_nobody_else():
    heard = []
    report(0.5, loss=1.0)  # nobody listens
    listen(lambda fraction, metrics: heard.append((fraction, dict(metrics))))
    try:
        report(0.25, loss=0.5)
        report(1)
    finally:
        listen(None)
    report(0.75)
    assert heard == [(0.25, {"loss": 0.5}), (1, {})]


def test_what_goes_on_after_the_last_trial_is_said(bar, stream):
    bar.judging("toy")
    bar.say("drawing the report")
    assert lines(stream) == ["judging the claims of toy …", "drawing the report …"]
