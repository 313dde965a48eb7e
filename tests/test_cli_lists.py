"""The commands for functions on lists: exit statuses, JSON lines, and one clear line for a mistake."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from holdfast.cli import main

MINE = """
def short_sort(xs):
    if len(xs) > 8:
        raise RuntimeError("too long")
    return sorted(xs)
def rotate(xs):
    return xs[1:] + xs[:1]
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    rows = [list(range(20, 0, -1)), [2, 2, 1], []]
    (tmp_path / "lists.jsonl").write_text("\n".join(json.dumps({"in": row}) for row in rows) + "\n\n")
    (tmp_path / "examples.jsonl").write_text('{"in": [1, 2], "out": [1, 2, 1, 2, 2, 1]}\n')
    (tmp_path / "broken.jsonl").write_text('{"in": [1]}\n{"in": \n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["lists", *words])
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def test_check_prints_a_counterexample_that_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(capsys, "check", "mine.py:short_sort", "--max-length", "8", "--max-examples", "50")[0] == 0
    status, out, _ = ask(capsys, "check", "mine.py:rotate")
    assert status == 1
    assert "[0, 1, 2]" in out
    snippet = out[out.index("    from mine import rotate as f") :].replace("\n    ", "\n").strip()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(AssertionError):
        exec(snippet, {})
    monkeypatch.delitem(sys.modules, "mine")
    status, out, _ = ask(capsys, "check", "mine.py:rotate", "--json")
    assert (status, json.loads(out)["holds"]) == (1, False)
    assert ask(capsys, "check", "mine.py:rotate", "--law", "map", "--max-examples", "50")[0] == 0


def test_classify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "classify", "mine.py:short_sort", "--max-length", "8", "--max-examples", "50")
    holds = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert status == 0
    assert holds == {
        "filter": "yes",
        "map": "no",
        "injective": "no",
        "order": "yes",
        "positional": "yes",
        "invariant": "yes",
    }


def test_extrapolate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ask(capsys, "extrapolate", "mine.py:short_sort", "lists.jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["out"] for row in rows] == [list(range(1, 21)), [1, 2, 2], []]
    assert "the longest of 8 elements" in err
    status, out, err = ask(capsys, "extrapolate", "mine.py:rotate", "lists.jsonl")
    assert (status, out) == (2, "")
    assert "not extendable" in err


def test_topk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("topk", "mine.py:short_sort", "lists.jsonl", "--k", "2", "--capacity", "8")
    status, out, err = ask(capsys, *words)
    assert (status, out.split()) == (0, ["1", "2", "1", "2"])
    assert "the longest of 8 elements" in err
    status, out, _ = ask(capsys, *words, "--json", "--tiers")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["out"] for row in rows] == [[1, 2], [1, 2], []]
    assert [row["tiers"] for row in rows] == [[[1], [2]], [[1], [2]], []]
    assert ask(capsys, *words, "--k", "0")[0] == 2


def test_the_probe_needs_no_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("probe", "lists", "mine.py:rotate", "--lengths", "2", "6", "--lists", "40", "--plot", "picture.png")
    with pytest.raises(SystemExit) as stop:
        main([*words, "--json", "--fail-above", "0.01"])
    out, _ = capsys.readouterr()
    shares = [entry["violation"] for entry in json.loads(out)["entries"]]
    assert stop.value.code == 1
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(1 / 6, abs=0.2)
    assert (folder / "picture.png").stat().st_size > 1000


def test_synthesize(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "synthesize", "examples.jsonl")
    assert status == 0
    assert out.startswith("id + id + reverse")
    status, out, _ = ask(capsys, "synthesize", "examples.jsonl", "--code")
    names: dict[str, object] = {}
    exec(out, names)
    found = json.loads(ask(capsys, "synthesize", "examples.jsonl", "--json")[1])
    assert found["best"] == {"name": "id + id + reverse", "size": 3, "python": out[:-1], "family": "natural"}
    assert found["unique"] is True
    assert found["families"][0]["name"] == "natural"
    assert ask(capsys, "synthesize", "examples.jsonl", "--json", "--code")[0] == 2
    assert names["f"]([1, 2, 3]) == [1, 2, 3, 1, 2, 3, 3, 2, 1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), "no command named 'nonsense'"),
        (("check", "mine.py:gone"), "TARGET"),
        (("check", "mine.py:number"), "TARGET"),
        (("extrapolate", "mine.py:short_sort", "gone.jsonl"), "INPUT"),
        (("extrapolate", "mine.py:short_sort", "broken.jsonl"), "broken.jsonl:2"),
        (("extrapolate", "mine.py:short_sort", "lists.jsonl", "--capacity", "1"), "capacity"),
        (("synthesize", "lists.jsonl"), "lists.jsonl:1"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    status, _, err = ask(capsys, *words)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1, err


class Gone(io.StringIO):
    """Standard output whose reader has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.file = open(os.devnull, "w")  # noqa: SIM115  what stands for standard output has a number

    def flush(self) -> None:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self.file.fileno()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("lists", "check", "mine.py:rotate"), 1),
        (("lists", "check", "mine.py:short_sort", "--max-length", "8", "--max-examples", "20"), 0),
        (("lists", "synthesize", "examples.jsonl"), 0),
        (("probe", "lists", "mine.py:rotate", "--lengths", "8", "--fail-above", "0"), 1),
    ],
)
def test_the_exit_status_is_the_same_behind_a_pipe_that_closes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int
) -> None:
    monkeypatch.setattr(sys, "stdout", gone := Gone())
    with pytest.raises(SystemExit) as stop:
        main(words)
    gone.file.close()
    assert stop.value.code == status


def test_the_probe_begins_with_its_verdict_and_explains_its_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["probe", "lists", "mine.py:rotate", "--lengths", "2", "8", "--explain"])
    out, _ = capsys.readouterr()
    assert out.startswith("The function breaks the rule now and then")
    assert "multiplicity  share where the two answers hold different numbers" in out
    for words in (("--explain", "--json"), ("--fail-above", "2"), ("--values", "-1")):
        with pytest.raises(SystemExit) as stop:
            main(["probe", "lists", "mine.py:rotate", *words])
        assert stop.value.code == 2
        assert words[0] in capsys.readouterr().err


def test_order_invariance_is_a_law_to_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "check", "mine.py:rotate", "--law", "invariant")
    assert status == 1
    assert "the answer hangs on the order in which the elements are shown" in out
