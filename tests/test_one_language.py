"""One language: an option means the same in every command, errors have one form, and so do the reports of probes."""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from holdfast.benches import BENCHES
from holdfast.cli import COMMANDS
from holdfast.cli.confidence import COMMANDS as CONFIDENCE
from holdfast.cli.lists import COMMANDS as LISTS
from holdfast.cli.probes import PROBES
from holdfast.cli.serve import KINDS as SERVED
from holdfast.cli.train import KINDS as TRAINED
from tests.command_line import ask
from tests.source_tree import HOUSE, sources

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

GROUPS = {
    "probe": PROBES,
    "train": TRAINED,
    "serve": SERVED,
    "bench": {name: bench for name, bench in BENCHES.items() if not bench.missing},
    "lists": LISTS,
    "confidence": CONFIDENCE,
}
EVERY = [
    words
    for name in COMMANDS
    for words in ([(name, member) for member in GROUPS[name]] if name in GROUPS else [(name,)])
]

NO_VALUE = "–"

FORMS = {
    "--seed": r"Of ",
    "--device": r"Where .* (runs?|to run).*: cpu, cuda,.* or auto",
    "--store": r"(Folder|File) that .* are kept in",
    "--output": r"(Folder|File) to write .* to\b",
    "--plot": r"File to write .* to\b",
    "--json": r"Print JSON",
    "--budget": r"Seconds ",
    "--timeout": r"Seconds ",
    "--text": r"(For a model: f|F)ile with a text for .* to read",
    "--rounds": r"Timed rounds|Steps at each length|Turns ",
}
"""How help of an option begins, whatever the command."""

OF_THEIR_OWN = {
    "--against": "another model, which may be an id or a card; another store, which is a folder",
    "--compare": "each probe with what there is for its question",
    "--macros": "a file with a list of actions, or what Rainbow is to make one of",
}
"""Options whose kind of value depends on the command, and why."""


@dataclass(frozen=True)
class Option:
    """An option as help shows it."""

    command: tuple[str, ...]
    flag: str
    takes: str
    default: str
    help: str


@cache
def options() -> list[Option]:
    """All options of all commands, read from what `--help` prints."""
    return [option for words in EVERY for option in shown(words)]


def shown(words: tuple[str, ...]) -> list[Option]:
    status, out, err = ask(*words, "--help", cwd=PAGE.parent, env={"COLUMNS": "88", "NO_COLOR": "1"})
    assert (status, err) == (0, ""), words
    rows: list[list[str]] = []
    for line in re.findall(r"^│ (.*?) *│$", out, re.MULTILINE):
        if line.startswith("--"):
            rows.append(re.split(r"  +", line, maxsplit=1))
        elif rows and line.startswith(" "):
            rows[-1].append(line.strip())
        else:  # the description of a group of options, or a positional word
            rows.append([""])
    found = []
    for invocation, *help in rows:
        if not invocation:
            continue
        flag, _, takes = invocation.partition(" ")
        text = " ".join(help)
        default = re.search(r" \(default: ?(.*?)\)$", text)
        takes = NO_VALUE if flag.endswith(",") else re.sub(r"^\{None\}\|(.*)$", r"\1", takes)
        takes = re.sub(r"^\{([^{}]+ \.\.\.)\}$", r"\1", takes)
        found.append(Option(words, flag.rstrip(","), takes, default[1] if default else "", text))
    return found


@cache
def vocabulary() -> dict[str, tuple[set[str], set[str]]]:
    """Of each option in the table of the page what it takes and its defaults; no default: each command has its own."""
    table = PAGE.read_text(encoding="utf-8").partition("\n## One language\n")[2].partition("\n## ")[0]
    words = {}
    for cells in re.findall(r"^\| (`--.*?) \| (.*?) \| (.*?) \| .* \|$", table, re.MULTILINE):
        flags, takes, defaults = (set(re.findall(r"`(.+?)`", cell)) for cell in cells)
        if cells[1] == NO_VALUE:
            takes = {NO_VALUE}
        if cells[2].endswith(NO_VALUE):
            defaults |= {"None", ""}
        if cells[2] == "off":
            defaults = {"False"}
        words |= dict.fromkeys(flags, (takes, defaults))
    return words


def test_what_a_command_takes_is_what_the_page_says() -> None:
    assert len(vocabulary()) > 20
    seen, wrong = set(), []
    for option in options():
        if option.flag not in vocabulary():
            continue
        seen.add(option.flag)
        takes, defaults = vocabulary()[option.flag]
        bench, own = option.command[0] == "bench", {option.takes}
        if bench:  # several values of what is one elsewhere, and defaults that depend on the machine
            own |= {option.takes.removesuffix(" ...")}
            defaults = set() if option.flag != "--device" else defaults
        if option.flag == "--device" and option.command[0] in ("train", "bench"):
            own |= {"DEVICE"} if option.takes == "{auto,cpu,cuda}" else set()
        if not own & takes or (defaults and option.default not in defaults):
            wrong.append(option)
        if option.flag in FORMS and not re.match(FORMS[option.flag], option.help):
            wrong.append(option)
    assert wrong == []
    assert seen == set(vocabulary()), "the page names options that no command has"
    assert set(FORMS) <= seen


