"""Claims of the part `neural`. None can be judged at scale `quick`, which trains the networks of one seed.

Thresholds were fixed before any result was seen. One claim was worded anew after a development seed: networks never
sort a list of two wrongly, so that `sort-neighbours` looks at pairs inside longer lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Results, equivalent, exact, mean_of, paired_difference, unusable
from holdfast.lab.verdict import MIN_SEEDS
from holdfast.studies.lists.neural.networks import TASKS
from holdfast.studies.lists.paper import NO_EXPERIMENT
from holdfast.studies.lists.rows import number, rows_with

if TYPE_CHECKING:
    from holdfast.studies.lists.neural.part import NeuralConfig

LEARNED = 0.5
"""Least share of lists as long as those trained on that a network which has learned a task answers exactly."""

Test = Callable[[Results], Evidence]


def _settings(results: Results) -> tuple[NeuralConfig, dict[str, str]]:
    """Settings of the networks, and the labels of those that verdicts are on."""
    neural: NeuralConfig = results.config.neural
    return neural, {"part": "neural", "positions": results.config.positions[0]}


def _exact_match(
    arm: str,
    task: str,
    length: str,
    *,
    role: str = "network",
    above: float | None = None,
    below: float | None = None,
) -> Test:
    """Mean exact match of an arm on a task, above or below a threshold.

    Arguments:
        arm: how lists are answered.
        task: which the network has learned.
        length: setting with the length of the lists.
        role: of the network.
        above: the threshold, or
        below: the threshold.
    """
    threshold = above if below is None else below
    assert threshold is not None

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        n = getattr(config, length)
        return mean_of(
            results.by_seed("exact", role=role, arm=arm, task=task, n=n, **labels),
            threshold=threshold,
            alternative="greater" if below is None else "less",
            cases=config.lists,
            name=f"exact match of {arm} on {task} at n = {n}",
        )

    return judge


def _voting(place: int) -> Test:
    """Exact match of sort by voting against that by block merge, at one of the two lengths for it."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        n, most = config.vote_lengths[place], max(config.votes)
        arms = (f"votes {most}", "blocks")
        values = (results.by_seed("exact", role="network", arm=arm, task="sort", n=n, **labels) for arm in arms)
        names = (f"{most} votes at n = {n}", f"block merge at n = {n}")
        return paired_difference(*values, cases=config.lists, names=names)

    return judge


def _neighbours(results: Results) -> Evidence:
    """Errors on neighbouring values less those on values that are 16 to 31 apart."""
    config, labels = _settings(results)
    near, far = (results.by_seed("pair_error", role="network", gap=gap, **labels) for gap in (1, 16))
    names = ("neighbouring values", "values 16 to 31 apart")
    return paired_difference(near, far, cases=config.pair_lists, names=names)


def _probe_gap(task: str) -> Test:
    """Violation less error at each of the lengths trained on; the length that fits the claim least decides."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        at_lengths = []
        for n in (n for n in config.probe_lengths if n <= config.longest):
            violation, error = (
                results.by_seed(metric, role="network", task=task, n=n, **labels) for metric in ("violation", "error")
            )
            names = (f"violation on {task} at n = {n}", f"error on {task} at n = {n}")
            at_lengths.append(equivalent(violation, error, margin=0.10, cases=config.probe_lists, names=names))
        outside = [evidence for evidence in at_lengths if evidence.p_value is not None and not evidence.favours]
        if outside:
            # One length outside contradicts the claim, and each of them could have been that one.
            worst = min(outside, key=lambda evidence: evidence.p_value or 0.0)
            return replace(worst, p_value=min(1.0, len(at_lengths) * (worst.p_value or 0.0)))
        return max(at_lengths, key=lambda evidence: (evidence.p_value is None, evidence.p_value))

    return judge


def _probe_cliff(task: str) -> Test:
    """Violation one element beyond the lengths trained on."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        n = config.longest + 1
        values = results.by_seed("violation", role="network", task=task, n=n, **labels)
        return mean_of(values, threshold=0.80, cases=config.probe_lists, name=f"violation on {task} at n = {n}")

    return judge


