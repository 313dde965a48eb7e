"""Each example runs as it stands, and says what it should."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from holdfast.lab.locate import load_file
from holdfast.probes.sharpness import probe_sharpness

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "extend_a_function.py": "brown dog fox jumps lazy over quick the the",
    "max_retrieval.py": "error of the softmax, by cause and n",
    "method.py": "weight of a needle 5 nats above the hay",
    "probe.py": "dH/d ln n, by head",
    "study.py": "smaller-error: supported",
}


def run(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=180, check=False
    )


def test_every_example_is_known() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("example", SAYS)
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    ran = run(EXAMPLES / example, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert SAYS[example] in ran.stdout
    assert not list(tmp_path.iterdir())  # an example leaves nothing behind


def test_the_study_runs_on_the_command_line(tmp_path: Path) -> None:
    ran = run("-m", "holdfast", "run", EXAMPLES / "study.py", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "results" / "report.html").is_file()
    assert "supported" in ran.stdout


def test_the_probe_runs_on_the_command_line(tmp_path: Path) -> None:
    place = f"{EXAMPLES / 'probe.py'}:logits_of"
    ran = run("-m", "holdfast", "probe", "sharpness", place, "--sizes", 16, 32, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "dH/d ln n" in ran.stdout


def test_a_trained_head_spreads_as_the_theory_says() -> None:
    """Few steps are enough: from where it has spread on, a trained head gains one nat for each nat of ln n."""
    head = load_file(EXAMPLES / "max_retrieval.py").Head(steps=150)
    report = probe_sharpness(head, [16, 1024, 4096, 16384], correct=head.correct)
    assert report.slope_sizes == (1024, 4096, 16384)
    assert 0.9 < report.slopes[0] < 1.1
    small, *_, large = report.answers
    assert small.error < 0.2 < 0.6 < large.error
    for found in report.answers:
        assert found.error == found.ordering_error + found.dispersion_error
    # Logits that fall linearly below the winner's weight p give H = 1 - ln p.
    n = large.size
    weights = head(n).softmax(-1)
    winner = torch.cat([sets.winner[0] for sets in head.sets(n)])
    predicted = 1 - math.log(weights.gather(-1, winner[:, None]).mean())
    assert report.entries[-1].entropy == pytest.approx(predicted, abs=0.3)


def test_the_trained_head_is_a_target_of_the_command_line(tmp_path: Path) -> None:
    place = f"{EXAMPLES / 'max_retrieval.py'}:head"
    words = ("probe", "sharpness", place, "--sizes", 16, 128, "--compare", "plain", "hard", "--plot", "x.png", "--json")
    ran = run("-m", "holdfast", *words, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [each["normaliser"] for each in found["remedies"]] == ["plain", "hard"] * 2
    for each in found["answers"]:
        assert each["accuracy"]["plain"] == pytest.approx(1 - each["error"])
        assert each["accuracy"]["hard"] <= 1 - each["ordering_error"]
    assert (tmp_path / "x.png").stat().st_size > 5000
