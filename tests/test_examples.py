"""Each example runs as it stands, and says what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "method.py": "weight of a needle 5 nats above the hay",
    "probe.py": "dH/d ln n, by head",
    "study.py": "smaller-error: supported",
}


def run(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=60, check=False
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
