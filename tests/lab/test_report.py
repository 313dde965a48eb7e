from __future__ import annotations

import base64
import csv
import dataclasses
import io
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast import __version__
from holdfast.cli.studies import installed_studies
from holdfast.errors import ArgumentError
from holdfast.lab.report import Other, Section, render, text, write_report
from holdfast.lab.report.chapter import ReportWarning
from holdfast.lab.results import Failure, Results
from holdfast.lab.study import Figure, Paper, Study
from holdfast.lab.trial import Config, Outcome, Trial
from holdfast.lab.verdict import (
    Claim,
    Evidence,
    Status,
    exact,
    judge,
    mean_of,
    needs_scale,
    paired_difference,
    unusable,
)
from tests.lab.conftest import changed

# Some studies here have a figure that breaks on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::holdfast.lab.report.chapter.ReportWarning")


@dataclass(frozen=True)
class Model:
    width: int = 128
    heads: int = 8
    activation: str = "gelu"


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    model: Model = field(default_factory=Model)
    lengths: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    learning_rate: float = 3e-4
    steps: int = 5000
    corpus: str = "the standard library's source, <tokenised> & packed"


LENGTHS = Settings().lengths


def _accuracy(results: Results, arm: str, n: int) -> dict[int, float]:
    # Without the failed seeds, with which all claims would be inconclusive: the page is to show every verdict.
    return dict(results.by_seed("accuracy", arm=arm, n=n))


