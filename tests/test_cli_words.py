"""The words of the command line: what help shows, what a mistyped word is answered, what a shell completes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import __version__
from holdfast.cli import COMMANDS
from holdfast.cli.lists import COMMANDS as LISTS
from holdfast.cli.probes import PROBES
from tests.command_line import ask
from tests.lab.conftest import TOY


def test_help_names_every_command_and_the_version_flag(tmp_path: Path) -> None:
    status, out, _ = ask("--help", cwd=tmp_path)
    assert status == 0
    assert all(f"  {name} " in out and line in out for name, (line, _) in COMMANDS.items())
    assert "--version" in out
    assert max(map(len, out.splitlines())) <= 100
    assert ask("--version", cwd=tmp_path)[1] == f"holdfast {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "sharpness"),
        ("report",),
        *(("probe", name) for name in PROBES),
        *(("lists", name) for name in LISTS),
        ("confidence", "simulate"),
        ("bench", "rat-core"),
    ],
    ids=" ".join,
)
def test_help_shows_several_words_plainly(tmp_path: Path, words: tuple[str, ...]) -> None:
    status, out, _ = ask(*words, "--help", cwd=tmp_path)
    assert status == 0
    assert not re.search(r"\[\[|\[(.+?) \[(\1 )?\.\.\.\]\]", out)
    if words in (("run",), ("report",)):
        assert "[STUDY ...]" in out.splitlines()[0]
    if words == ("probe", "lists"):
        assert "--lengths INT ..." in out


def test_only_the_scales_of_a_study_are_offered(tmp_path: Path) -> None:
    out = ask("run", TOY, "--help", cwd=tmp_path)[1]
    assert "--scale {quick,laptop} " in out
    text = TOY.read_text(encoding="utf-8").replace('"quick": ', '"gpu": ')
    assert text.count('"gpu": ') == 1
    (tmp_path / "large.py").write_text(text, encoding="utf-8")
    out = ask("run", "large.py", "--help", cwd=tmp_path)[1]
    assert "quick" not in out.split("--scale")[1].split("--seeds")[0].split("How large")[0]
    assert "1 trial" not in ask("run", "large.py", "--scale", "quick", cwd=tmp_path)[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("lsit",), "no command named 'lsit'. Did you mean 'list'? There are: check, list, run, "),
        (("--verison",), "expected a command, got --verison. Did you mean '--version'? See: holdfast --help"),
        (("run", TOY, "--scal", "quick"), "no option --scal. Did you mean '--scale'? See: holdfast run "),
        (("run", TOY, "--sceds=3"), "no option --sceds=3. Did you mean '--seeds'? See: holdfast run "),
        (("run", TOY, "--config.slep-s", "1"), "no option --config.slep-s. Did you mean '--config.sleep-s'?"),
        (("run", TOY, "--qqq", "--scal", "quick"), "no option --qqq. no option --scal. Did you mean '--scale'?"),
        (("run", TOY, "--scale", "laptpo"), "has (quick, laptop), got laptpo. Did you mean 'laptop'?"),
        (("run", TOY, "--only", "mian"), "PART or STUDY/PART (toy: main), got mian. Did you mean 'main'?"),
        (("run", "--all", "--scale", "papr"), "laptop, gpu, paper, got papr. Did you mean 'paper'? See: holdfast run"),
        (("run", "--all", "--engine", "rai"), "--engine: expected one of local, ray, got rai."),
        (("probe", "sharpnes"), "no probe named 'sharpnes'. Did you mean 'sharpness'? There are: "),
        (("bench", "rat-cor"), "no bench named 'rat-cor'. Did you mean 'rat-core'? There are: "),
        (("train", "langage"), "no kind named 'langage'. Did you mean 'language'? There are: action, "),
        (("lists", "chek"), "no command named 'chek'. Did you mean 'check'? There are: check, "),
        (("lists", "check", "f.py:f", "g.py:g"), "too many words: g.py:g. See: holdfast lists check --help"),
        (("confidence", "fuse", "--qq"), "a value is missing: probability. See: "),
        (
            ("--tyro-write-completion", "bsh", "x"),
            "expected one of bash, zsh, fish, tcsh, got bsh. Did you mean 'bash'?",
        ),
        (("--tyro-write-completion", "bash"), "--tyro-write-completion: expected SHELL FILE"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(TOY), "TOY") if isinstance(value, tuple) else "",
)
def test_a_mistyped_word_is_answered_with_what_was_meant(
    tmp_path: Path, words: tuple[object, ...], expected: str
) -> None:
    status, out, err = ask(*words, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith("holdfast: error: ")
    assert expected in err
    assert len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bash is to load."""
    path = tmp_path_factory.mktemp("completion") / "holdfast"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "holdfast.models.language.recipe", None)  # slow to load, and as on a core install
        status, _, err = ask("--tyro-write-completion", "bash", path, cwd=path.parent)
    assert (status, err) == (0, "")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pro", ["probe"]),
        ("run sharpn", ["sharpness"]),
        ("run sharpness --config.needle.ma", ["--config.needle.margins"]),
        ("run sharpness --scale la", ["laptop"]),
        ("run sharpness --scale pa", []),
        ("probe sharpness --compa", ["--compare"]),
        ("lists check --law inv", ["invariant"]),
        ("bench rat-c", ["rat-core"]),
        ("train action --res", ["--resume"]),
    ],
)
def test_bash_completes(script: Path, line: str, expected: list[str]) -> None:
    words = ["holdfast", *line.split()]
    code = (
        f"source {script}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        '_tyro_holdfast; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    answer = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == expected
