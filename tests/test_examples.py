"""Each example runs as it stands, and says what it should."""

from __future__ import annotations

import json
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from holdfast.lab.locate import installed, load_file
from holdfast.probes.sharpness import probe_sharpness
from tests.command_line import ask

EXAMPLES = Path(__file__).parent.parent / "examples"
INDEX = EXAMPLES / "README.md"
SAYS = {
    "cheaper_attention.py": "RAT, chunks of 16           8.5     32.5    128.5",
    "choose_a_solution.py": "power_adamw  ",
    "control_loop.py": "mean return of policy: -",
    "extend_a_function.py": "brown dog fox jumps lazy over quick the the",
    "max_retrieval.py": "error of the softmax, by cause and n",
    "method.py": "weight of a needle 5 nats above the hay",
    "probe.py": "dH/d ln n, by head",
    "reconsider.py": "advice weighed outside",
    "sharing_macros.py": "its 32 actions are 6 different ones",
    "small_language_model.py": "with power-propagation ",
    "rewarm.py": "accuracy after the first and the second task",
    "study.py": "smaller-error: supported",
    "watch_training.py": "first layer, at a learning rate that stays as it is",
}


SHORTER = {"small_language_model.py": ["40"]}
"""Arguments with which an example takes less."""

NEED = {"inspect_task.py": "inspect_ai"}
"""Examples for programs that are no dependency; they run where these are installed."""


def test_every_example_is_known() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS) | set(NEED)


def test_the_index_names_every_example_and_every_system_has_one() -> None:
    text = INDEX.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \| (.+?) \| .+ \|$", text, re.MULTILINE)
    assert all(shown == link for shown, link, _ in rows)
    assert sorted(link for _, link, _ in rows) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert {system for *_, system in rows} == {*installed(), "across them", "the lab"}


@pytest.mark.filterwarnings("default::holdfast.nn.CorrectionInactiveWarning")  # what one of them shows
@pytest.mark.parametrize("example", sorted(set(SAYS) - {"study.py"}))
def test_an_example_runs(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [example, *SHORTER.get(example, [])])
    runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    assert SAYS[example] in capsys.readouterr().out
    assert not list(tmp_path.iterdir())  # an example leaves nothing behind


def test_an_example_that_starts_workers_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "study.py")]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stderr
    assert SAYS["study.py"] in ran.stdout
    assert not list(tmp_path.iterdir())


def test_the_study_runs_on_the_command_line(tmp_path: Path) -> None:
    status, out, err = ask("run", EXAMPLES / "study.py", cwd=tmp_path)
    assert status == 0, err
    assert (tmp_path / "results" / "report.html").is_file()
    assert "supported" in out


def test_the_probe_runs_on_the_command_line(tmp_path: Path) -> None:
    place = f"{EXAMPLES / 'probe.py'}:logits_of"
    status, out, err = ask("probe", "sharpness", place, "--lengths", 16, 32, cwd=tmp_path)
    assert status == 0, err
    assert "dH/d ln n" in out


def test_advice_weighed_outside_of_the_model_is_what_it_is_worth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reconsider.py"])
    runpy.run_path(str(EXAMPLES / "reconsider.py"), run_name="__main__")
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("1,000 questions, temperature ")
    # Of a thousand answers to questions about whose evidence the model is calibrated; four standard errors.
    assert float(head.split()[-1]) == pytest.approx(1.0, abs=0.25)
    cells = [row.split()[-2:] for row in rows]
    names = "first", "history", "masked", "fused"
    right = {name: float(share.rstrip("%")) / 100 for name, (share, _) in zip(names, cells, strict=True)}
    lost = {name: float(loss) for name, (_, loss) in zip(names, cells, strict=True)}
    assert right["fused"] == pytest.approx(0.8226, abs=4 * math.sqrt(0.8226 * 0.1774 / 1000))
    assert lost["fused"] == min(lost.values())
    assert lost["masked"] > lost["history"]


def test_the_task_of_inspect_finds_what_the_observer_is(tmp_path: Path) -> None:
    pytest.importorskip(NEED["inspect_task.py"])
    command = [sys.executable, str(EXAMPLES / "inspect_task.py")]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not list(tmp_path.iterdir())
    head, *_, tail = ran.stdout.splitlines()
    assert head.startswith("choice_bias in Inspect's log: ")
    # An observer with a bias of 1 and noise of .3 a reading, in 30 questions: four standard errors.
    assert float(head.split()[-1]) == pytest.approx(1.0, abs=4 * math.sqrt(2 * 0.3**2 / 4 / 30))
    assert "1,140 of 1,140 readings" in tail


def test_the_example_takes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder
    from tests.confidence import tiny

    tiny.gpt2().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", ["reconsider.py", str(tmp_path)])
    assert isinstance(load_file(EXAMPLES / "reconsider.py").responder_of([]), HuggingFaceResponder)


def test_a_trained_head_spreads_as_the_theory_says() -> None:
    """Few steps are enough: from where it has spread on, a trained head gains one nat for each nat of ln n."""
    head = load_file(EXAMPLES / "max_retrieval.py").Head(steps=150)
    report = probe_sharpness(head, [16, 1024, 4096, 16384], correct=head.correct)
    assert report.slope_sizes == (1024, 4096, 16384)
    assert 0.9 < report.slopes[0] < 1.1
    small, *_, large = report.answers
    assert small.error < 0.2 < 0.6 < large.error
    for answer in report.answers:
        assert answer.error == answer.ordering_error + answer.dispersion_error
    # Logits that fall linearly below the winner's weight p give H = 1 - ln p.
    n = large.size
    weights = head(n).softmax(-1)
    winner = torch.cat([sets.winner[0] for sets in head.sets(n)])
    predicted = 1 - math.log(weights.gather(-1, winner[:, None]).mean())
    assert report.entries[-1].entropy == pytest.approx(predicted, abs=0.3)


def test_the_trained_head_is_a_target_of_the_command_line(tmp_path: Path) -> None:
    place = f"{EXAMPLES / 'max_retrieval.py'}:head"
    words = ("--lengths", 16, 128, "--compare", "plain", "hard", "--plot", "x.png", "--json")
    status, out, err = ask("probe", "sharpness", place, *words, cwd=tmp_path)
    assert status == 0, err
    report = json.loads(out)
    assert [remedy["normaliser"] for remedy in report["remedies"]] == ["plain", "hard"] * 2
    for answer in report["answers"]:
        assert answer["accuracy"]["plain"] == pytest.approx(1 - answer["error"])
        assert answer["accuracy"]["hard"] <= 1 - answer["ordering_error"]
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_watched_layers_turn_less_as_their_norms_grow() -> None:
    first, second = load_file(EXAMPLES / "watch_training.py").train(steps=400)
    assert second["norm"] > 1.1 * first["norm"]
    assert second["elr/0"] < first["elr/0"]
    # Adam's steps are as long as before where noise rules the gradient; one batch in two hundred is looked at.
    assert second["elr/0"] * second["norm"] == pytest.approx(first["elr/0"] * first["norm"], rel=0.2)
