"""Fit a law of adaptive temperature to a model's own logits, and refuse one that does not hold on rows kept back.

Each row says which inverse temperature it needs; a polynomial through the medians of bins by entropy is the law;
every fourth row, which took no part in that, judges it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.nn.temperature import AdaptiveTemperature, FitRecord, SizeCheck, finite_number

HOLDOUT = 4
"""Every fourth row of each size is kept back from a fit to validate it."""


MIN_BINS = 8
MIN_ROWS_PER_BIN = 4
MIN_RANGE = 1.0
MAX_DEGREE = 6
GRID = 49
"""Rules of a fit; `fit_temperature` says what each of them is for."""


SHAPE_FACTOR = 2.0
DISTANCE_SLACK = 0.02
SCORE_SLACK = 0.005
"""By how much a fit may miss its bins (a factor), its target (nats) and the user's own score."""


CHUNK = 1 << 22
"""Logits that a fit works on at once: it bounds memory, not the result."""


class FitError(HoldfastError):
    """A refit was refused.

    Arguments:
        rule: which rule failed: `"non-finite"`, `"bins"`, `"range"`, `"shape"`, `"validation"` or `"score"`.
        detail: what was expected and what was found.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"fit refused by the rule {rule!r}: {detail}")
        self.rule = rule
        self.detail = detail

    def __reduce__(self) -> tuple[type[FitError], tuple[str, str]]:
        """Rebuild from both parts, so that the error survives the way back from a worker process."""
        return FitError, (self.rule, self.detail)


def fit_temperature(
    logits: Mapping[int, Float[Tensor, "rows n"]],
    *,
    reference: int | None = None,
    loss: Callable[[int, float], Float[Tensor, " rows"]] | None = None,
    score: Callable[[AdaptiveTemperature | None], float] | None = None,
    degree: int = 4,
    bins: int = 24,
    threshold: float = 0.5,
    beta_max: float = 64.0,
) -> AdaptiveTemperature:
    """Fit a law to a model's own attention logits, validate it on rows kept back, and refuse a bad one.

    Every row gets the beta that it needs:

    - without `loss`: the smallest beta >= 1 that brings its entropy down to the target, the mean entropy at
      the reference size (bisection). Rows whose ties at the maximum keep them above the target at any beta
      are left out; rows that need more than `beta_max` count as `beta_max`, which a median bears. The law
      then leaves every row at or below the target alone: its threshold is the larger of `threshold` and the
      target.
    - with `loss`: of 49 values of beta, evenly spaced in logarithm from 1 to `beta_max`, the one with the
      least loss (the smallest of equals).

    Rows above the threshold go into bins of equal counts by entropy; a polynomial is fitted to (mean entropy,
    median beta) of the bins. Residuals are weighted by 1 / beta, since sharpness follows the logarithm of
    beta. Where the medians end in a plateau at `beta_max`, only rows up to its beginning are fitted, lest the
    polynomial wiggle to follow it. At run time entropies are clamped to the outermost bins and beta into
    [1, largest median].

    A fit is refused, with the name of the rule, for

    - `non-finite`: logits, losses or scores that are not finite (masked keys must be taken out first);
    - `bins`: fewer than 8 bins, or than degree + 1, of at least 4 rows each;
    - `range`: bins (a plateau included) that span less than 1 nat;
    - `shape`: a polynomial that wiggles: between two bins, beta leaves the range of the four nearest medians
      by more than a factor of 2;
    - `validation`: on the held-out rows, the mean distance |H - target| does not shrink over all sizes
      together, or grows at one size by more than 0.02 nats. With `loss`: the mean loss over all sizes grows,
      or the loss at one size grows by more than two standard errors of the paired difference;
    - `score`: the user's score falls by more than 0.005.

    Arguments:
        logits: size n -> rows of logits before the softmax, all keys visible. Every fourth row is held out,
            so that rows should not depend on their neighbours; some 128 rows a size, from the training size
            up to the largest wanted, serve well.
        reference: the size at which the model works as it should; the smallest one unless given.
        loss: (size, beta) -> loss of each row of `logits[size]` when its logits are multiplied by beta.
        score: task score at the training size, higher is better, with the given law (`None`: plain softmax).
        degree: of the polynomial, 1 to 6.
        bins: number of bins, at least 8.
        threshold: entropy in nats up to which the law leaves a row alone.
        beta_max: largest beta considered.

    Returns:
        the law, with its validation in `fit`. The same input gives the same law, since nothing is random.

    Errors:
        FitError: the fit was refused.
        ArgumentError: an argument of the wrong kind.

    Source: arXiv 2410.01104, section 3 (a degree-4 least-squares fit). The paper does not say which target
    its polynomial was fitted to; targets, bins and rules of refusal are ours.
    """
    sizes = sorted(logits)
    if len(sizes) == 0:
        raise ArgumentError("logits", "at least one size", "none")
    for size in sizes:
        _check_rows(size, logits[size])
    reference = sizes[0] if reference is None else reference
    if reference not in logits:
        raise ArgumentError("reference", f"one of the sizes {sizes}", reference)
    if isinstance(degree, bool) or not 1 <= degree <= MAX_DEGREE:
        raise ArgumentError("degree", f"1 to {MAX_DEGREE}", degree)
    if isinstance(bins, bool) or bins < MIN_BINS:
        raise ArgumentError("bins", f"at least {MIN_BINS}", bins)
    beta_max = finite_number("beta_max", beta_max)
    if beta_max <= 1:
        raise ArgumentError("beta_max", "a value above 1", beta_max)
    threshold = finite_number("threshold", threshold)
    if threshold < 0:
        raise ArgumentError("threshold", "an entropy in nats, at least 0", threshold)

    entropy = {size: _tempered_entropy(logits[size], None) for size in sizes}
    target = _fitted(entropy[reference]).mean().item()
    grid = torch.logspace(0, math.log10(beta_max), GRID, dtype=torch.float64)
    losses = {} if loss is None else {size: _losses(loss, size, len(entropy[size]), grid) for size in sizes}
    if loss is None:
        wanted = {size: _beta_for(logits[size], target, beta_max) for size in sizes}
        threshold = max(threshold, target)
    else:
        wanted = {size: grid[table.argmin(1)] for size, table in losses.items()}

    h = torch.cat([_fitted(entropy[size]).cpu() for size in sizes])
    beta = torch.cat([_fitted(wanted[size]).cpu() for size in sizes])
    reachable = ~beta.isnan()
    keep = reachable & (h > threshold)
    centres, medians = _binned(h[keep], beta[keep], bins)
    covered = (centres.amin().item(), centres.amax().item()) if len(centres) else (0.0, 0.0)
    if _plateau(medians, beta_max) > 1:
        keep &= h <= centres[-_plateau(medians, beta_max)]
        centres, medians = _binned(h[keep], beta[keep], bins)
    if len(centres) < max(MIN_BINS, degree + 1):
        raise FitError(
            "bins",
            f"expected at least {max(MIN_BINS, degree + 1)} bins of {MIN_ROWS_PER_BIN} rows or more above "
            f"{threshold:.3g} nats, got {len(centres)} from {int(keep.sum())} rows "
            f"({int((~reachable).sum())} more have ties that no temperature can separate)",
        )
    if covered[1] - covered[0] < MIN_RANGE:
        raise FitError(
            "range",
            f"expected entropies that span at least {MIN_RANGE:g} nat, got {covered[0]:.3f} to {covered[1]:.3f}",
        )
    law = AdaptiveTemperature(
        # Residuals are relative, for sharpness follows the logarithm of beta.
        tuple(np.polyfit(centres.numpy(), medians.numpy(), degree, w=1 / medians.numpy()).tolist()),
        threshold=threshold,
        entropy_range=(centres[0].item(), centres[-1].item()),
        beta_max=max(1.0, medians.max().item()),
    )
    _check_shape(law, centres, medians)

    checks = tuple(
        _check_size(law, size, logits[size], entropy[size], target, losses.get(size), grid) for size in sizes
    )
    if loss is None:
        _check_distance(checks)
    else:
        _check_loss(checks, law, entropy, losses, grid)
    before, after = (None, None) if score is None else _check_score(score, law)
    record = FitRecord(
        method="entropy" if loss is None else "loss",
        reference=reference,
        target=target,
        rows=int(keep.sum()),
        excluded=int((~reachable).sum()),
        bins=len(centres),
        checks=checks,
        score_before=before,
        score_after=after,
    )
    return replace(law, fit=record)


def _check_rows(size: int, rows: Tensor) -> None:
    """Refuse rows that a law cannot be fitted to."""
    name = f"logits[{size}]"
    if not rows.is_floating_point():
        raise ArgumentError(name, "a floating-point dtype", str(rows.dtype))
    if rows.ndim != 2 or rows.shape[1] != size or size < 1:
        raise ArgumentError(name, f"shape (rows, {size})", f"shape {tuple(rows.shape)}")
    if rows.shape[0] < HOLDOUT:
        raise ArgumentError(name, f"at least {HOLDOUT} rows", rows.shape[0])
    bad = ~rows.isfinite() | (rows <= torch.finfo(rows.dtype).min / 2)
    if bad.any():
        raise FitError("non-finite", f"{name} has {int(bad.any(1).sum())} rows with NaN, infinite or masked logits")


def _fitted(values: Tensor) -> Tensor:
    """Rows that a law is fitted to."""
    return values[torch.arange(len(values), device=values.device) % HOLDOUT != HOLDOUT - 1]


def _held_out(values: Tensor) -> Tensor:
    """Rows that a law is validated on."""
    return values[HOLDOUT - 1 :: HOLDOUT]


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    """Rows in float64, shifted by their maximum, without gradient, a bounded number at a time."""
    for part in torch.split(rows.detach(), max(1, CHUNK // rows.shape[1])):
        wide = part.double()
        yield wide - wide.amax(1, keepdim=True)


def _entropy_at(z: Tensor, beta: Tensor) -> Tensor:
    """Entropy of softmax(beta z) of shifted rows that hide nothing, without the passes that masks need."""
    scaled = z * beta[:, None]
    weight = scaled.exp()
    s = weight.sum(1)
    return s.log() - scaled.mul_(weight).sum(1) / s


def _tempered_entropy(rows: Tensor, beta: Tensor | None) -> Tensor:
    """Entropy of softmax(beta z) of each row, in float64."""
    values, start = [], 0
    for z in _chunks(rows):
        values.append(_entropy_at(z, z.new_ones(len(z)) if beta is None else beta[start : start + len(z)]))
        start += len(z)
    return torch.cat(values)


def _beta_for(rows: Tensor, target: float, beta_max: float) -> Tensor:
    """Smallest beta in [1, beta_max] with an entropy of at most `target`; NaN where ties rule it out."""
    betas = []
    for z in _chunks(rows):
        low = z.new_zeros(len(z))
        high = torch.full_like(low, math.log(beta_max))
        # Entropy falls as beta grows (its derivative is -beta Var(z)), so that halving finds the crossing.
        for _ in range(32):
            middle = (low + high) / 2
            below = _entropy_at(z, middle.exp()) <= target
            low, high = torch.where(below, low, middle), torch.where(below, middle, high)
        beta = high.exp().masked_fill(_entropy_at(z, torch.ones_like(low)) <= target, 1.0)
        ties = (z == 0).sum(1).double().log()
        betas.append(beta.masked_fill((beta > 1) & (ties >= target), math.nan))
    return torch.cat(betas)


def _losses(loss: Callable[[int, float], Tensor], size: int, rows: int, grid: Tensor) -> Float[Tensor, "rows betas"]:
    """The user's loss of each row at each beta."""
    columns = []
    for beta in grid.tolist():
        value = loss(size, beta)
        if value.shape != (rows,):
            raise ArgumentError(f"loss({size}, beta)", f"shape ({rows},)", f"shape {tuple(value.shape)}")
        columns.append(value.detach().double().cpu())
    table = torch.stack(columns, 1)
    if not table.isfinite().all():
        raise FitError("non-finite", f"loss({size}, beta) gives NaN or infinite values")
    return table


