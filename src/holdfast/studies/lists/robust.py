"""Part `robust`: lists put together from pair answers that are wrong at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference, progress
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend
from holdfast.studies.lists.paper import NO_EXPERIMENT

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.lists.study import ListsConfig

METHODS = ("strict", "merge sort", "copeland", "copeland + local")
"""`strict` answers only where no answer contradicts another one."""

JUDGED_NOISE = (0.001, 0.01, 0.05, 0.2)
"""Chances of a wrong vote at which methods are compared."""


@dataclass(frozen=True, kw_only=True)
class RobustConfig:
    """Simulated answers.

    Arguments:
        sizes: elements of the lists.
        noise: chances that one vote on a pair is wrong, each independent of all others.
        votes: votes for each pair.
        lists: lists for each of these settings.
    """

    sizes: tuple[int, ...] = (16, 64)
    noise: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2)
    votes: tuple[int, ...] = (1, 3, 5)
    lists: int = 200


def trials(config: ListsConfig) -> Iterator[Trial[RobustConfig]]:
    """One trial a seed."""
    for seed in config.seed_range:
        yield Trial(seed, config.robust, cost=100.0)


def run(trial: Trial[RobustConfig]) -> Outcome:
    """Recover lists from votes.

    Records: for each `method`, length `n`, chance `p` of a wrong vote and number of `votes`: the share of lists
    that came out `right`, and the `kendall` error, the mean share of pairs in the wrong order, of the lists that
    came out at all; `strict` has `answered`, how many did. For the method `ceiling` `right` is the share of lists
    that any method can recover: no majority between neighbours is wrong.
    """
    import numpy as np

    config = trial.config
    rows: list[dict[str, Any]] = []
    settings = list(product(config.sizes, config.noise, config.votes))
    streams = np.random.default_rng(trial.seeds[0]).spawn(len(settings))
    for number, ((n, p, votes), rng) in enumerate(zip(settings, streams, strict=True)):
        recovered = _recover(n, p, votes, config.lists, rng)
        rows += [{"method": method, "n": n, "p": p, "votes": votes} | row for method, row in recovered.items()]
        progress.report((number + 1) / len(settings))
    return Outcome(rows)


def _recover(n: int, p: float, votes: int, lists: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    import numpy as np

    from holdfast.lists.extend import copeland, local_search, merge_sort

    right = dict.fromkeys((*METHODS, "ceiling"), 0)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(lists):
        truth, support = noisy_votes(n, p, votes, rng)
        beats = support > support.T
        by_wins = np.argsort(-beats.sum(axis=1), kind="stable")
        orders = {"merge sort": merge_sort(support), "copeland": copeland(support, int(rng.integers(1 << 31)))}
        orders["copeland + local"] = local_search(orders["copeland"], support)
        if bool(np.triu(beats[np.ix_(by_wins, by_wins)], 1).sum() == n * (n - 1) // 2):
            orders["strict"] = by_wins
        for method, order in orders.items():
            right[method] += bool((order == truth).all())
            errors[method].append(kendall_error(order, truth))
        right["ceiling"] += bool(beats[truth[:-1], truth[1:]].all())
    rows: dict[str, dict[str, float]] = {method: {"right": count / lists} for method, count in right.items()}
    for method, of_method in errors.items():
        if of_method:
            rows[method]["kendall"] = float(np.mean(of_method))
    rows["strict"]["answered"] = len(errors["strict"]) / lists
    return rows


def noisy_votes(n: int, p: float, votes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of n tokens, and how many votes say that the row's token comes before the column's."""
    import numpy as np

    truth = rng.permutation(n)
    wrong = np.triu(rng.binomial(votes, p, size=(n, n)), 1)
    upper = np.triu(np.ones((n, n), dtype=np.int64), 1)
    ranked = upper * votes - wrong + wrong.T
    support = np.empty_like(ranked)
    support[np.ix_(truth, truth)] = ranked
    return truth, support


