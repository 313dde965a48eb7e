"""Groups of actions with the same values: found in some states, judged in others.

With Σ the average within groups, the penalty ‖q - Σq‖² is the sum of squares within them, which Ward's agglomeration
makes small for every number of groups at once. It is 0 for the identity, so it cannot choose their number: what is
chosen is the smallest number with which little is lost in states that the groups were not found in.

Differences that are noise, of values that were not learnt, look like others. With values of a second agent squares
become products of both agents' values, in which independent noise is 0 on average, and what one agent holds best is
judged by the other's values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from holdfast.bar import Bar

APART = 1e3
"""Distance, in the largest that was seen times the number of actions, of two that are never legal together."""


@dataclass(frozen=True, eq=False)
class Values:
    """Values as groups see them: less their mean over a state's legal actions, 0 for others.

    Arguments:
        q: such values.
        second: another agent's; the same array: there is none.
        legal: which actions are.
    """

    q: Float[np.ndarray, "states n"]
    second: Float[np.ndarray, "states n"]
    legal: Bool[np.ndarray, "states n"]

    @property
    def agents(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Values to act by and values to judge with: once, or each agent's by the other's."""
        return ((self.q, self.second),) if self.alone else ((self.q, self.second), (self.second, self.q))

    @property
    def alone(self) -> bool:
        """Whether there is no second agent."""
        return self.second is self.q

    def part(self, rows: np.ndarray) -> Values:
        """Of some states."""
        q = self.q[rows]
        return Values(q, q if self.alone else self.second[rows], self.legal[rows])


@dataclass(frozen=True, eq=False)
class Path:
    """Partitions of n actions, from n groups on, each with two groups of the one before made one.

    Arguments:
        n: actions.
        merges: for each merge two actions, the first of each group.
    """

    n: int
    merges: tuple[tuple[int, int], ...]

    def labels(self, groups: int) -> Int[np.ndarray, " n"]:
        """The first action of each action's group."""
        labels = np.arange(self.n)
        for first, second in self.merges[: self.n - groups]:
            labels[labels == second] = first
        return labels


@dataclass(frozen=True, eq=False)
class Choice:
    """How many groups there are, and how sure that is.

    Arguments:
        labels: the first action of each action's group, from all states.
        interval: 95 % of the numbers of groups that resamples chose.
        residual: by number of groups, from 0 on: Σ ‖q - Σq‖² / Σ ‖q - mean‖² in states held out; NaN: not reached.
        retention: likewise the best action's lead over the mean after smoothing, as a share of that before.
        together: share of the resamples in which two actions were in one group.
    """

    labels: Int[np.ndarray, " n"]
    interval: tuple[int, int]
    residual: Float[np.ndarray, " numbers"]
    retention: Float[np.ndarray, " numbers"]
    together: Float[np.ndarray, "n n"]

    @property
    def groups(self) -> int:
        """How many."""
        return len(set(self.labels.tolist()))


def centred(
    q: Float[np.ndarray, "states n"], legal: Bool[np.ndarray, "states n"], second: np.ndarray | None = None
) -> Values:
    """Take the mean over its legal actions from each state's values: what is left says how actions differ."""
    own = _less_mean(q, legal)
    return Values(own, own if second is None else _less_mean(second, legal), legal)


def _less_mean(q: np.ndarray, legal: np.ndarray) -> np.ndarray:
    means = (q * legal).sum(1, keepdims=True) / legal.sum(1, keepdims=True)
    return np.where(legal, q - means, 0.0)


def differences(values: Values, weights: Float[np.ndarray, " states"]) -> Float[np.ndarray, "n n"]:
    """Root mean square of the difference of each two actions, over the states where both are legal; NaN: in none.

    Arguments:
        values: in all states.
        weights: how often each state counts.
    """
    legal = values.legal.astype(np.float64)
    weighed = weights[:, None]
    squares = (weighed * values.q * values.second).T @ legal
    product = (weighed * values.q).T @ values.second
    seen = (weighed * legal).T @ legal
    # Differences of nearly equal values lose their digits in the sums: what is below them is 0.
    sums, products = squares + squares.T, product + product.T
    squared = np.where(sums - products > 1e-12 * np.abs(sums), sums - products, 0.0)
    result = np.where(seen > 0, np.sqrt(squared / np.where(seen > 0, seen, 1.0)), np.nan)
    np.fill_diagonal(result, 0.0)
    return result


def agglomerate(values: Values, weights: Float[np.ndarray, " states"]) -> Path:
    """Ward's partitions; actions that are never legal together are not made one.

    Arguments:
        values: in all states.
        weights: how often each state counts.
    """
    n = values.q.shape[1]
    distance = differences(values, weights)
    largest = np.nanmax(distance) or 1.0
    distance = np.where(np.isnan(distance), APART * n * largest, distance)
    tree = hierarchy.linkage(squareform(distance, checks=False), "ward")
    first = list(range(n))
    merges = []
    for left, right, height, _ in tree.tolist():
        if height > APART * largest:
            break
        low, high = sorted((first[int(left)], first[int(right)]))
        merges.append((low, high))
        first.append(low)
    return Path(n, tuple(merges))


def losses(values: Values, path: Path) -> tuple[Float[np.ndarray, " numbers"], Float[np.ndarray, " numbers"]]:
    """Residual and retention of each partition, by its number of groups, from 0 on; NaN: the path does not reach it."""
    both = [_losses(own, judge, values.legal, path) for own, judge in values.agents]
    return np.mean([residual for residual, _ in both], 0), np.mean([retention for _, retention in both], 0)


