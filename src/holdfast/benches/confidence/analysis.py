"""Analysing trials of the two-stage design, beside scipy's bootstrap of the same contrasts.

Arms: `load` reads a file of trials; `contrasts` makes the contrasts of each question; `intervals` draws questions again
for all columns of contrasts at once, `scipy` does the same with `scipy.stats.bootstrap`, a column at a time;
`analyze` is all of it with calibration, cells, diagnostics and the comparison of models; `choices` is the mixed
logistic model by quadrature; `comparison` the nested models, cross-validated.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell


@dataclass(frozen=True)
class Options:
    """Analysing trials of the two-stage design, beside scipy's bootstrap."""

    count: tuple[int, ...] = (2000,)
    """Questions; each has 36 trials in both orders, so that 2,000 are the 72,000 of the published design."""
    rounds: int = 3
    """Timed rounds of all arms but the mixed model, which is timed once."""


TOY = Options(count=(40,), rounds=1)


def run(options: Options, tell: Tell) -> Report:
    """Time every arm once in each round.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds.

    Errors:
        ArgumentError: a size is not positive.
    """
    from holdfast.errors import count_of

    count_of("rounds", options.rounds, 1)
    rows: list[Row] = []
    failures: list[str] = []
    for questions in options.count:
        measured, wrong = _measure(count_of("count", questions, 10), options.rounds)
        for row in measured:
            tell(row)
        rows += measured
        failures += wrong
    last = {row["arm"]: row for row in rows if row["questions"] == options.count[-1]}
    whole = sum(last[arm]["ms"] for arm in ("load", "analyze")) / 1e3
    models = sum(last[arm]["ms"] for arm in ("choices", "comparison")) / 1e3
    phrase = (
        f"{last['load']['trials']} trials loaded and analysed in {whole:.1f} s, both models fitted in {models:.1f} s"
    )
    return Report(asdict(options), tuple(rows), phrase, last["intervals"]["to_scipy"], tuple(failures))


def _measure(questions: int, rounds: int) -> tuple[list[Row], list[str]]:
    """Rows for one number of questions, and what came out wrong."""
    import numpy as np
    from scipy import stats

    from holdfast.benches.harness.timing import Arm, interleaved, on_cpu, ratio
    from holdfast.confidence import (
        PRESETS,
        analyze,
        choice_design,
        compare,
        contrast,
        fit_choices,
        read_trials,
        simulate,
        write_trials,
    )
    from holdfast.confidence.intervals import RESAMPLES, question_weights

    observer = PRESETS["both"]
    trials = simulate(observer, questions, displays=("shown", "hidden"))
    contrasts = contrast(trials)
    columns = [values for values in contrasts.values.values() if np.isfinite(values).all()]
    matrix = np.stack(columns, axis=1)
    everything = np.arange(len(trials))

    def intervals() -> np.ndarray:
        return np.quantile(question_weights(questions) @ matrix, (0.025, 0.975), axis=0)

    def by_scipy() -> np.ndarray:
        limits = [
            stats.bootstrap((column,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
            for column in columns
        ]
        return np.array(limits).T

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.jsonl"
        write_trials(trials, path)
        calls: dict[str, Callable[[], object]] = {
            "load": lambda: read_trials(path),
            "contrasts": lambda: contrast(trials),
            "intervals": intervals,
            "scipy": by_scipy,
            "analyze": lambda: analyze(trials.where(everything)),
            "comparison": lambda: compare(trials),
        }
        # A record remembers columns that it has worked out, so that `analyze` gets a fresh one.
        milliseconds = interleaved({n: Arm(call) for n, call in calls.items()}, on_cpu, rounds=rounds, warmup=0)
    milliseconds["choices"] = [on_cpu(lambda: fit_choices(choice_design(trials)))]
    rows: list[Row] = []
    for arm, taken in milliseconds.items():
        row: dict[str, object] = {"questions": questions, "trials": len(trials), "arm": arm}
        row["ms"] = statistics.median(taken)
        if arm in ("intervals", "scipy"):
            row["to_scipy"] = ratio(taken, milliseconds["scipy"]).median
        rows.append(row)
    width = np.abs(intervals() - by_scipy()) / np.maximum(np.ptp(by_scipy(), axis=0), 1e-12)
    # Limits of 2,000 resamples wander by some percent of the interval from one draw to the next.
    return rows, [f"{questions} questions: intervals differ from scipy's"] if (width > 0.2).any() else []
