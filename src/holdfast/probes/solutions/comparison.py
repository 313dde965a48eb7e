"""Two solutions side by side: fingerprints of two optimisers, paired by seed."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.probes.report import explained, jsonable, shown, table
from holdfast.probes.solutions.report import KIND, SCHEMA, WIDTH
from holdfast.probes.solutions.retention import LEARNT, PairedDifference, paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.05
"""Of the tests of all numbers together."""

RETAINED = ("old", "forgetting", "backward transfer")
"""Numbers that mean nothing where the tasks were not learnt."""


@dataclass(frozen=True)
class SolutionComparison:
    """What one optimiser's solutions have more than another's.

    Arguments:
        first: what they are called.
        second: the others.
        seeds: that both have; empty for one pair without seeds.
        differences: first less second, by the name of the number; numbers that either lacks are left out.
        notes: what is to be known of them.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    differences: dict[str, PairedDifference]
    notes: tuple[str, ...]

    @property
    def apart(self) -> list[str]:
        """Numbers that differ by more than chance, the surest first.

        The interval leaves out zero, and the paired t-test has p ≤ .05 after Holm's correction for the number of
        numbers, of which some would leave out zero by chance. Differences that are all equal have the p of a sign test.
        """
        tested = {name: _p_value(found) for name, found in self.differences.items() if not found.reason}
        apart, left = list[str](), len(tested)
        for name in sorted(tested, key=lambda name: tested[name]):
            if not tested[name] * left <= LEVEL:
                break
            left -= 1
            low, high = self.differences[name].interval
            if low > 0 or high < 0:
                apart.append(name)
        return apart

    @property
    def verdict(self) -> str:
        """One sentence: where the solutions differ."""
        if len(self.seeds) < 2:
            return (
                f"One pair of {self.first} and {self.second} tells nothing of chance: make fingerprints of several "
                "seeds to have intervals."
            )
        if not self.apart:
            return (
                f"In {len(self.seeds)} seeds no number of {self.first} and {self.second} differs by more than chance."
            )
        told = [f"{name} {self.differences[name].mean:+.3g}" for name in self.apart[:5]]
        more = f" and {len(self.apart) - 5} more" if len(self.apart) > 5 else ""
        return (
            f"{self.first} finds another solution than {self.second}: {', '.join(told)}{more} (n = {len(self.seeds)})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        head = {"kind": "holdfast solution comparison", "schema": SCHEMA, "verdict": self.verdict}
        plain: dict[str, Any] = jsonable({**head, **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the differences as shares of the mean of both, with their intervals.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        names, places, errors = list[str](), list[float](), list[tuple[float, float]]()
        for name, found in self.differences.items():
            values = [abs(value) for value in (*found.first.values(), *found.second.values())]
            scale = sum(values) / len(values)
            if found.reason or not scale > 0 or not math.isfinite(scale):
                continue
            low, high = (found.mean if math.isnan(end) else end for end in found.interval)
            names.append(name)
            places.append(found.mean / scale)
            errors.append((max(0.0, found.mean - low) / scale, max(0.0, high - found.mean) / scale))
        rows = range(len(names))
        ax.errorbar(places, rows, xerr=list(zip(*errors, strict=True)) or None, fmt="o", markersize=3)
        ax.axvline(0, color="0.5", linestyle=":", linewidth=1)
        ax.set_yticks(rows, names, fontsize=6)
        ax.invert_yaxis()
        ax.set_xlabel("difference / mean of both")
        ax.set_title(f"{self.first} less {self.second}")

    def explain(self) -> str:
        """What each column of the table means, a line each."""
        return explained(
            {
                "number": "one of the fingerprint's; the probe of one network explains each",
                "two names": "mean over the seeds of the first optimiser, and of the second",
                "difference": "mean over seeds of the first less the second",
                "95 %": "interval of that mean, from a bootstrap over seeds",
                "*": "beyond chance, all numbers being one family",
            }
        )

    def __str__(self) -> str:
        """Return the sentence and a table."""
        lines = [*textwrap.wrap(self.verdict, WIDTH), ""]
        header = ("number", self.first, self.second, "difference", "95 %", "")
        rows = []
        for name, found in self.differences.items():
            means = (sum(values.values()) / len(values) for values in (found.first, found.second))
            low, high = found.interval
            between = "" if math.isnan(low) else f"[{low:+.3g}, {high:+.3g}]"
            mark = "*" if name in self.apart else ""
            difference = "no comparison" if found.reason else shown(found.mean, "+.3g")
            rows.append((name, *(f"{mean:.4g}" for mean in means), difference, between, mark))
        lines += table(header, rows, names=("number",))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def compare_solutions(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], *, force: bool = False
) -> SolutionComparison:
    """Pair the fingerprints of two optimisers by their seeds, and bootstrap the mean differences over seeds.

    Arguments:
        first: `Fingerprint.to_dict` of one, a run each.
        second: of the other, at the same seeds, on the same probe batch.
        force: compare retention even where tasks were not learnt.

    Errors:
        ArgumentError: something is no fingerprint of this schema, the seeds differ or are missing, or the batches do.
    """
    paired = [_by_seed(name, runs) for name, runs in (("first", first), ("second", second))]
    if set(paired[0]) != set(paired[1]):
        raise ArgumentError("second", f"runs of the seeds {sorted(paired[0])}", str(sorted(paired[1])))
    everything = [*paired[0].values(), *paired[1].values()]
    for key in ("data", "probe_seed"):
        values = {run["provenance"][key] for run in everything}
        if len(values) > 1:
            what = {"data": "fingerprints on one probe batch", "probe_seed": "fingerprints with one seed of the probe"}
            raise ArgumentError("second", what[key], f"{len(values)}")
    # The order of the first file; a number that any run lacks cannot be paired.
    names = [name for name in everything[0]["scalars"] if all(_known(run, name) for run in everything)]
    somewhere = {name for run in everything for name in run["scalars"] if _known(run, name)}
    notes = []
    if somewhere - set(names):
        notes.append(f"not in all runs, and left out: {', '.join(sorted(somewhere - set(names)))}")
    differences = {
        name: paired_difference(*({seed: float(run["scalars"][name]) for seed, run in runs.items()} for runs in paired))
        for name in names
    }
    if "learn" in differences and not force:
        learn = [
            sum(values.values()) / len(values) for values in (differences["learn"].first, differences["learn"].second)
        ]
        if min(learn) < LEARNT:
            reason = f"not learnt, retention is meaningless: learning accuracy {min(learn):.3f}, below {LEARNT:g}"
            for name in RETAINED:
                found = differences[name]
                differences[name] = PairedDifference(found.first, found.second, math.nan, (math.nan,) * 2, reason)
            notes.append(reason)
    titles = [_title(list(runs.values())) for runs in paired]
    if titles[0] == titles[1]:
        titles = [f"{titles[0]} (A)", f"{titles[1]} (B)"]
    versions = {tuple(sorted(run["provenance"]["versions"].items())) for run in everything}
    if len(versions) > 1:
        notes.append("the fingerprints were made with different versions of packages")
    seeds = tuple(sorted(seed for seed in paired[0] if everything[0]["provenance"]["seed"] is not None))
    return SolutionComparison(titles[0], titles[1], seeds, differences, tuple(notes))


def read_fingerprints(path: Path) -> list[dict[str, Any]]:
    """Fingerprints from a file of JSON, or from all such files of a folder.

    Errors:
        ArgumentError: there is none, or a file is something else or damaged; the error names it.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ArgumentError("--compare", "a folder with files that end in .json", str(path))
    found = []
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArgumentError("--compare", "a whole file of JSON", f"{file} ({error})") from error
        try:
            _check(content)
        except ArgumentError as error:
            raise ArgumentError("--compare", error.expected, f"{file} ({error.got})") from error
        found.append(content)
    return found


def _check(run: Any) -> None:
    if not isinstance(run, Mapping) or run.get("kind") != KIND:
        raise ArgumentError("run", "a fingerprint of a solution", "something else")
    if run.get("schema") != SCHEMA:
        raise ArgumentError("run", f"a fingerprint of schema {SCHEMA}", f"schema {run.get('schema')}")
    if not isinstance(run.get("scalars"), Mapping) or not isinstance(run.get("provenance"), Mapping):
        raise ArgumentError("run", "a whole fingerprint", "one without scalars or provenance")


def _by_seed(argument: str, runs: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    for run in runs:
        _check(run)
    seeds = [run["provenance"]["seed"] for run in runs]
    if len(runs) == 1 and seeds[0] is None:
        return {0: runs[0]}
    if not runs or None in seeds or len(set(seeds)) < len(seeds):
        raise ArgumentError(argument, "fingerprints that have a seed each, all different", str(seeds))
    return dict(zip(seeds, runs, strict=True))


def _known(run: Mapping[str, Any], name: str) -> bool:
    value = run["scalars"].get(name)
    return isinstance(value, int | float) and math.isfinite(value)


def _p_value(found: PairedDifference) -> float:
    """Of the paired t-test, two-sided; 1 where nothing can be told."""
    from scipy.stats import t

    gaps = np.array(list(found.differences.values()))
    n = len(gaps)
    if n < 2 or not np.isfinite(gaps).all() or not gaps.any():
        return 1.0
    error = float(gaps.std(ddof=1)) / math.sqrt(n)
    # What rounding alone leaves of equal differences is no spread.
    if error <= 1e-12 * float(np.abs(gaps).max()):
        return float(2.0 ** (1 - n))
    return float(2 * t.sf(abs(float(gaps.mean())) / error, n - 1))


def _title(runs: Sequence[Mapping[str, Any]]) -> str:
    names = {run["provenance"]["optimizer"] for run in runs}
    if len(names) > 1:
        raise ArgumentError("runs", "fingerprints of one optimiser on each side", ", ".join(sorted(names)))
    return names.pop() or "not told"