def test_no_two_commands_mean_another_kind_of_value_by_one_name() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for option in options():
        if option.command[0] != "bench" and option.flag not in vocabulary():
            kinds[option.flag].add("WORD" if option.takes.startswith("{") else option.takes)
    assert {flag: found for flag, found in kinds.items() if len(found) > 1 and flag not in OF_THEIR_OWN} == {}


def test_one_name_for_one_thing() -> None:
    flags = {option.flag for option in options()}
    instead = {"--out": "--output", "--budget-s": "--budget", "--timeout-s": "--timeout", "--rng": "--seed"}
    assert flags & set(instead) == set()
    by_file = [option for option in options() if re.search(r"\bto write\b", option.help)]
    assert len(by_file) > 20
    assert [option for option in by_file if not re.match(r"(File|Folder) to write .* to\b", option.help)] == []
    # What holds otherwise has one wording too, and no option is "given" as an empty text.
    assert [option for option in options() if "by default" in option.help.lower()] == []
    assert [(o.command, o.flag) for o in options() if o.default == "''" and o.flag != "--prompt"] == []


def reports() -> dict[str, type[Any]]:
    """Classes of what probes return: in their room, with a verdict and a form for JSON."""
    modules = [import_module(f"holdfast.{name}") for name in sources(HOUSE) if name.startswith("probes.")]
    kinds = [kind for module in modules for kind in vars(module).values() if inspect.isclass(kind)]
    return {kind.__name__: kind for kind in kinds if hasattr(kind, "verdict") and "probes" in kind.__module__}


def test_reports_are_read_alike() -> None:
    assert len(reports()) >= 12
    returns = {"explain": ("str", str), "to_dict": ("dict[str, Any]", dict[str, Any]), "plot": ("None", None)}
    for title, kind in reports().items():
        assert is_dataclass(kind), title
        assert kind.__dataclass_params__.frozen, title  # type: ignore[attr-defined]
        assert isinstance(inspect.getattr_static(kind, "verdict"), property), title
        for method, parameters in {"explain": [], "to_dict": [], "plot": ["ax"]}.items():
            signature = inspect.signature(getattr(kind, method))
            assert list(signature.parameters) == ["self", *parameters], f"{title}.{method}"
            assert signature.return_annotation in returns[method], f"{title}.{method}"
        returned = {
            method: inspect.signature(getattr(kind, method)).return_annotation for method in ("explain", "plot")
        }
        assert returned == {"explain": "str", "plot": "None"}, title
        assert "__str__" in vars(kind), title