def _binned(h: Tensor, beta: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Mean entropy and median beta of bins of equal counts; bins with few rows are left out."""
    if len(h) == 0:
        return h, beta
    ordered = h.sort().values
    edges = torch.unique_consecutive(ordered[torch.linspace(0, len(h) - 1, bins + 1).round().long()])
    index = torch.bucketize(h, edges[1:-1], right=True)
    groups = [index == i for i in range(max(1, len(edges) - 1))]
    groups = [group for group in groups if int(group.sum()) >= MIN_ROWS_PER_BIN]
    if not groups:
        return h[:0], beta[:0]
    return torch.stack([h[g].mean() for g in groups]), torch.stack([beta[g].quantile(0.5) for g in groups])


def _plateau(medians: Tensor, beta_max: float) -> int:
    """How many bins at the end have a median of `beta_max`."""
    return int((medians.flip(0) >= beta_max * (1 - 1e-6)).long().cumprod(0).sum())


def _check_shape(law: AdaptiveTemperature, centres: Tensor, medians: Tensor) -> None:
    """Refuse a polynomial that leaves the medians around it."""
    last = len(centres) - 1
    for i in range(last):
        h = torch.linspace(centres[i].item(), centres[i + 1].item(), 17, dtype=torch.float64)
        near = medians[max(0, i - 1) : min(last, i + 2) + 1]
        beta = law.beta(h)
        low, high = near.min().item() / SHAPE_FACTOR, near.max().item() * SHAPE_FACTOR
        if beta.min() < low or beta.max() > high:
            raise FitError(
                "shape",
                f"expected beta within {low:.3g} and {high:.3g} at entropies of {h[0]:.3f} to {h[-1]:.3f}, "
                f"got {beta.min():.3g} to {beta.max():.3g}: the polynomial does not follow the data",
            )


def _at(table: Tensor, grid: Tensor, beta: Tensor) -> Tensor:
    """Loss of each row at its own beta: linear in log beta between the betas of the table."""
    place = (beta.log() / grid[-1].log() * (len(grid) - 1)).clamp(0, len(grid) - 1)
    left = place.floor().long().clamp(max=len(grid) - 2)
    part = place - left
    values = table.gather(1, torch.stack([left, left + 1], 1))
    return values[:, 0] * (1 - part) + values[:, 1] * part


def _check_size(
    law: AdaptiveTemperature,
    size: int,
    rows: Tensor,
    entropy: Tensor,
    target: float,
    table: Tensor | None,
    grid: Tensor,
) -> SizeCheck:
    """Measure the law on the held-out rows of one size."""
    before = _held_out(entropy)
    beta = law.beta(before)
    after = _tempered_entropy(_held_out(rows), beta)
    return SizeCheck(
        size=size,
        rows=len(before),
        entropy_before=before.mean().item(),
        entropy_after=after.mean().item(),
        target=target,
        distance_before=(before - target).abs().mean().item(),
        distance_after=(after - target).abs().mean().item(),
        loss_before=None if table is None else _held_out(table)[:, 0].mean().item(),
        loss_after=None if table is None else _at(_held_out(table), grid, beta.cpu()).mean().item(),
    )


def _check_distance(checks: Sequence[SizeCheck]) -> None:
    """Refuse a law that does not bring held-out entropies closer to the target."""
    before = sum(check.distance_before for check in checks) / len(checks)
    after = sum(check.distance_after for check in checks) / len(checks)
    if not after < before:
        raise FitError(
            "validation",
            f"expected held-out entropies closer to the target than the {before:.3f} nats without the law, "
            f"got {after:.3f} nats",
        )
    for check in checks:
        if check.distance_after > check.distance_before + DISTANCE_SLACK:
            raise FitError(
                "validation",
                f"expected held-out entropies at size {check.size} to stay within "
                f"{check.distance_before:.3f} nats of the target, got {check.distance_after:.3f} nats",
            )


def _check_loss(
    checks: Sequence[SizeCheck],
    law: AdaptiveTemperature,
    entropy: Mapping[int, Tensor],
    losses: Mapping[int, Tensor],
    grid: Tensor,
) -> None:
    """Refuse a law that raises the loss of held-out rows."""
    total = 0.0
    for check in checks:
        table = _held_out(losses[check.size])
        change = _at(table, grid, law.beta(_held_out(entropy[check.size])).cpu()) - table[:, 0]
        error = change.std().item() / math.sqrt(len(change)) if len(change) > 1 else math.inf
        mean = change.mean().item()
        total += mean
        if mean > 2 * error:
            raise FitError(
                "validation",
                f"expected no higher held-out loss at size {check.size}, got {mean:+.4g} (standard error {error:.2g})",
            )
    if total > 0:
        raise FitError(
            "validation",
            f"expected no higher held-out loss over all sizes, got {total / len(checks):+.4g} on average",
        )


def _check_score(score: Callable[[AdaptiveTemperature | None], float], law: AdaptiveTemperature) -> tuple[float, float]:
    """Refuse a law that costs task score at the training size."""
    before, after = float(score(None)), float(score(law))
    if not (math.isfinite(before) and math.isfinite(after)):
        raise FitError("non-finite", f"scores without and with the law are {before} and {after}")
    if after < before - SCORE_SLACK:
        raise FitError("score", f"expected a score of at least {before:.4f} - {SCORE_SLACK}, got {after:.4f}")
    return before, after
