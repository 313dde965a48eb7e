"""`holdfast check` as a user meets it; the probes are made up."""

from __future__ import annotations

import json
import os
import time

import pytest

from holdfast.card import Card, Outcome, checks
from holdfast.card.checks.check import Check
from tests.card.fakes import fake, finding, measure
from tests.command_line import ask

MINE = """
import sys
print("printed by the target's file")
def double(xs):
    return [2 * x for x in xs]
def falls():
    raise ValueError("no such\\n<b>thing</b>")
"""


def of(name: str, outcome: Outcome = Outcome.HOLDS, value: float = 0.31) -> Check:
    """A check with a given finding; it calls the target, which may print or hang."""

    def probe(target, settings, seconds):
        target.subject([1])
        return finding(name, outcome, measures=(measure(value, 0.01),))

    return Check(name, f"Does {name} break?", 1.0, lambda target, settings: "", probe, "it breaks")


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    use(monkeypatch, of("sharpness", Outcome.FAILS), of("rat"), fake("lists", unfit="it is no list"))
    return tmp_path


def use(monkeypatch, *made) -> None:
    monkeypatch.setattr(checks, "CHECKS", made)


def test_a_check(place):
    status, out, err = ask("check", "mine.py:double", cwd=place)
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0] == "1 of 2 questions answered with a failure: sharpness (it breaks)."
    assert lines[-1] == "card: holdfast-check/mine.py-double/card.html"
    assert len(lines) <= 26
    assert "printed by" not in out
    assert "[1/2] sharpness: Does sharpness break?" in err.splitlines()
    folder = place / "holdfast-check" / "mine.py-double"
    card = Card.read(folder)
    assert card.command == "holdfast check mine.py:double"
    assert [one.probe for one in card.findings] == ["sharpness", "rat", "lists"]
    assert (folder / "card.html").read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in folder.iterdir()) == ["card.html", "card.json", "findings"]
    assert "kept from an earlier check" in ask("check", "mine.py:double", cwd=place)[2]
    assert "kept" not in ask("check", "mine.py:double", "--fresh", cwd=place)[2]


@pytest.mark.parametrize("before", [None, "active"])
def test_threads_do_not_spin_unless_they_are_told_to(place, monkeypatch, before):
    from holdfast.cli.parsing import PATIENT

    monkeypatch.delenv(PATIENT[0], raising=False)
    seen = []
    use(monkeypatch, fake("rat", lambda *_: seen.append(os.environ.get(PATIENT[0]))))
    assert ask("check", "mine.py:double", cwd=place, env={PATIENT[0]: before} if before else None)[0] == 0
    assert seen == [before or "passive"]


def test_a_second_log_that_is_not_there_is_a_mistake(place):
    status, _, err = ask("check", "mine.py:double", "--second", "other.csv", cwd=place)
    assert (status, "other.csv, which is not there" in err) == (2, True), err


def test_json_is_all_that_is_printed(place):
    status, out, err = ask("check", "mine.py:double", "--json", "--probes", "rat", cwd=place)
    assert status == 0
    assert Card.from_dict(json.loads(out)).findings[0].probe == "rat"
    assert "printed by the target's file" in err


def test_rules(place):
    words = ("check", "mine.py:double", "--fail-on")
    status, _, err = ask(*words, "sharpness,rat.entropy<0.5", cwd=place)
    assert status == 1
    assert "holdfast: failed: sharpness: sharpness fails\n" in err
    assert "holdfast: failed: rat.entropy<0.5: it is 0.31\n" in err
    assert (place / "holdfast-check" / "mine.py-double" / "card.html").exists()
    assert ask(*words, "rat,not-run", cwd=place)[0] == 0
    status, _, err = ask(*words, "rat.entropi<0.5", cwd=place)
    assert status == 0
    assert "holdfast: warning: rat.entropi<0.5: no such figure was measured" in err


def test_against_an_earlier_card_another_target_or_itself(place, monkeypatch):
    assert ask("check", "mine.py:double", "--output", "before", cwd=place)[0] == 0
    use(monkeypatch, of("sharpness", Outcome.HOLDS, 0.9), of("rat"))
    again = ("check", "mine.py:double", "--fresh", "--against")
    for other in ("before", "before/card.json"):
        status, out, _ = ask(*again, other, cwd=place)
        assert status == 0
        assert out.splitlines()[0] == "sharpness: entropy is 0.9, in the other 0.31: better here."
    status, out, err = ask(*again, "builtins:sorted", cwd=place)
    assert status == 0, err
    assert out.splitlines()[0] == "Nothing differs by more than chance."
    folder = place / "holdfast-check" / "mine.py-double"
    assert json.loads((folder / "card.json").read_text())["against"]["only_here"] == []
    assert "mine.py:double beside builtins:sorted" in (folder / "card.html").read_text("utf-8")


