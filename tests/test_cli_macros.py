"""`holdfast probe macros`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from holdfast.rl.macros import Macros
from holdfast.rl.similarity import load_similarity
from tests.command_line import ask

USER = """
import torch

network = torch.nn.Linear(3, 8)

def values(states):
    return states[:, [0, 1, 2, 2, 2, 2, 2, 2]]

def same(states):
    return states[:, :1].expand(-1, 8)
"""

PROBE = ("probe", "macros")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(USER, encoding="utf-8")
    rng = np.random.default_rng(0)
    states = rng.normal(size=(120, 3))
    np.save(tmp_path / "states.npy", states)
    q = states[:, [0, 1, 2, 2, 2, 2, 2, 2]]
    first, second = (q + 0.5 * rng.normal(size=q.shape) for _ in range(2))
    np.savez(tmp_path / "first.npz", q=first)
    np.savez(tmp_path / "second.npz", q=second)
    lines = ["q0,q1,q2,q3,q4,q5,q6,q7,action,episode"]
    lines += [",".join(map(str, [*row.round(3), number % 8, number // 10])) for number, row in enumerate(q)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text("\n".join([*lines[:7], "1,2,3,4,5,nan,7,8,0,0"]) + "\n", encoding="utf-8")
    macros = Macros(2, ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (1, 1, 1)))
    (tmp_path / "macros.json").write_text(macros.to_json(), encoding="utf-8")
    (tmp_path / "short.json").write_text(Macros(2, ((0, 0),)).to_json(), encoding="utf-8")
    return tmp_path


def test_a_csv_file_gives_table_picture_and_a_matrix_that_loads(folder: Path) -> None:
    words = ("--macros", "macros.json", "--output", "fitted.npz", "--plot", "out.png", "--explain")
    status, out, err = ask(*PROBE, "log.csv", *words, cwd=folder)
    assert status == 0, err
    assert out.startswith("Macros are overloading this learner")
    assert "samples an action: 15 to 15" in out
    assert "12 episodes resampled" in out
    assert "0 0, 0 1, 1 0, and 3 more" in out
    assert "(max Σq - mean) / (max q - mean)" in out
    assert "similarity: fitted.npz" in err
    assert (folder / "out.png").stat().st_size > 5000
    loaded = load_similarity(folder / "fitted.npz", Macros(2, ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (1, 1, 1))))
    assert loaded.clusters() == ((0,), (1,), tuple(range(2, 8)))


def test_functions_and_second_agents_give_json(folder: Path) -> None:
    status, out, err = ask(*PROBE, "mine.py:values", "--states", "states.npy", "--json", cwd=folder)
    assert status == 0, err
    plain = json.loads(out)
    assert plain["finding"] == "overloading"
    assert [group["actions"] for group in plain["groups"]] == [[0], [1], list(range(2, 8))]
    status, out, err = ask(*PROBE, "first.npz", "--json", cwd=folder)
    assert json.loads(out)["finding"] == "one agent", err
    status, out, err = ask(*PROBE, "first.npz", "--second", "second.npz", "--json", cwd=folder)
    assert status == 0, err
    plain = json.loads(out)
    assert [group["actions"] for group in plain["groups"]] == [[0], [1], list(range(2, 8))]
    assert 0.5 < plain["agreement"] < 0.9


def test_without_a_target_there_is_a_demonstration(tmp_path: Path) -> None:
    status, out, err = ask(*PROBE, "--resamples", "20", cwd=tmp_path)
    assert status == 0, err
    assert out.startswith("Macros are overloading this learner: by their values its 32 actions are")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bad.csv",), "bad.csv, line 8: expected a finite number for q5, or -inf for an illegal action, got 'nan'"),
        (("none.csv",), "TARGET: expected a CSV file that can be read"),
        (("mine.py",), "TARGET: expected a file .csv or .npz, or a function"),
        (("mine.py:values",), "--states: expected a file with the states to ask the function about, got none"),
        (("mine.py:nothing", "--states", "states.npy"), "TARGET: expected a function nothing in mine.py"),
        (("mine.py:values", "--states", "none.npy"), "--states: expected a file of numpy that can be read"),
        (("mine.py:same", "--states", "states.npy"), "TARGET: expected values that differ between actions"),
        (("log.csv", "--states", "states.npy"), "--states: expected a function, which alone has states"),
        (("--states", "states.npy"), "--states: expected a TARGET, which alone has such an option"),
        (("--macros", "macros.json"), "--macros: expected a TARGET"),
        (("--second", "second.npz"), "--second: expected a TARGET"),
        (("log.csv", "--macros", "short.json"), "--macros: expected a list of 8 actions, since q has 8, got 3"),
        (("log.csv", "--macros", "none.json"), "--macros: expected a file of JSON that can be read"),
        (("first.npz", "--second", "first.npz"), "--second: expected another agent's values"),
        (("first.npz", "--second", "none.npz"), "--second: expected a file of numpy that can be read"),
        (("log.csv", "--output", "fitted.txt"), "--output: expected a path that ends in .npz"),
        (("log.csv", "--output", "no/fitted.npz"), "--output: expected a path that ends in .npz"),
        (("log.csv", "--tolerance", "0.7"), "--tolerance: expected a share above 0 and below 0.5"),
        (("log.csv", "--resamples", "3"), "--resamples: expected a whole number of at least 20"),
        (("log.csv", "--json", "--explain"), "--explain: expected a report for people"),
    ],
)
def test_mistakes_are_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    status, out, err = ask(*PROBE, *words, cwd=folder)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
