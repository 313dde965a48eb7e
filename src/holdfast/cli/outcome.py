"""What came of runs, or would come, as the command line says it: for people and as JSON."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.markup import escape

from holdfast.cli.reproduce import Typed, place
from holdfast.errors import install_line, missing_line

if TYPE_CHECKING:
    from holdfast.lab.run import Forecast, Job, StudyRun
    from holdfast.lab.verdict import Verdict

Skipped: TypeAlias = "Mapping[str, Mapping[str, Mapping[str, str]]]"
"""By study and part the modules that are missing, each with what to give pip."""

SHOWN = 10
"""Failed trials of a study that are listed at the end of a run."""

LISTED = 6
"""Claims of a study in its table; the others are counted."""

NAMED = 3
"""As many claims that were not judged are named, more are counted."""

COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}


def foretell(forecasts: Sequence[Forecast], as_json: bool) -> None:
    """Say for each trial whether it would be computed."""
    if as_json:
        rows = [
            {
                "study": item.study,
                "seed": item.trial.seed,
                "labels": dict(item.trial.labels),
                "compute": item.reason is not None,
                "reuse": item.stored,
                "reason": item.reason,
            }
            for item in forecasts
        ]
        print(jsonlib.dumps({"trials": rows}, indent=1, ensure_ascii=False))
        return
    for item in forecasts:
        left_out = f"left out: {missing_line(item.lacks)}" if item.lacks else "left out"
        what = f"computed: {item.reason}" if item.reason is not None else "reused" if item.stored else left_out
        print(f"{item.study} {item.trial.title}  {what}")
    missing = sum(item.reason is not None for item in forecasts)
    print(f"{missing} of {len(forecasts)} trials would be computed")


def conclude(
    runs: Sequence[StudyRun],
    page: Path,
    as_json: bool,
    unnamed: str,
    typed: Typed,
    skipped: Skipped | None = None,
) -> None:
    """Show the verdicts, the failed trials, and where the report is.

    Arguments:
        runs: the runs.
        page: the report.
        as_json: print JSON instead.
        unnamed: what to say of studies that are not in the report.
        typed: what the user typed.
        skipped: what was left out because packages are missing.
    """
    if as_json:
        studies = [_summary(item, typed) for item in runs]
        summary = {"report": place(page), "studies": studies, "skipped": skipped or {}}
        print(jsonlib.dumps(summary, indent=1, ensure_ascii=False))
        return
    for item in runs:
        _show_verdicts(item, typed)
        print(f"{item.job.study.name} ({item.job.scale}): {_counts(item)}")
        _list_failed(item, typed)
        if len(runs) > 1:
            print()
    print(f"report: {page}")
    if skipped:
        left_out = "; ".join(f"{study} ({', '.join(parts)})" for study, parts in skipped.items())
        print(f"left out, for packages are missing: {left_out}\nto run these too:  {_install_line(skipped)}")
    if unnamed:
        print(f"not in the report: {unnamed}")


def tell_skipped(skipped: Skipped) -> None:
    """Say before anything starts what will not be computed, and what to install for it."""
    if not skipped:
        return
    print("left out, for packages are missing:", file=sys.stderr)
    for study, parts in skipped.items():
        by_modules: dict[str, list[str]] = {}
        for part, missing in parts.items():
            by_modules.setdefault(", ".join(missing), []).append(part)
        told = "; ".join(
            f"{', '.join(names)} need{'s' * (len(names) == 1)} {modules}" for modules, names in by_modules.items()
        )
        print(f"  {study}: {told}", file=sys.stderr)
    print(f"to run these too:  {_install_line(skipped)}", file=sys.stderr)


def _install_line(skipped: Skipped) -> str:
    return install_line(each for parts in skipped.values() for missing in parts.values() for each in missing.values())


def tell_costs(jobs: Sequence[Job]) -> None:
    """Say before several studies start what each takes if nothing of it is in the store, as far as that is known.

    A study that was told to compute something else than its scale does takes another time: nothing is said of it.
    """
    costs: dict[str, list[str]] = {}
    for job in jobs:
        if (cost := job.study.cost.get(job.scale)) and job.only is None and not job.overrides:
            costs.setdefault(cost, []).append(job.study.name)
    if len(jobs) > 1 and costs:
        print("one study after another; from nothing they take:", file=sys.stderr)
        for cost, names in costs.items():
            print(f"  {', '.join(names)}: {cost}{' each' if len(names) > 1 else ''}", file=sys.stderr)


def compare(runs: Sequence[StudyRun], others: Mapping[str, StudyRun], against: Path) -> None:
    """Say which verdicts differ from those of another store, and which studies it does not have."""
    from holdfast.lab.report import text

    for item in runs:
        study, other = item.job.study.name, others.get(item.job.study.name)
        if other is None:
            print(f"{study} is not in {against}")
            continue
        before = {verdict.claim: verdict for verdict in other.verdicts}
        moved = [
            (before[verdict.claim], verdict)
            for verdict in item.verdicts
            if verdict.claim in before and before[verdict.claim].status != verdict.status
        ]
        scale = "" if other.job.scale == item.job.scale else f" at scale {other.job.scale}"
        verb = "differs" if len(moved) == 1 else "differ"
        print(f"{study}: {text.count(len(moved), 'verdict')} {verb} from {against}{scale}")
        for then, now in moved:
            print(f"  {now.claim}: was {_told(then)}, is {_told(now)}")


def _told(verdict: Verdict) -> str:
    from holdfast.lab.report import text

    if _is_beyond(verdict):
        return "not judged"
    return f"{verdict.status} {text.effect(verdict.evidence)} {text.interval(verdict.evidence)}".strip()


def _show_verdicts(item: StudyRun, typed: Typed) -> None:
    """Headline claims in a table, why some of them are inconclusive, and the others counted."""
    from rich.console import Console
    from rich.table import Table

    from holdfast.lab.report import text

    open_claims = [verdict for verdict in item.verdicts if not _is_beyond(verdict)]
    headline = [verdict for verdict in open_claims if verdict.headline]
    # A study without headline claims, or whose headline claims are beyond this scale, shows those that it has.
    shown = (headline or open_claims)[:LISTED]
    table = Table(item.job.study.name, "verdict", box=None, pad_edge=False)
    table.add_column("effect [95 % interval]")
    table.add_column("seeds", justify="right")
    for verdict in shown:
        evidence = verdict.evidence
        effect = escape(f"{text.effect(evidence)} {text.interval(evidence)}".strip())
        word = f"[{COLOURS[verdict.status]}]{verdict.status}[/]"
        counted = text.counted(evidence)
        table.add_row(escape(verdict.claim), word, effect, counted.removesuffix(" seeds").removesuffix(" seed"))
    console = Console(highlight=False)
    if shown:
        # A name is never cut: a terminal that is too narrow for the table breaks its lines.
        width = max(console.width, console.measure(table).minimum)
        console.print(table, width=width, no_wrap=True, crop=False, soft_wrap=True)
    for verdict in shown:
        if verdict.reason:
            console.print(escape(f"{verdict.claim}: {verdict.reason}"), soft_wrap=True)
    if rest := [verdict for verdict in open_claims if verdict not in shown]:
        told = [f"{n} {status}" for status in COLOURS if (n := sum(other.status == status for other in rest))]
        print(f"and {len(rest)} more: {', '.join(told)}")
    for needs, claims in beyond(item, typed).items():
        names = f" ({', '.join(claim.claim for claim in claims)})" if len(claims) <= NAMED else ""
        print(f"{text.count(len(claims), 'claim')}{names} need{'s' * (len(claims) == 1)} {needs}")


def _is_beyond(verdict: Verdict) -> bool:
    return bool(verdict.evidence.needs or verdict.evidence.left_out)


def beyond(item: StudyRun, typed: Typed) -> dict[str, list[Verdict]]:
    """The claims that the run was too small for, by what they need: the command that can judge them."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in filter(_is_beyond, item.verdicts):
        groups.setdefault(_reason(verdict, item, typed).removeprefix("needs "), []).append(verdict)
    return groups