SORT = "builtins:sorted"
LOGITS = """
import torch

def logits_of(n):
    return 3 * torch.rand(2, 1, n, generator=torch.Generator().manual_seed(n))
"""
SHORT = {
    "lists": (SORT, "--lists", 4, "--lengths", 3, 4),
    "sharpness": ("logits.py:logits_of", "--lengths", 16, 64),
    "macros": ("--resamples", 20),
    "confidence": ("--observer", "both", "--count", 8, "--pilot"),
}
"""Words with which a probe takes a second or two."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logits.py").write_text(LOGITS, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("probe", SHORT)
def test_a_report_says_the_same_to_people_and_to_programs(folder: Path, probe: str) -> None:
    words = ("probe", probe, *SHORT[probe])
    status, out, err = ask(*words, "--json", "--plot", "report.png", cwd=folder)
    assert status == 0, err
    told = json.loads(out)
    assert (folder / "report.png").stat().st_size > 1000
    status, out, _ = ask(*words, "--explain", cwd=folder)
    assert status == 0
    assert " ".join(out.split()).startswith(told["verdict"])
    assert "\n\n" in out
    status, out, _ = ask(*words, cwd=folder)
    assert out.rstrip().endswith("--explain says what each column means.")


ERROR = re.compile(r"holdfast: error: (?P<word>--[\w-]+|[A-Z]+|[\w./]+(:\d+)?): expected .+, got .+\n")


def refused(*words: object, cwd: Path) -> str:
    """The word at fault, where a command ends with status 2 and one line of the one form."""
    status, out, err = ask(*words, cwd=cwd)
    assert (status, out) == (2, ""), (words, err)
    line = ERROR.fullmatch(err)
    assert line is not None, (words, err)
    return line["word"]


def with_option(flag: str, *, least: int = 1) -> list[tuple[str, ...]]:
    """Commands that have an option; benches, which share it, stand for each other."""
    commands = [option.command for option in options() if option.flag == flag]
    benches = [words for words in commands if words[0] == "bench"]
    found = [words for words in commands if words[0] != "bench"] + benches[:1]
    assert len(found) >= least
    return found


TO_BEGIN_WITH: dict[tuple[str, ...], tuple[object, ...]] = {
    ("probe", "lists"): (SORT,),
    ("probe", "sharpness"): ("logits.py:logits_of",),
    ("probe", "rat"): ("no-model",),
    ("probe", "plasticity"): ("demo",),
    ("probe", "solutions"): ("demo",),
    ("probe", "confidence"): ("--observer", "both"),
    ("check",): (SORT,),
    ("confidence", "analyze"): ("logits.py",),
    **{("lists", name): (SORT,) for name in ("check", "classify")},
}
"""What a command must be given at least."""


def test_a_wrong_seed_is_refused_alike(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"in": [3, 1, 2]}\n', encoding="utf-8")
    for words in with_option("--seed", least=15):
        more = TO_BEGIN_WITH.get(words, ())
        if words in (("lists", "extrapolate"), ("lists", "topk")):
            more = (SORT, "rows.jsonl")
        wrong = "x" if words[0] == "bench" else -1
        assert refused(*words, *more, "--seed", wrong, cwd=folder) == "--seed", words


def test_a_device_that_is_not_there_is_refused_alike(folder: Path) -> None:
    for words in with_option("--device", least=8):
        more = () if words == ("probe", "confidence") else TO_BEGIN_WITH.get(words, ())
        if words == ("probe", "confidence"):
            more = ("no-model",)
        if words in (("probe", "plasticity"), ("probe", "solutions")):
            (folder / "net.pt").touch()
            more = ("logits.py:logits_of", "--checkpoint", "net.pt", "--data", "logits.py:logits_of", "--peak", 1)
            more = more if words[1] == "plasticity" else more[:-2]
        assert refused(*words, *more, "--device", "abacus", cwd=folder) == "--device", words


def test_what_cannot_be_written_is_refused_before_anything_is_done(folder: Path) -> None:
    (folder / "taken").write_text("", encoding="utf-8")
    for words in with_option("--plot", least=10):
        more = TO_BEGIN_WITH.get(words, ())
        assert refused(*words, *more, "--plot", "gone/a.png", cwd=folder) == "--plot", words
    for words in with_option("--output", least=6):
        if words != ("report",):
            more = TO_BEGIN_WITH.get(words, ())
            place = "taken" if words[0] in ("train", "check") else "gone/a.json"
            assert refused(*words, *more, "--output", place, cwd=folder) == "--output", words
    assert not (folder / "gone").exists()


MISSING: dict[tuple[object, ...], str] = {
    ("check", "gone.py:f"): "TARGET",
    ("check", SORT, "--text", "gone.txt"): "--text",
    ("check", SORT, "--checkpoint", "gone.pt"): "--checkpoint",
    ("run", "gone.py"): "STUDY",
    ("report", "--store", "gone"): "--store",
    ("probe", "control-latency", "gone.safetensors"): "TARGET",
    ("probe", "copycat", "gone"): "TARGET",
    ("probe", "confidence", "--observer", "both", "--questions", "gone.jsonl"): "--questions",
    ("probe", "lists", "gone.py:f"): "TARGET",
    ("probe", "macros", "gone.csv"): "TARGET",
    ("probe", "plasticity", "gone.py:f", "--checkpoint", "a", "--data", "b.py:b", "--peak", 1): "TARGET",
    ("probe", "rat", "logits.py", "--text", "gone.txt"): "--text",
    ("probe", "sharpness", "gone.py:f"): "TARGET",
    ("probe", "solutions", "gone.py:f", "--checkpoint", "a", "--data", "b.py:b"): "TARGET",
    ("train", "language", "--data", "gone.txt"): "--data",
    ("train", "action", "--data", "gone"): "--data",
    ("serve", "action", "gone.safetensors", "--port", 0): "MODEL",
    ("generate", "gone"): "MODEL",
    ("lists", "check", "gone.py:f"): "TARGET",
    ("lists", "classify", "gone.py:f"): "TARGET",
    ("lists", "extrapolate", SORT, "gone.jsonl"): "INPUT",
    ("lists", "topk", SORT, "gone.jsonl"): "INPUT",
    ("lists", "synthesize", "gone.jsonl"): "EXAMPLES",
    ("confidence", "analyze", "gone.jsonl"): "STORE",
    ("confidence", "serve-observer", "--questions", "gone.jsonl"): "--questions",
}


@pytest.mark.parametrize("words", MISSING, ids=lambda words: " ".join(map(str, words)))
def test_a_file_that_is_not_there_is_named(folder: Path, words: tuple[object, ...]) -> None:
    assert refused(*words, cwd=folder) == MISSING[words]