def kendall_error(order: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs of tokens that are in the wrong order: 0 to 1."""
    import numpy as np

    place = np.empty(len(truth), dtype=np.int64)
    place[truth] = np.arange(len(truth))
    places = place[order]
    pairs = len(places) * (len(places) - 1) // 2
    return float(np.triu(places[:, None] > places, 1).sum() / pairs) if pairs else 0.0


LOCAL = "copeland + local"

Way = tuple[str, int]
"""How a list is recovered: the method, and the votes a pair."""


def _better(name: str, text: str, metric: str, p: float, way: Way, than: Way) -> Claim:
    """The claim that one way recovers lists of 64 elements better than another, paired over seeds."""

    def test(results: Results) -> Evidence:
        values = (
            results.by_seed(metric, part="robust", n=64, p=p, method=method, votes=votes)
            for method, votes in (way, than)
        )
        first, second = (f"{method}, votes = {votes}, p = {p:g}" for method, votes in (way, than))
        return paired_difference(
            *values,
            alternative="less" if metric == "kendall" else "greater",
            cases=results.config.robust.lists if metric == "right" else None,
            bounds=(0, 1),
            names=(first, second),
        )

    return Claim(name, text, test, paper=NO_EXPERIMENT, family="robust")


CLAIMS = (
    *(
        _better(
            f"local-{p:g}",
            f"Copeland scores with local search order 64 elements better than merge sort does where one vote a pair is "
            f"wrong with chance {p:g} (difference in Kendall error < 0).",
            "kendall",
            p,
            (LOCAL, 1),
            ("merge sort", 1),
        )
        for p in JUDGED_NOISE
    ),
    *(
        _better(
            f"local-exact-{p:g}",
            f"They also recover more lists exactly, at a chance of {p:g} (difference > 0).",
            "right",
            p,
            (LOCAL, 1),
            ("merge sort", 1),
        )
        for p in (0.001, 0.01)
    ),
    *(
        _better(
            f"three-votes-{p:g}",
            f"Three votes a pair recover more lists of 64 exactly than one, at a chance of {p:g} (Copeland with local "
            "search; difference > 0).",
            "right",
            p,
            (LOCAL, 3),
            (LOCAL, 1),
        )
        for p in (0.01, 0.05)
    ),
)


def draw_robust(metric: str, label: str, results: Results, axes: Axes) -> list[Record]:
    """A line a method over noise, for lists of 64: one vote solid, three votes broken."""
    rows: list[Record] = []
    methods = {"merge sort": "C0", "copeland": "C4", LOCAL: "C1", "strict": "C3", "ceiling": GREY}
    if metric == "kendall":
        del methods["strict"]  # its errors are of the lists that it answers
    n = max(results.levels("n", part="robust"), default=64)
    levels = results.levels("p", part="robust")
    for votes, line, marker in ((1, "-", "o"), (3, "--", "s")):
        for method, colour in methods.items():
            values = {
                p: list(results.by_seed(metric, part="robust", method=method, n=n, p=p, votes=votes).values())
                for p in levels
            }
            points = draw_over_seeds(
                axes,
                values,
                bounds=SHARE,
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=3,
                linewidth=1.4,
                label=method if votes == 1 else None,
            )
            rows += [
                {"method": method, "votes": votes, "n": n, "p": point.x, metric: point.mean, "seeds": point.seeds}
                for point in points
            ]
    axes.set_xscale("log")
    axes.set_xticks(levels, [f"{p:g}" for p in levels])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("chance that a vote is wrong")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    legend(axes, columns=3)
    return rows


part = Part(
    "robust",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "robust-exact",
            "Lists of 64 elements from pair answers that are wrong at random: share that is recovered exactly. The "
            "ceiling is what any method can recover. Solid: one vote a pair; broken: three.",
            partial(draw_robust, "right", "lists recovered exactly"),
        ),
        Figure(
            "robust-kendall",
            "The same: share of the pairs of elements that end in the wrong order.",
            partial(draw_robust, "kendall", "Kendall error"),
        ),
    ),
)