def _draw_lengths(results: Results, axes: Any) -> list[dict[str, Any]]:
    rows = []
    for arm, marker in (("plain", "o"), ("adaptive", "s")):
        means, spread = [], []
        for n in LENGTHS:
            values = list(_accuracy(results, arm, n).values())
            if not values:
                return []
            means.append(float(np.mean(values)))
            spread.append(float(np.std(values)))
            rows.append({"arm": arm, "n": n, "mean": means[-1], "deviation": spread[-1]})
        axes.errorbar(LENGTHS, means, yerr=spread, marker=marker, label=f"{arm} attention")
    axes.axhline(0.1, color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.set(xscale="log", xlabel="sequence length $n$", ylabel="accuracy", ylim=(0, 1.02))
    axes.legend()
    return rows


def _draw_heads(results: Results, axes: Any) -> list[dict[str, Any]]:
    table = np.array([[1 / (1 + h + math.log(n)) for n in LENGTHS] for h in range(8)])
    image = axes.imshow(table, aspect="auto", cmap="viridis")
    axes.figure.colorbar(image, ax=axes, label="largest weight")
    axes.set(xlabel="length", ylabel="head")
    axes.set_xticks(range(len(LENGTHS)), [str(n) for n in LENGTHS])
    axes.grid(False)
    return [{"head": h, "n": n, "weight": float(table[h, i])} for h in range(8) for i, n in enumerate(LENGTHS)]


def _draw_bars(results: Results, axes: Any) -> list[dict[str, Any]]:
    names = ["Adam", "AdamW", "Shampoo", "power-\npropagation", "SGD <μ = 0.9> & decay"]
    values = [0.31, 0.33, 0.42, 0.47, 0.29]
    bars = axes.bar(range(5), values, hatch=["", "", "//", "..", ""], alpha=0.9)
    axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.set_xticks(range(5), names, rotation=30, ha="right")
    axes.set(ylabel="accuracy kept on the first task", title="After four tasks")
    return [
        {"optimiser": name, "kept": value, "note": 'a "quoted", <b>note</b>'}
        for name, value in zip(names, values, strict=True)
    ]


def _draw_broken(results: Results, axes: Any) -> list[dict[str, Any]]:
    raise KeyError("no column 'entropy' in <records>")


def _draw_nothing(results: Results, axes: Any) -> list[dict[str, Any]]:
    return []


def _unused(*_: Any) -> Any:
    raise AssertionError("a report runs nothing")


def sharpness(scale: str = "laptop", seeds: int = 6) -> Section:
    config = Settings(seeds=seeds)
    random = np.random.default_rng(0)
    outcomes = [
        (
            Trial(seed, config, {"arm": arm}),
            Outcome(
                [
                    {"n": n, "accuracy": min(1.0, base - slope * math.log(n / 16) + random.normal(0, 0.012))}
                    for n in LENGTHS
                ]
            ),
        )
        for seed in range(seeds)
        for arm, base, slope in (("plain", 0.97, 0.12), ("adaptive", 0.972, 0.1))
    ]
    failures = [
        Failure(
            "3f9a1c77e2b4",
            Trial(6, config, {"arm": "adaptive", "n": 65536}),
            "worker lost (killed by signal 9, out of memory)",
            "step 100 loss 2.31\r\nstep 200 loss \x1b[31mnan\x1b[0m\x00\n"
            + "Traceback: <class 'MemoryError'> & a very long line " * 6,
        ),
        Failure("0b12", Trial((7, 8), config), "did not finish in 600 s", ""),
    ]
    results = Results(config, outcomes, failures)
    claims = [
        Claim(
            "longer-inputs",
            "Adaptive temperature raises accuracy at 256 times the training length by more than 1 point.",
            lambda r: paired_difference(_accuracy(r, "adaptive", 4096), _accuracy(r, "plain", 4096), threshold=0.01),
            paper="+1.9 points for n = 2¹⁴ (table 2)",
            headline=True,
            plain="adaptive temperature helps on longer inputs",
            figure="accuracy-by-length",
        ),
        Claim(
            "in-distribution",
            "At the training length it costs nothing: accuracy stays above 0.99 & the loss "
            "<script>alert(1)</script> does not rise, whatever the number of heads.",
            lambda r: mean_of(_accuracy(r, "adaptive", 16), threshold=0.99),
            paper="99.4 % against 99.3 % (section 5.1)",
        ),
        Claim(
            "entropy",
            "Entropy of the sharpest head grows slower than log n.",
            lambda r: mean_of({0: 0.93, 1: 0.95}, threshold=1.0, alternative="less"),
            paper="a bound, no number (theorem 2.2)",
            family="mechanism",
        ),
        Claim(
            "clrs",
            "On CLRS-Text the gain is positive on at least 20 of 30 algorithms.",
            lambda r: unusable("no results for CLRS-Text"),
            family="mechanism",
            headline=True,
            figure="clrs",
        ),
        Claim(
            "huge",
            "It holds for a model of <70> billion parameters.",
            lambda r: needs_scale("gpu"),
            family="mechanism",
            headline=True,
            plain="it holds for large models, too",
        ),
    ]
    study = Study(
        name="sharpness",
        question="Does attention disperse as its input grows, and does a temperature that adapts to the "
        "entropy of the logits repair it?",
        scales={"quick": config, "laptop": config},
        trials=_unused,
        run=_unused,
        claims=claims,
        figures=[
            Figure("accuracy-by-length", "Accuracy against length, mean and deviation over seeds.", _draw_lengths),
            Figure("heads", "Largest attention weight of each head; brighter is sharper.", _draw_heads),
            Figure("entropy", "Entropy of each head against length.", _draw_broken),
            Figure("clrs", "Gain on each CLRS-Text algorithm.", _draw_nothing),
        ],
        paper=Paper("Softmax is not enough (for sharp size generalisation)", "2410.01104"),
    )
    environments = [
        {"machine": "x86_64, 16 cores", "gpu": None, "packages": {"torch": "2.11.0", "numpy": "2.1.0"}},
        {"machine": "aarch64, 72 cores", "gpu": "H200 <141 GB>", "packages": {"torch": "2.11.0"}},
    ]
    return Section(
        study,
        scale,
        config,
        results,
        judge(claims, [claim.test(results) for claim in claims]),
        environments,
        f"holdfast run sharpness --scale {scale} --seeds {seeds} --config.learning-rate 0.0003 "
        "--config.model.width 128",
        larger={"gpu": "holdfast run sharpness --scale gpu"},
    )


def solutions() -> Section:
    config = Settings(seeds=10)
    claims = [
        Claim("forgetting", "Power-propagation forgets less than Adam.", _unused, paper="0.41 → 0.55 (figure 4)"),
        Claim("sparsity", "It leaves at least 30 % more weights below 1e-6.", _unused, paper="2.1 ×"),
        Claim("identity", "Every layer map commutes with deletion on all lists up to length 6.", _unused),
    ]
    evidence = [
        Evidence(0.163, 0.121, 0.205, True, 0.00002, 10, "paired difference, t interval"),
        Evidence(-41.2, -118.0, 35.6, False, 0.26, 10, "mean over seeds, t interval"),
        exact(holds=True, effect=0, n=19608, test="all lists over 7 symbols, counted exceptions"),
    ]
    study = Study(
        name="solutions",
        question="Does the optimiser decide which solution is found?",
        scales={"quick": config},
        trials=_unused,
        run=_unused,
        claims=claims,
        figures=[Figure("kept", "Accuracy on the first task after the last.", _draw_bars)],
        paper=Paper("Optimisers qualitatively alter solutions and we should leverage this", "2507.12224"),
    )
    outcomes = [(Trial(seed, config), Outcome([{"kept": 0.5 + seed / 100}])) for seed in range(10)]
    return Section(
        study,
        "laptop",
        config,
        Results(config, outcomes),
        judge(claims, evidence),
        [{"machine": "x86_64"}],
        "holdfast run solutions --scale laptop",
    )


def nothing_yet() -> Section:
    config = Settings(seeds=1)
    claims = [Claim("ever", "Something holds.", lambda r: mean_of(r.by_seed("x"), threshold=0))]
    study = Study(
        name="empty",
        question="Is anything there?",
        scales={"quick": config},
        trials=_unused,
        run=_unused,
        claims=claims,
        figures=[Figure("none", "Nothing.", _draw_lengths)],
    )
    results = Results(config, [])
    return Section(study, "quick", config, results, judge(claims, [claims[0].test(results)]), [], "holdfast run empty")


def sections() -> list[Section]:
    return [sharpness(), solutions(), nothing_yet()]


class Page(HTMLParser):
    """Elements with their attributes, and checks that every element is closed."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, *names: str) -> list[str]:
        return [value for _, attrs in self.elements for name in names if (value := attrs.get(name)) is not None]


@pytest.fixture(scope="module")
def html() -> str:
    return render(sections())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_import_is_light() -> None:
    heavy = {"matplotlib", "jinja2", "numpy", "torch"}
    code = f"import sys, holdfast.lab.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_says_what_was_found(html: str) -> None:
    assert __version__ in html
    statuses = Counter(verdict.status for section in sections() for verdict in section.verdicts)
    assert set(statuses) == set(Status)
    for status, n in statuses.items():
        judged = n - (status is Status.INCONCLUSIVE)  # one claim needs a larger scale
        assert f"<b>{judged}</b> {status.value}" in html
        assert html.count(f'<span class="badge {status.value}">') == judged
    assert "+0.163" in html
    assert "[0.121, 0.205]" in html
    assert "&lt; 0.001" in html
    assert "(table 2)" in html
    assert "Inconclusive: 2 seeds, at least 3 needed" in html
    assert "Inconclusive: no results for CLRS-Text" in html
    assert "Inconclusive: the data cannot tell (adjusted p = 0.26" in html
    assert "Holm" in html


def test_verdicts_come_first_and_sections_in_order(html: str) -> None:
    order = [
        html.index(mark)
        for mark in (
            "<h1>",
            'id="find"',
            'id="answers"',
            'id="sharpness-laptop"',
            'id="sharpness-laptop-care"',
            'id="solutions-laptop"',
            'id="empty-quick"',
            "How a verdict is computed",
        )
    ]
    assert order == sorted(order)


def test_gives_settings_command_environments_and_failures(html: str) -> None:
    assert '<th scope="row">model.width</th><td>128</td>' in html
    assert "<td>16, 64, 256, 1024, 4096</td>" in html
    command = re.search(r'Reproduce: <code class="command">(.*?)</code>', html, re.DOTALL)
    assert command
    assert re.sub(r"<.*?>", "", command[1]) == sharpness().command
    assert '<th scope="row">packages.numpy</th><td>2.1.0</td><td>–</td>' in html
    assert '<a href="https://arxiv.org/abs/2410.01104">arXiv:2410.01104</a>' in html
    assert "killed by signal 9" in html
    assert "step 200 loss nan\n" in html
    assert html.index("0b12") < html.index("3f9a1c77e2b4")
    assert "seeds 7–8" in html


def test_warns_of_failures_few_seeds_and_quick_runs(html: str) -> None:
    assert "2 of 14 trials have failed" in html
    assert "1 claim rests on only 2 seeds" in html
    assert "No trial has finished yet." in html
    assert "weak evidence" in html
    assert "Read with care" not in render([solutions()])


def test_escapes_everything(html: str, page: Page) -> None:
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "&lt;tokenised&gt; &amp; packed" in html
    assert "SGD &lt;μ = 0.9&gt; &amp; decay" in html
    assert "H200 &lt;141 GB&gt;" in html
    assert "&lt;class &#39;MemoryError&#39;&gt;" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", html)


def test_same_sections_same_bytes(html: str, tmp_path: Path) -> None:
    assert render(sections()) == html
    code = (
        f"import runpy, sys; this = runpy.run_path({str(Path(__file__))!r}); "
        "this['write_report'](this['sections'](), sys.argv[1])"
    )
    other = tmp_path / "other.html"
    # Another process, hash seed, time zone and day count: nothing of it may reach the page.
    variables = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code, str(other)], check=True, env=variables)
    assert other.read_text("utf-8") == html


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = page.values("id")
    assert [name for name, n in Counter(ids).items() if n > 1] == []
    references = {value[1:] for value in page.values("href") if value.startswith("#")}
    references |= {
        name for value in page.values("style", "clip-path") for name in re.findall(r"url\(#([^)]+)\)", value)
    }
    assert references <= set(ids)
    assert any(name.startswith("sharpness-laptop-figure-1-") for name in references)


def test_needs_no_network(html: str, page: Page) -> None:
    for tag, attrs in page.elements:
        assert tag not in ("iframe", "object")
        for name, value in attrs.items():
            if name in ("src", "srcset", "href", "xlink:href", "data") and tag != "a":
                assert value is not None
                assert value.startswith(("data:", "#")), (tag, name, value)
    assert "@import" not in html
    assert not re.search(r"url\(\s*['\"]?(?!#)", html)
    links = [value for value in page.values("href") if "://" in value]
    assert all(link.startswith("https://arxiv.org/abs/") for link in links)


def test_figures_take_the_pages_ink(html: str, page: Page) -> None:
    plots = re.findall(r'<svg class="plot".*?</svg>', html, re.DOTALL)
    assert len(plots) == 5  # two of the three stand on the first screen, too
    for plot in plots:
        assert "currentColor" in plot
        assert "#010203" not in plot
        assert "#000000" not in plot
        assert "<style" not in plot
        assert "<metadata" not in plot
    assert ">accuracy</text>" in plots[0]
    assert "stroke-dasharray" in plots[0]


def test_a_broken_figure_is_named_and_the_rest_stands(html: str) -> None:
    assert "The figure “entropy” could not be drawn." in html
    assert "no column &#39;entropy&#39; in &lt;records&gt;" in html
    assert "Gain on each CLRS-Text algorithm." not in html, "a figure without data"
    assert "<b>none</b> Nothing." not in html


@pytest.mark.parametrize("problem", ["row", "mathtext"])
def test_late_failures_of_a_figure_are_isolated(problem: str) -> None:
    def draw(results: Results, axes: Any) -> Any:
        axes.set_title(r"$\frac{$" if problem == "mathtext" else "fine")
        return [{"x": 1}] if problem == "mathtext" else [1]

    section = solutions()
    study = changed(section.study, figures=[Figure("late", "Late.", draw)])
    html = render([dataclasses.replace(section, study=study)])
    assert "The figure “late” could not be drawn." in html
    assert "+0.163" in html


def test_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render([sharpness()])
    assert dict(matplotlib.rcParams) == before


def test_users_matplotlib_settings_do_not_matter() -> None:
    import matplotlib

    plain = render([solutions()])
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "lines.linewidth": 9}):
        assert render([solutions()]) == plain


def test_csv_holds_the_rows_that_were_drawn(page: Page) -> None:
    section = solutions()
    downloads = {attrs["download"]: attrs["href"] for tag, attrs in page.elements if "download" in attrs}
    assert list(downloads) == [
        "sharpness-laptop-accuracy-by-length.csv",
        "sharpness-laptop-heads.csv",
        "solutions-laptop-kept.csv",
    ]
    head, data = str(downloads["solutions-laptop-kept.csv"]).split(",", 1)
    assert head == "data:text/csv;charset=utf-8;base64"
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(data).decode("utf-8"), newline="")))
    from matplotlib.figure import Figure as Canvas

    expected = _draw_bars(section.results, Canvas().add_subplot())
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]


def test_csv_has_the_columns_of_all_rows() -> None:
    assert text.to_csv([{"a": 1, "b": None}, {"a": 0.5, "c": "x,y"}]) == 'a,b,c\n1,,\n0.5,,"x,y"\n'


def test_data_and_picture_of_a_figure_name_no_folder_of_a_machine() -> None:
    def draw(results: Results, axes: Any) -> list[Any]:
        axes.set_title("from /home/me/data.csv")
        axes.plot([0, 1], [0, 1])
        return [{"/home/me/x": 1, "file": "/home/me/secret plans.csv", "url": "https://a.b/c/d"}, {"file": None}]

    shown = sharpness()
    study = dataclasses.replace(shown.study, parts=[dataclasses.replace(shown.study.parts[0], claims=[], figures=[])])
    figure = Figure("odd", "Odd.", draw)
    study = dataclasses.replace(study, parts=[dataclasses.replace(study.parts[0], figures=[figure])])
    html = render([dataclasses.replace(shown, study=study)])
    page = Page(html)
    [link] = [str(attrs["href"]) for _, attrs in page.elements if "download" in attrs]
    table = base64.b64decode(link.split(",", 1)[1]).decode("utf-8")
    assert table == "…/x,file,url\n1,…/secret plans.csv,https://a.b/c/d\n,,\n"
    assert "from …/data.csv" in html
    assert "/home/me" not in html


def test_a_mixture_of_versions_is_said() -> None:
    environments = [
        {"python": "3.12.1", "packages": {"numpy": "2.1.0", "torch": "2.8"}},
        {"python": "3.12.1", "packages": {"numpy": "1.26.4"}},
    ]
    html = render([dataclasses.replace(sharpness(), environments=environments)])
    assert "Trials were computed with different versions of numpy: 1.26.4, 2.1.0." in html
    assert "different versions of torch" not in html
    assert "different versions of" not in render([dataclasses.replace(sharpness(), environments=environments[:1])])


def test_an_empty_report_is_a_page() -> None:
    html = render([])
    Page(html)
    assert "No study has results yet." in html


def test_one_study_at_two_scales_and_twice() -> None:
    html = render([sharpness("quick", 2), sharpness(), sharpness()])
    ids = Page(html).values("id")
    assert len(ids) == len(set(ids))
    assert {"sharpness-quick", "sharpness-laptop", "sharpness-laptop-2"} <= set(ids)


def test_a_study_without_claims_figures_or_paper() -> None:
    section = nothing_yet()
    study = changed(section.study, claims=(), figures=())
    html = render([dataclasses.replace(section, study=study, verdicts=())])
    Page(html)
    assert "This study judges no claims." in html


def test_write_report(tmp_path: Path, html: str) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(sections(), path) == path
    assert path.read_bytes() == html.encode()
    assert write_report([], str(path)) == path
    assert path.read_text("utf-8") == render([])
    assert os.listdir(path.parent) == ["report.html"]


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report([], tmp_path / "report.html")
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report([solutions()], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (-0.0, "0"),
        (19608.0, "19608"),
        (-3.0, "−3"),
        (0.04719, "0.0472"),
        (1234.56, "1235"),
        (-12.345, "−12.3"),
        (1.234e-7, "1.23 × 10⁻⁷"),
        (2.5e9, "2.50 × 10⁹"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("evidence", "effect", "interval"),
    [
        (
            Evidence(0.0471, 0.0312, 0.0631, True, 0.01, 5, "paired difference, t interval"),
            "+0.047",
            "[0.031, 0.063]",
        ),
        (
            Evidence(-0.0471, -0.0631, -0.0312, True, 0.01, 5, "paired difference"),
            "−0.047",
            "[−0.063, −0.031]",
        ),
        (Evidence(0.93, 0.91, 0.95, True, 0.01, 5, "mean over seeds"), "0.930", "[0.910, 0.950]"),
        (Evidence(1234.5, 1100.0, 1369.0, True, 0.01, 5, "mean over seeds"), "1234", "[1100, 1369]"),
        (Evidence(-0.001, -0.5, 0.498, False, 0.9, 5, "mean over seeds"), "0.00", "[−0.50, 0.50]"),
        (
            Evidence(2e-9, 1e-9, 3e-9, True, 0.01, 5, "mean over seeds"),
            "2.00 × 10⁻⁹",
            "[1.00 × 10⁻⁹, 3.00 × 10⁻⁹]",
        ),
        (Evidence(effect=0.5, n=2, reason="2 seeds"), "0.500", ""),
        (exact(holds=True, effect=3, n=9, test="all"), "3", ""),
        (unusable("nothing"), "–", ""),
    ],
)
def test_effects(evidence: Evidence, effect: str, interval: str) -> None:
    assert text.effect(evidence) == effect
    assert text.interval(evidence) == interval


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "< 0.001"),
        (0.00099, "< 0.001"),
        (0.0123, "0.012"),
        (0.26, "0.26"),
        (1, "1.00"),
    ],
)
def test_p_values(p: float | None, shown: str) -> None:
    assert text.p_value(p) == shown


def test_settings_are_flat_and_free_of_addresses() -> None:
    @dataclass(frozen=True)
    class Odd:
        arms: tuple[Model, ...] = (Model(), Model(width=64))
        table: dict[str, Any] = field(default_factory=lambda: {"a": {"b": 1}, "none": {}})
        function: Any = math.sqrt
        thing: Any = field(default_factory=object)
        status: Status = Status.SUPPORTED
        names: frozenset[str] = frozenset({"b", "a"})
        empty: tuple[int, ...] = ()

    found = dict(text.flatten(Odd()))
    assert found["arms.1.width"] == "64"
    assert found["table.a.b"] == "1"
    assert found["table.none"] == "–"
    assert found["function"] == "math.sqrt"
    assert found["thing"] == "<object object>"
    assert found["status"] == "supported"
    assert found["names"] == "a, b"
    assert found["empty"] == "–"


def test_long_logs_keep_their_end() -> None:
    shown = text.log_tail("x" * 50_000 + "the reason")
    assert shown.startswith("[…]\n")
    assert shown.endswith("the reason")
    assert len(shown) < 9_000


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('  File "/home/al ice/lab/x.py", line 3, in run', '  File "…/x.py", line 3, in run'),
        ("/home/alice/x.txt: no such file", "…/x.txt: no such file"),
        ("No such file or directory: '/home/alice/my data/x'", "No such file or directory: '…/x'"),
        ("holdfast run x.py --config.data=/home/alice/x", "holdfast run x.py --config.data=…/x"),
        ("PosixPath('/home/alice/x')", "PosixPath('…/x')"),
        (r"C:\Users\alice\x.py", "…/x.py"),
        ("see https://a.org/b/c, 1/2, a/b/c, ./a/b and </a/b>", "see https://a.org/b/c, 1/2, a/b/c, ./a/b and </a/b>"),
        ("ray://head:10001 and 3 /s in /tmp", "ray://head:10001 and 3 /s in /tmp"),
    ],
)
def test_files_of_a_machine_lose_their_folders(line: str, shown: str) -> None:
    assert text.without_folders(line) == shown
    assert text.without_folders(shown) == shown


@pytest.mark.parametrize(("studies", "letter"), [(1, '"'), (3, "🦎")])
def test_a_page_with_a_thousand_failures_of_each_study_stays_below_a_megabyte(studies: int, letter: str) -> None:
    config = sharpness().config
    failures = [
        Failure(
            f"{i:024x}", Trial(i, config, {"arm": letter * 100}), f"ValueError: {i} {letter * 400}", letter * 20_000
        )
        for i in range(1000)
    ]
    section = dataclasses.replace(sharpness(), results=Results(config, (), failures))
    page = render([section] * studies)
    assert len(page.encode()) < 1_000_000
    assert f"{1000 - 100 // studies} more failed trials left out here" in page
    assert f"failed/{section.study.name}/{0:024x}/log.txt" in page
    assert page.count(">1000 failed</a>") == studies


def test_a_rare_failure_is_shown_among_many_alike() -> None:
    config = sharpness().config
    reasons = ["ValueError: no"] * 500 + ["MemoryError: rare"]
    failures = [Failure(f"{i:024x}", Trial(i, config), reason, "log") for i, reason in enumerate(reasons)]
    page = render([dataclasses.replace(sharpness(), results=Results(config, (), failures))])
    assert "MemoryError: rare" in page
    assert page.count("ValueError: no") == 99


def test_ranges() -> None:
    assert text.ranges([4, 0, 1, 2, 7, 7]) == "0–2, 4, 7"
    assert text.ranges([]) == ""


def test_a_figure_that_breaks_is_said_aloud() -> None:
    with pytest.warns(ReportWarning, match="figure 'entropy' of sharpness could not be drawn: KeyError"):
        render([sharpness()])


def _plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html))


def test_the_first_screen_says_in_plain_words_what_was_asked_and_found(html: str) -> None:
    first = _plain(html[html.index('id="answers"') : html.index('<section class="study"')])
    assert sharpness().study.question in first
    assert "Holds: adaptive temperature helps on longer inputs." in first
    assert "Not judged at this scale: 1 question that needs scale gpu" in first
    assert "it holds for large models, too." in first
    assert "Not clear yet whether On CLRS-Text the gain is positive" in first


def test_what_a_scale_cannot_judge_is_one_line_with_the_command_that_can(html: str) -> None:
    assert "1 claim needs scale gpu: holdfast run sharpness --scale gpu" in _plain(html)
    assert html.count("of &lt;70&gt; billion parameters") == 1


def test_cases_are_no_seeds(html: str) -> None:
    assert "no exception 19,608 cases" in _plain(html)
    assert "6 seeds" in _plain(html)


def test_effects_of_a_family_share_a_scale_and_show_their_seeds() -> None:
    wide, narrow = {0: 8.0, 1: 9.0, 2: 10.0}, {0: 4.0, 1: 5.0, 2: 6.0}
    claims = [Claim(name, f"{name}.", _unused) for name in ("wide", "narrow", "alone")]
    claims[2] = dataclasses.replace(claims[2], family="other")
    evidence = [mean_of(values, threshold=0) for values in (wide, narrow, narrow)]
    study = changed(solutions().study, claims=claims, figures=[])
    page = render([dataclasses.replace(solutions(), study=study, verdicts=judge(claims, evidence))])
    drawings = re.findall(r'<svg class="whisker".*?</svg>', page, re.DOTALL)
    dots = [float(re.search(r'class="dot" cx="([\d.]+)"', drawing)[1]) for drawing in drawings]  # type: ignore[index]
    zeros = [re.search(r'class="zero" x1="([\d.]+)"', drawing)[1] for drawing in drawings]  # type: ignore[index]
    assert [drawing.count('class="seed"') for drawing in drawings] == [3, 3, 3]
    assert zeros[0] == zeros[1]
    at_zero = float(zeros[0])
    assert (dots[1] - at_zero) / (dots[0] - at_zero) == pytest.approx(5 / 9, abs=0.01)
    assert dots[2] > dots[1] + 10, "another family has a scale of its own"


def test_another_store_is_compared_with(html: str) -> None:
    now = solutions()
    before = [dataclasses.replace(verdict, status=Status.INCONCLUSIVE) for verdict in now.verdicts]
    page = render([dataclasses.replace(now, against=Other("quick", before))], "old <store>")
    text_of = _plain(page)
    assert "Compared with old &lt;store&gt;. solutions was run there at scale quick. 2 verdicts differ:" in text_of
    assert "forgetting was inconclusive (+0.163 [0.121, 0.205]), is supported" in text_of
    assert "before: inconclusive" in text_of
    assert "Compared with" not in html
    same = render([dataclasses.replace(now, against=Other("laptop", now.verdicts))], "old")
    assert "Compared with old. 0 verdicts differ." in _plain(same)


def test_a_page_links_only_to_files_beside_which_it_lies(tmp_path: Path, toy: Study[Any]) -> None:
    from holdfast.lab.report.links import links

    root = Path(__file__).parents[2]
    assert links(toy, root / "results" / "report.html") == [("source", "../tests/lab/toy_study.py")]
    assert links(toy, tmp_path / "report.html") == []
    [lists] = [study for study in installed_studies() if study.name == "lists"]
    places = dict(links(lists, root / "report.html"))
    assert places["source"] == "src/holdfast/studies/lists/study.py"
    assert (root / places["docs page"]).is_file()


def test_a_claim_names_a_figure_of_its_study() -> None:
    with pytest.raises(ArgumentError, match="figure of claim 'forgetting'"):
        changed(solutions().study, claims=[Claim("forgetting", "?", _unused, figure="nowhere")])