def _counts(item: StudyRun) -> str:
    """How many trials were computed, and what became of the others."""
    from holdfast.lab.report.text import count
    from holdfast.lab.trial import PART

    kept = _kept(item)
    missing = sum(not failure.attempted for failure in item.results.failures)
    lacking = sum(trial.labels[PART] in item.results.lacking for trial in item.results.left_out)
    left_out = len(item.results.left_out) - lacking
    counts = [
        f"{count(item.computed, 'trial')} computed",
        f"{len(item.results.outcomes) - item.computed - kept} reused",
    ]
    counts += [f"{len(item.failed)} failed"] if item.failed else []
    counts += [f"for {kept} of them an older result is used"] if kept else []
    counts += [f"{missing} not computed yet"] if missing else []
    counts += [f"{left_out} left out by --only"] if left_out else []
    counts += [f"{lacking} left out, for packages are missing"] if lacking else []
    return ", ".join(counts)


def _kept(item: StudyRun) -> int:
    """How many trials have failed that have an older result."""
    without = {failure.key for failure in item.results.failures}
    return sum(failure.key not in without for failure in item.failed)


def _list_failed(item: StudyRun, typed: Typed) -> None:
    """Say of some failed trials what happened and where the log is, those with different reasons first."""
    from holdfast.lab.report.failures import various
    from holdfast.lab.report.text import clean, shorten
    from holdfast.lab.store import Store

    study, store = item.job.study.name, Store(typed.store)
    for failure in various(item.failed)[:SHOWN]:
        reason = shorten(" ".join(clean(failure.reason).split()), 300)
        print(f"failed: {study} {failure.trial.title}: {reason}")
        print(f"  log: {store.log_of(study, failure.key)}" if failure.log.strip() else "  no log: it printed nothing")
    if len(item.failed) > SHOWN:
        print(f"and {len(item.failed) - SHOWN} more, with their logs in {store.failed_folder(study, '')}")
    if item.failed:
        print(f"to try only {'this' if len(item.failed) == 1 else 'these'} again:  {typed.to_retry(item.job)}")
    missing = [failure for failure in item.results.failures if not failure.attempted]
    if missing:
        reasons = "; ".join(dict.fromkeys(shorten(failure.reason, 300) for failure in various(missing)[:3]))
        print(f"not computed: {reasons}\n  to compute all that is missing:  {typed.to_complete(item.job)}")