def _networks_refused(role: str, *, refused: bool) -> Test:
    """How many networks are refused on most of the lists tried; a network counts once for each task."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        rows = rows_with(results, "refused", role=role, **labels)
        seeds = len({row["seed"] for row in rows})
        if rows and seeds < MIN_SEEDS:
            return unusable(f"{seeds} seed{'s' * (seeds > 1)}, at least {MIN_SEEDS} needed", seeds)
        for row in rows_with(results, "exact", role=role, arm="raw", n=config.longest, **labels):
            # What was not learned is no evidence, refused or not.
            if number(row, "exact") < LEARNED:
                return unusable(f"the network of seed {row['seed']} has not learned {row['task']}")
        wrong = sum((number(row, "refused") > 0.5) != refused for row in rows)
        what = "passed" if refused else "refused"
        return exact(
            holds=wrong == 0,
            effect=float(wrong),
            n=len(rows),
            test=f"tasks and seeds that are {what}",
            failed=results.failed(role=role, **labels),
        )

    return judge


def _distilled(results: Results) -> Evidence:
    """Exact match of reverse before and after distillation, at twice the length first trained on."""
    config, labels = _settings(results)
    values = (
        results.by_seed("exact", role="network", arm=arm, task="reverse", n=config.twice, **labels)
        for arm in ("distilled", "raw")
    )
    return paired_difference(*values, cases=config.lists, names=("distilled", "raw"))


_claim = partial(Claim, paper=NO_EXPERIMENT, scale="laptop")

CLAIMS = (
    *(
        _claim(
            f"raw-{task}",
            f"The network's own answers to {task} are exact for less than 0.05 of the lists of twice the length "
            "trained on.",
            _exact_match("raw", task, "twice", below=0.05),
            family="raw",
            headline=task == "reverse",
            plain=f"a network trained on short lists fails at {task} on lists of twice the length",
            figure=f"exact-{task.replace('+', '-')}",
        )
        for task in TASKS
    ),
    *(
        _claim(
            f"{arm}-{task}",
            f"The same network, amalgamated by {how}, answers {task} exactly for more than 0.95 of the lists of ten "
            "times the length trained on.",
            _exact_match(arm, task, "tenfold", above=0.95),
            family="amalgamated",
            headline=(arm, task) == ("blocks", "reverse"),
            plain=f"put together from its answers to short lists, {task} is right on lists of ten times the length",
            figure=f"exact-{task.replace('+', '-')}",
        )
        for arm, how in (
            ("blocks", "block merge with lists as long as those trained on"),
            ("pairs", "the answers to all pairs"),
        )
        for task in ("reverse", "id+reverse", "partition")
    ),
    *(
        _claim(
            f"votes-{name}",
            f"Voting raises the exact match of sort over block merge at about {times} times the length trained on "
            "(difference > 0).",
            _voting(place),
            family="sort",
        )
        for place, (name, times) in enumerate((("near", "three"), ("far", "five")))
    ),
    _claim(
        "sort-neighbours",
        "In lists as long as those trained on, the network sorts two neighbouring values wrongly more often than two "
        "that are 16 to 31 apart (difference > 0).",
        _neighbours,
        family="sort",
    ),
    *(
        _claim(
            f"comparator-{task}",
            f"A comparator network, filter equivariant by construction, answers {task} exactly for more than 0.95 of "
            "the lists of the greatest length tested (100; on a GPU 1000).",
            _exact_match("comparator", task, "comparator_length", role="comparator", above=0.95),
            family="comparator",
        )
        for task in TASKS
    ),
    *(
        _claim(
            f"violation-{task}",
            f"On {task} the share of lists on which the network breaks the law, which needs no labels, is within "
            "0.10 of its error at every length trained on (the largest difference).",
            _probe_gap(task),
            family="violation",
            headline=task == "reverse",
            plain="how often a network breaks the rule of deletion tells how often it errs, without labels",
            figure="violation",
        )
        for task in TASKS
    ),
    *(
        _claim(
            f"cliff-{task}",
            f"On {task} the network breaks the law on more than 0.80 of the lists that are one element longer than "
            "those trained on.",
            _probe_cliff(task),
            family="violation",
        )
        for task in TASKS
    ),
    *(
        _claim(
            f"sham-{task}",
            f"A network trained on {task} with shuffled answers, amalgamated likewise, is exact for less than 0.05 of "
            "the lists of twice the length trained on.",
            _exact_match("blocks", task, "twice", role="sham", below=0.05),
            family="sham",
        )
        for task in TASKS
    ),
    _claim(
        "controls-network",
        "Calibration, with the tolerance that votes have, refuses a network that has learned rotate-left, riffle, tail "
        "and least-first: 4 of 4 in every seed.",
        _networks_refused("controls", refused=True),
        family="controls",
    ),
    _claim(
        "controls-passed",
        "The same calibration lets the network pass that has learned the four filter-equivariant tasks: 4 of 4 in "
        "every seed.",
        _networks_refused("network", refused=False),
        family="controls",
    ),
    _claim(
        "distilled",
        "A network that was taught its own amalgamation answers reverse exactly on more lists of twice the length "
        "first trained on than before (difference > 0).",
        _distilled,
        family="distillation",
        scale="gpu",
    ),
)