def _losses(q: np.ndarray, judge: np.ndarray, legal: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of one agent's values, judged by another's or by themselves."""
    n, rows = path.n, np.arange(len(q))
    counts, sums = legal.astype(np.float64), (q.copy(), judge.copy())
    means = np.where(legal, q, -np.inf), np.where(legal, judge, 0.0)
    best = means[0].argmax(1)
    total, lead = float((q * judge).sum()), float(judge[rows, best].sum())
    residual, retention = np.full(n + 1, np.nan), np.full(n + 1, np.nan)
    residual[n], retention[n] = 0.0, 1.0
    lost = 0.0
    for number, (a, b) in enumerate(path.merges):
        both = (counts[:, a] > 0) & (counts[:, b] > 0)
        size = counts[both, a] * counts[both, b] / (counts[both, a] + counts[both, b])
        apart = [mean[both, a] - mean[both, b] for mean in means]
        lost += float((size * apart[0] * apart[1]).sum())
        # Elsewhere the best group stays what it was.
        touched = np.flatnonzero((best == a) | (best == b))
        counts[:, a] += counts[:, b]
        for mean, total_of in zip(means, sums, strict=True):
            total_of[:, a] += total_of[:, b]
            mean[:, a] = total_of[:, a] / np.maximum(counts[:, a], 1.0)
        means[0][counts[:, a] == 0, a] = -np.inf
        means[0][:, b] = -np.inf
        best[touched] = means[0][touched].argmax(1)
        residual[n - 1 - number] = lost / total
        retention[n - 1 - number] = float(means[1][rows, best].sum()) / lead
    return residual, retention


def choose_groups(
    values: Values,
    units: Int[np.ndarray, " states"],
    *,
    tolerance: float,
    resamples: int,
    rng: np.random.Generator,
    bar: Bar,
) -> Choice:
    """The fewest groups with which no more is lost than is tolerated, in states that they were not found in.

    Groups are found in resamples of the units, drawn with replacement, and judged in the units that were not drawn;
    the number is chosen by the means over resamples. Its interval is of the numbers that each resample chooses, with
    deviations from the means such as they have where all units judge.

    Arguments:
        values: in all states.
        units: of each state, its episode or itself, from 0 on.
        tolerance: the largest residual, and the largest loss of retention.
        resamples: how many.
        rng: of the draws.
        bar: advances by one a resample.
    """
    n, count = values.q.shape[1], int(units.max()) + 1
    residuals, retentions, shares = [], [], list[float]()
    together = np.zeros((n, n))
    while len(shares) < resamples:
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        apart = values.part(drawn[units] == 0)
        if agreement(apart) <= 0:  # nothing is left to judge by
            continue
        path = agglomerate(values, drawn[units].astype(np.float64))
        residual, retention = losses(apart, path)
        shares.append(float((drawn == 0).mean()))
        labels = path.labels(_fewest(residual, retention, tolerance))
        together += labels[:, None] == labels
        residuals.append(residual)
        retentions.append(retention)
        bar.advance()
    residual, retention = np.mean(residuals, 0), np.mean(retentions, 0)
    # All units judge the means, a share of them each resample: its deviations are as much too large.
    scale = np.mean(shares) ** 0.5
    numbers = [
        _fewest(residual + scale * (one - residual), retention + scale * (other - retention), tolerance)
        for one, other in zip(residuals, retentions, strict=True)
    ]
    path = agglomerate(values, np.ones(len(values.q)))
    fewest = max(_fewest(residual, retention, tolerance), n - len(path.merges))
    low, high = np.quantile(numbers, (0.025, 0.975), method="inverted_cdf").tolist()
    return Choice(
        labels=path.labels(fewest),
        interval=(min(int(low), fewest), max(int(high), fewest)),
        residual=residual,
        retention=retention,
        together=together / resamples,
    )


def _fewest(residual: np.ndarray, retention: np.ndarray, tolerance: float) -> int:
    """A number that is not reached is not tolerated."""
    return int(np.flatnonzero((residual <= tolerance) & (retention >= 1 - tolerance))[0])


def agreement(values: Values) -> float:
    """Cosine between both agents' values, 1 where there is no second; 0: one of them has no differences."""
    norm = float(np.sqrt((values.q**2).sum() * (values.second**2).sum()))
    return float((values.q * values.second).sum()) / norm if norm else 0.0


def correlations(values: Values) -> Float[np.ndarray, "n n"]:
    """Pearson's, of the columns, each pair over the states where both are legal; NaN: one of them is constant there."""
    legal = values.legal.astype(np.float64)
    seen = np.maximum(legal.T @ legal, 1.0)
    mean = (values.q.T @ legal) / seen  # of i where j is legal as well
    squares = (values.q**2).T @ legal / seen
    variance = squares - mean**2
    covariance = values.q.T @ values.q / seen - mean * mean.T
    known = (variance > 1e-12 * squares) & (variance > 1e-12 * squares).T & (seen > 1)
    product = np.where(known, variance * variance.T, 1.0)
    result = np.where(known, np.clip(covariance / np.sqrt(product), -1.0, 1.0), np.nan)
    np.fill_diagonal(result, np.where(np.diag(known), 1.0, np.nan))
    return result