NETWORK = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Linear(1, 1)
"""


def test_against_another_checkpoint_of_the_network(place, monkeypatch):
    import torch

    (place / "net.py").write_text(NETWORK)
    for number in (1, 2):
        torch.save({"weight": torch.full((1, 1), float(number)), "bias": torch.zeros(1)}, place / f"{number}.pt")

    def probe(target, settings, seconds):
        return finding("rat", measures=(measure(float(target.subject.weight), 0.01),))

    use(monkeypatch, Check("rat", "Does it?", 1.0, lambda target, settings: "", probe, "it breaks"))
    status, out, err = ask("check", "net.py:net", "--checkpoint", "1.pt", "--against", "2.pt", cwd=place)
    assert status == 0, err
    assert out.splitlines()[0] == "rat: entropy is 1, in the other 2: better there."


def test_no_card_of_another_and_no_other_file_is_replaced(place):
    words = ("check", "mine.py:double", "--output", "out")
    assert ask(*words, cwd=place)[0] == 0
    status, _, err = ask("check", "builtins:sorted", "--output", "out", cwd=place)
    assert status == 2
    assert "holdfast: error: --output: expected a folder without the card of another target" in err
    (place / "out" / "card.json").write_text('{"mine": 1}')
    assert "is no card" in ask(*words, cwd=place)[2]
    (place / "out" / "card.json").unlink()
    assert "has no card.json beside it" in ask(*words, cwd=place)[2]
    (place / "file").write_text("")
    assert "file, a file" in ask("check", "mine.py:double", "--output", "file", cwd=place)[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine.py:falls"], "TARGET: expected mine.py:falls to run, got ValueError: no such <b>thing</b>"),
        (["mine.py:none"], "TARGET: expected a function none"),
        (["nowhere/at/all.pt"], "which is not there"),
        (["mine.py:double", "--fail-on", "sharpnes"], "--fail-on: expected a probe: one of sharpness, rat, lists"),
        (["mine.py:double", "--probes", "x"], "--probes: expected some of sharpness, rat, lists, got x"),
        (["mine.py:double", "--budget", "0"], "--budget: expected more than 0 seconds, got 0.0"),
        (["mine.py:double", "--budget", "nan"], "--budget: expected more than 0 seconds, got nan"),
        (["mine.py:double", "--seed", "-1"], "--seed: expected a whole number"),
        (["mine.py:double", "--data", "mine.py:none"], "--data: expected a function none"),
        (["mine.py:double", "--text", "none.txt"], "--text: expected a file, got none.txt, which is not there"),
        (["mine.py:double", "--checkpoint", "none.pt"], "--checkpoint: expected a file"),
        (["mine.py:double", "--against", "none.json"], "--against: expected the file card.json"),
        (["mine.py:double", "--against", "./none"], "--against: expected a card, or a target"),
        (["mine.py:double", "--model", "m"], "--model: expected an endpoint"),
        (["--checkpoint", "mine.py"], "TARGET: expected given"),
        (["mine.py:double", "--nonsense"], "See: holdfast check --help"),
    ],
)
def test_a_mistake_is_one_line(place, words, said):
    status, out, err = ask("check", *words, cwd=place)
    assert status == 2, err
    assert out == ""
    assert said in err.splitlines()[-1]
    assert [line for line in err.splitlines() if line.startswith("holdfast: ")] == [err.splitlines()[-1]]
    assert not (place / "holdfast-check").exists()


def test_what_is_finished_is_kept_when_it_is_interrupted(place, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    use(monkeypatch, fake("quick"), fake("stopped", stop, seconds=2))
    status, out, err = ask("check", "mine.py:double", cwd=place)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == (
        "holdfast: interrupted; finished probes are kept and the same command goes on from them"
    )
    use(monkeypatch, fake("quick", lambda *_: pytest.fail("asked twice")), fake("stopped", seconds=2))
    assert ask("check", "mine.py:double", cwd=place)[0] == 0


def test_a_target_that_hangs_ends_with_the_budget(place, monkeypatch):
    (place / "hangs.py").write_text("import time\ndef hangs(xs):\n    time.sleep(60)")
    started = time.monotonic()
    status, out, _ = ask("check", "hangs.py:hangs", "--budget", "1.5", cwd=place)
    assert status == 0
    assert out.splitlines()[0] == "Nothing was measured."
    assert "a longer --budget gives it more" in out
    assert time.monotonic() - started < 60


def test_the_two_checks_are_told_apart(place):
    assert "holdfast lists check" in ask("check", "--help", cwd=place)[1]
    assert "holdfast check" in ask("lists", "check", "--help", cwd=place)[1]
    assert "holdfast check" in ask("lists", "--help", cwd=place)[1]


def test_an_output_that_cannot_be_made_is_told_before_anything_is_measured(place):
    (place / "file").write_text("")
    status, _, err = ask("check", "mine.py:double", "--output", "file/below", cwd=place)
    assert "[1/" not in err
    assert status == 2
    assert "--output: expected a folder that can be written" in err