def _reason(verdict: Verdict, item: StudyRun, typed: Typed) -> str:
    """Why nothing is known about a claim, with the command that can change that."""
    evidence = verdict.evidence
    if evidence.needs:
        return f"needs {typed.to_enlarge(item.job, evidence.needs)}"
    if evidence.left_out:
        able = not any(part in item.results.lacking for part in evidence.left_out)
        return f"{verdict.reason}: {typed.to_complete(item.job)}" if able else verdict.reason
    return verdict.reason


def _summary(item: StudyRun, typed: Typed) -> dict[str, Any]:
    """What is published: it names no folder of this machine."""
    from holdfast.lab.report.text import without_folders

    failures = {failure.key: failure for failure in (*item.results.failures, *item.failed)}
    return {
        "study": item.job.study.name,
        "scale": item.job.scale,
        "command": without_folders(typed.published(item)),
        "environments": list(item.environments),
        "computed": item.computed,
        "reused": len(item.results.outcomes) - item.computed - _kept(item),
        "left_out": len(item.results.left_out),
        "failed": [
            {
                "seed": failure.trial.seed,
                "labels": {
                    name: without_folders(value) if isinstance(value, str) else value
                    for name, value in failure.trial.labels.items()
                },
                "reason": without_folders(failure.reason),
                "log": f"failed/{item.job.study.name}/{failure.key}/log.txt" if failure.log.strip() else "",
            }
            for failure in failures.values()
        ],
        "verdicts": [
            {
                "claim": verdict.claim,
                "text": verdict.text,
                "status": str(verdict.status),
                "headline": verdict.headline,
                "effect": _number(verdict.evidence.effect),
                "interval": [_number(verdict.evidence.low), _number(verdict.evidence.high)],
                "n": verdict.evidence.n,
                "test": verdict.evidence.test,
                "p_adjusted": verdict.p_adjusted,
                "reason": without_folders(_reason(verdict, item, typed)),
                "paper": verdict.paper,
            }
            for verdict in item.verdicts
        ],
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
