"""Adaptive temperature: sharpen an attention row by as much as its own entropy asks for.

The rule (arXiv 2410.01104, section 3 and figure 4), for one row of logits z with p = softmax(z):

    H = Shannon entropy of p, in nats
    beta = 1 if H <= threshold else max(1, polyval(coefficients, H))
    weights = softmax(beta z)

beta is an *inverse* temperature, and the coefficients run from the highest degree to the lowest.
The published polynomial was fitted to one small model; `fit_temperature` fits a law to yours.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError, HoldfastError

PUBLISHED_COEFFICIENTS = (-0.037, 0.481, -2.3, 4.917, -1.791)
"""beta = -0.037 H⁴ + 0.481 H³ - 2.3 H² + 4.917 H - 1.791 (arXiv 2410.01104, figure 4)."""

FORMAT = "holdfast.adaptive_temperature"
VERSION = 1

INACTIVE_SHARE = 0.1
"""Share of rows above the law's reach from which `adaptive_softmax` warns."""

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


class CorrectionInactiveWarning(UserWarning):
    """Many rows have an entropy beyond the reach of the law, which leaves them as they are."""


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


def _number(name: str, value: object) -> float:
    """Return a finite float, or say that `name` is not one; booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(name, "a finite number", value)
    return float(value)


@dataclass(frozen=True)
class SizeCheck:
    """A fitted law on the held-out rows of one size. Entropies are in nats.

    Arguments:
        size: number of keys.
        rows: number of held-out rows.
        entropy_before, entropy_after: mean entropy without and with the law.
        target: mean entropy at the reference size.
        distance_before, distance_after: mean over rows of |H - target|.
        loss_before, loss_after: mean loss, where the fit had one.
    """

    size: int
    rows: int
    entropy_before: float
    entropy_after: float
    target: float
    distance_before: float
    distance_after: float
    loss_before: float | None = None
    loss_after: float | None = None


@dataclass(frozen=True)
class FitRecord:
    """Where a fitted law comes from and how it did on rows it has not seen.

    Arguments:
        method: `"entropy"` (label-free) or `"loss"`.
        reference: the size whose mean entropy is the target.
        target: that mean entropy, in nats.
        rows: rows that the polynomial was fitted to.
        excluded: rows left out because ties at their maximum keep them above the target at any temperature.
        bins: number of bins that the polynomial was fitted to.
        checks: validation, one entry a size.
        score_before, score_after: the user's task score without and with the law.
    """

    method: str
    reference: int
    target: float
    rows: int
    excluded: int
    bins: int
    checks: tuple[SizeCheck, ...]
    score_before: float | None = None
    score_after: float | None = None


@dataclass(frozen=True)
class AdaptiveTemperature:
    """A law from the entropy of an attention row to its inverse temperature beta.

    beta(H) = 1 where H <= threshold; elsewhere the polynomial at H, clamped into [beta_min, beta_max].

    Arguments:
        coefficients: of the polynomial, HIGHEST DEGREE FIRST (the order of `numpy.polyval`), as floats.
        threshold: entropy in nats up to which a row is left as it is (the law acts on H > threshold).
        entropy_range: entropies in nats that the polynomial was fitted to; H is clamped into it first, since
            polynomials cannot be trusted outside. `None`: no clamping, as in the paper.
        beta_min: lower bound of beta where the law acts.
        beta_max: upper bound of beta; `None`: unbounded.
        fit: where the law comes from; `None` unless `fit_temperature` made it.

    Errors:
        ArgumentError: a value is not finite, not a float, or out of bounds.

    Source: arXiv 2410.01104, section 3 and figure 4.
    """

    coefficients: tuple[float, ...]
    threshold: float = 0.5
    entropy_range: tuple[float, float] | None = None
    beta_min: float = 1.0
    beta_max: float | None = None
    fit: FitRecord | None = None

    def __post_init__(self) -> None:
        """Check every field and settle it to plain floats, so that laws are hashable and print the same."""
        given = self.coefficients
        if not isinstance(given, tuple | list):
            raise ArgumentError(
                "coefficients",
                "a tuple of floats, highest degree first (arrays: AdaptiveTemperature.from_coefficients)",
                type(given).__name__,
            )
        if not given:
            raise ArgumentError("coefficients", "at least one coefficient", given)
        if not all(isinstance(value, float) for value in given):
            raise ArgumentError("coefficients", "floats, not integers or booleans", given)
        if not all(math.isfinite(value) for value in given):
            raise ArgumentError("coefficients", "finite values", given)
        threshold = _number("threshold", self.threshold)
        if threshold < 0:
            raise ArgumentError("threshold", "an entropy in nats, at least 0", threshold)
        beta_min = _number("beta_min", self.beta_min)
        if beta_min <= 0:
            raise ArgumentError("beta_min", "a value above 0", beta_min)
        beta_max = None if self.beta_max is None else _number("beta_max", self.beta_max)
        if beta_max is not None and beta_max < beta_min:
            raise ArgumentError("beta_max", f"at least beta_min = {beta_min}", beta_max)
        span = self.entropy_range
        if span is not None:
            if not isinstance(span, tuple | list) or len(span) != 2:
                raise ArgumentError("entropy_range", "a pair (low, high) of entropies in nats", span)
            low, high = (_number("entropy_range", value) for value in span)
            if not 0 <= low < high:
                raise ArgumentError("entropy_range", "0 <= low < high", span)
            span = (low, high)
        if self.fit is not None and not isinstance(self.fit, FitRecord):
            raise ArgumentError("fit", "a FitRecord or None", self.fit)
        for name, value in (
            ("coefficients", tuple(float(value) for value in given)),
            ("threshold", threshold),
            ("entropy_range", span),
            ("beta_min", beta_min),
            ("beta_max", beta_max),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def published(cls) -> AdaptiveTemperature:
        """Return the paper's law, which acts for 0.8486 < H < 5.9445 nats and reaches beta = 2.4214."""
        return cls(PUBLISHED_COEFFICIENTS)

    @classmethod
    def from_coefficients(
        cls,
        coefficients: Any,
        *,
        order: Literal["descending", "ascending"],
        **settings: Any,
    ) -> AdaptiveTemperature:
        """Build a law from coefficients of any kind, with their order said aloud.

        Arguments:
            coefficients: one-dimensional tensor, numpy array or sequence of floats.
            order: `"descending"` for the order of `numpy.polyval`, `"ascending"` for that of
                `numpy.polynomial.Polynomial`.
            settings: the other fields of the law.

        Errors:
            ArgumentError: the order is unknown, or the coefficients are not floats in one dimension.
        """
        if order not in ("descending", "ascending"):
            raise ArgumentError("order", '"descending" or "ascending"', order)
        values: Any = coefficients
        if hasattr(values, "tolist"):
            if values.ndim != 1:
                raise ArgumentError("coefficients", "one dimension", f"shape {tuple(values.shape)}")
            values = values.tolist()
        return cls(tuple(values) if order == "descending" else tuple(values)[::-1], **settings)

    def beta(self, entropy: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Return the inverse temperature of rows with these entropies.

        Arguments:
            entropy: in nats.

        Returns:
            beta, of the shape and dtype of `entropy`; NaN where the entropy is NaN.

        Errors:
            ArgumentError: the entropies are not floats.
        """
        if not entropy.is_floating_point():
            raise ArgumentError("entropy", "a floating-point dtype", str(entropy.dtype))
        h = entropy if self.entropy_range is None else entropy.clamp(*self.entropy_range)
        if h.device.type != "mps":  # which has no float64
            # The terms are far larger than their sum: in float32, rounded coefficients alone would cost 4e-6.
            h = h.double()
        value = torch.full_like(h, self.coefficients[0])
        for coefficient in self.coefficients[1:]:
            value = value * h + coefficient
        value = value.clamp(self.beta_min, self.beta_max).to(entropy.dtype)
        # Asking for `<=` rather than `>` lets a NaN through instead of hiding it behind beta = 1.
        return torch.where(entropy <= self.threshold, torch.ones_like(value), value)

    @property
    def active_interval(self) -> tuple[float, float] | None:
        """Lowest and highest entropy, in nats, between which the law changes a row.

        The upper end is infinite for a law that acts on every large entropy; `None` for one that never acts.
        The published law acts on (0.8486, 5.9445).
        """
        return _active_interval(self)

    def to_json(self) -> str:
        """Return the law as a JSON object that `from_json` reads back exactly."""
        document = {"format": FORMAT, "version": VERSION, "order": "descending", **asdict(self)}
        return json.dumps(document, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> AdaptiveTemperature:
        """Read a law that `to_json` wrote.

        Errors:
            ArgumentError: not such a document, another version, or no statement that the coefficients
                descend. Read in the wrong order the published law is silently a different one, so that
                nothing is guessed.
        """
        try:
            document = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ArgumentError("text", "a JSON document", f"an unreadable one ({error})") from error
        if not isinstance(document, dict):
            raise ArgumentError("text", "a JSON object", type(document).__name__)
        if document.pop("format", FORMAT) != FORMAT:
            raise ArgumentError("text", f"the format {FORMAT!r}", "another format")
        version = document.pop("version", None)
        if version != VERSION or isinstance(version, bool):
            raise ArgumentError("version", f"{VERSION}", "none" if version is None else version)
        order = document.pop("order", None)
        if order != "descending":
            raise ArgumentError(
                "order",
                '"descending" (coefficients, highest degree first)',
                "none" if order is None else order,
            )
        _only_fields(cls, document, "text")
        record = document.pop("fit", None)
        for name in ("coefficients", "entropy_range"):  # JSON has no tuples
            if isinstance(document.get(name), list):
                document[name] = tuple(document[name])
        return cls(**document, fit=None if record is None else _record(record))


PUBLISHED = AdaptiveTemperature.published()
"""The paper's law."""


def _only_fields(kind: type, document: object, name: str) -> None:
    """Refuse a document with fields that `kind` lacks or without one that it needs."""
    if not isinstance(document, dict):
        raise ArgumentError(name, "a JSON object", type(document).__name__)
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(document.keys() - known.keys())
    if unknown:
        raise ArgumentError(name, f"only the fields {sorted(known)}", f"also {unknown}")
    needed = {field for field in known if not hasattr(kind, field)}  # a default is a class attribute
    missing = sorted(needed - document.keys())
    if missing:
        raise ArgumentError(name, f"the fields {sorted(needed)}", f"none of {missing}")


def _record(document: Any) -> FitRecord:
    """Read the provenance of a fit from JSON."""
    _only_fields(FitRecord, document, "fit")
    if not isinstance(document["checks"], list):
        raise ArgumentError("fit.checks", "a list", document["checks"])
    checks = []
    for check in document["checks"]:
        _only_fields(SizeCheck, check, "fit.checks")
        checks.append(SizeCheck(**check))
    return FitRecord(**{**document, "checks": tuple(checks)})


@lru_cache(maxsize=64)
def _active_interval(law: AdaptiveTemperature) -> tuple[float, float] | None:
    """Find where beta != 1: one look between each two breakpoints settles it."""
    low, high = law.entropy_range or (0.0, math.inf)
    roots = [root for root in _roots(law.coefficients, 1.0) if low < root < high]
    breaks = sorted({edge for edge in (0.0, law.threshold, low, high, *roots) if 0 <= edge < math.inf})
    looks = [(a + b) / 2 for a, b in pairwise(breaks)] + [breaks[-1] + 1.0]
    beta = law.beta(torch.tensor(looks, dtype=torch.float64, device="cpu")).tolist()
    stretches = list(zip(breaks, [*breaks[1:], math.inf], strict=True))
    active = [stretch for stretch, value in zip(stretches, beta, strict=True) if value != 1.0]
    return (active[0][0], active[-1][1]) if active else None


def _roots(coefficients: Sequence[float], level: float) -> list[float]:
    """Return the real roots of polyval(coefficients, H) = level: companion matrix, then Newton."""
    c = [*coefficients[:-1], coefficients[-1] - level]
    while c and c[0] == 0:
        c = c[1:]
    degree = len(c) - 1
    if degree < 1:
        return []
    companion = torch.zeros(degree, degree, dtype=torch.float64, device="cpu")
    companion[0] = -torch.tensor(c[1:], dtype=torch.float64, device="cpu") / c[0]
    companion[range(1, degree), range(degree - 1)] = 1.0
    found = []
    for value in torch.linalg.eigvals(companion).tolist():
        if abs(value.imag) > 1e-6 * (1 + abs(value.real)):
            continue
        root = value.real
        for _ in range(3):
            f, slope = 0.0, 0.0
            for coefficient in c:
                f, slope = f * root + coefficient, slope * root + f
            if slope != 0:
                root -= f / slope
        found.append(root)
    return sorted(found)


def _checked(logits: Tensor, dim: int, mask: Tensor | None) -> None:
    """Refuse arguments that have no softmax."""
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ArgumentError("logits", "float16, bfloat16, float32 or float64", str(logits.dtype))
    if not -logits.ndim <= dim < logits.ndim:
        raise ArgumentError("dim", f"a dimension of logits of shape {tuple(logits.shape)}", dim)
    if logits.shape[dim] == 0:
        raise ArgumentError("logits", f"at least one key along dim {dim}", f"shape {tuple(logits.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ArgumentError("mask", "bool (True = visible)", str(mask.dtype))
    pairs = zip(reversed(mask.shape), reversed(logits.shape), strict=False)
    if mask.ndim > logits.ndim or not all(have in (1, want) for have, want in pairs):
        raise ArgumentError("mask", f"a shape that broadcasts to {tuple(logits.shape)}", f"shape {tuple(mask.shape)}")


def shifted_rows(logits: Tensor, dim: int = -1, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Shift each row by its maximum, in float32 or better.

    Returns:
        z - max z of the shape of `logits`, finite, 0 at hidden keys; which keys are hidden; which rows have
        no visible key (size 1 along `dim`).
    """
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Masks write -inf, or finfo.min plus a score, which beta would make overflow. NaN counts as visible.
    hidden = x <= torch.finfo(logits.dtype).min / 2
    if mask is not None:
        hidden = hidden | ~mask
    empty = hidden.all(dim, keepdim=True)
    # Nothing depends on the shift, so it needs no gradient.
    top = x.detach().masked_fill(hidden, -math.inf).amax(dim, keepdim=True).masked_fill(empty, 0.0)
    # The floor keeps a spread beyond the dtype's range from meeting exp(-inf) as -inf * 0.
    shifted = (x - top).masked_fill(hidden, 0.0).clamp(min=torch.finfo(x.dtype).min / 4)
    return shifted, hidden, empty


def row_entropy(shifted: Tensor, hidden: Tensor, empty: Tensor, dim: int = -1) -> Tensor:
    """Entropy in nats, `dim` kept: H = ln s - t / s, with s = sum e^z and t = sum z e^z, z shifted."""
    weight = shifted.exp().masked_fill(hidden, 0.0)
    # Sums of thousands of float32 terms lose the digits that the law's slope then multiplies.
    wide = shifted.dtype if shifted.device.type == "mps" else torch.float64
    s = weight.sum(dim, keepdim=True, dtype=wide).masked_fill(empty, 1.0)
    t = (shifted * weight).sum(dim, keepdim=True, dtype=wide)
    return s.log() - t / s


def entropy_of(
    logits: Float[Tensor, "*shape"], dim: int = -1, *, mask: Bool[Tensor, "*mask"] | None = None
) -> Float[Tensor, "*rows"]:
    """Shannon entropy, in nats, of softmax(logits) along a dimension.

    Arguments:
        logits: float16, bfloat16, float32 or float64. A logit of -inf, or of at most half the dtype's lowest
            value, counts as masked.
        dim: the dimension of the keys.
        mask: True = visible; broadcasts to the shape of `logits`.

    Returns:
        the entropy of each row, without `dim`, in float64 for float64 logits and in float32 for the others.
        0 for a row without a visible key; NaN for a row with a visible NaN or +inf.

    Errors:
        ArgumentError: no keys, another dtype, or a mask that does not fit.

    Source: arXiv 2410.01104, figure 4, without its 1e-9 inside the logarithm, which biases H by n x 1e-9 and
    is 0 in float16.
    """
    _checked(logits, dim, mask)
    shifted, hidden, empty = shifted_rows(logits, dim, mask)
    return row_entropy(shifted, hidden, empty, dim).squeeze(dim).to(shifted.dtype)


def adaptive_softmax(
    logits: Float[Tensor, "*shape"],
    dim: int = -1,
    *,
    mask: Bool[Tensor, "*mask"] | None = None,
    temperature: AdaptiveTemperature | None = None,
    detach: bool = True,
) -> Float[Tensor, "*shape"]:
    """Softmax with an inverse temperature that each row's own entropy decides.

    Statistics are taken in float32 (float64 for float64 logits). On the CPU, outside `torch.compile`, the
    first call that finds more than a tenth of the rows beyond the law's reach warns; elsewhere that look
    would cost a synchronisation, and `inactive_share` takes it on demand.

    Arguments:
        logits: already scaled, biased and softcapped; float16, bfloat16, float32 or float64. A logit of -inf,
            or of at most half the dtype's lowest value, counts as masked. Keys of other documents must be
            masked, and attention sinks included, for both count in the entropy.
        dim: the dimension of the keys.
        mask: True = visible; broadcasts to the shape of `logits`.
        temperature: the law; `None`: the published one.
        detach: treat beta as a constant in the backward pass. The paper's code does not: `False` follows it.

    Returns:
        weights of the shape and dtype of `logits` that sum to 1 along `dim`; zeros in a row without a visible
        key; NaN in a row with a visible NaN or +inf, and in no other.

    Errors:
        ArgumentError: no keys, another dtype, or a mask that does not fit.

    Source: arXiv 2410.01104, section 3 and figure 4.
    """
    law = PUBLISHED if temperature is None else temperature
    _checked(logits, dim, mask)
    shifted, hidden, empty = shifted_rows(logits, dim, mask)
    entropy = row_entropy(shifted.detach() if detach else shifted, hidden, empty, dim)
    if not torch.compiler.is_compiling() and logits.device.type == "cpu":
        _warn_if_inactive(entropy, empty, law)
    # beta > 0, so that the shifted row's maximum stays 0 and needs no second pass.
    beta = law.beta(entropy).to(shifted.dtype)
    weight = (beta * shifted).exp().masked_fill(hidden, 0.0)
    total = weight.sum(dim, keepdim=True).masked_fill(empty, 1.0)
    return (weight / total).to(logits.dtype)


def inactive_share(entropy: Float[Tensor, "*rows"], temperature: AdaptiveTemperature | None = None) -> float:
    """Share of rows whose entropy lies at or above the highest one at which the law acts.

    Such rows are too dispersed for the law and get a plain softmax: for the published law from 5.9445 nats,
    or about 381 equally weighted keys, on. Reads the tensor's values, so that it synchronises with an
    accelerator.

    Arguments:
        entropy: in nats, as `entropy_of` gives it; rows with NaN are left out.
        temperature: the law; `None`: the published one.

    Returns:
        a share from 0 to 1; 0 where there are no rows, or where the law has no upper end. 1 for a law that
        never acts.
    """
    law = PUBLISHED if temperature is None else temperature
    known = entropy.detach()[~entropy.detach().isnan()]
    if known.numel() == 0:
        return 0.0
    interval = law.active_interval
    if interval is None:
        return 1.0
    return (known >= interval[1]).double().mean().item()


_warned: set[AdaptiveTemperature] = set()


def _warn_if_inactive(entropy: Tensor, empty: Tensor, law: AdaptiveTemperature) -> None:
    """Warn, once a law, that many rows are beyond its reach."""
    if law in _warned:
        return
    try:
        interval = law.active_interval
        if interval is None or interval[1] == math.inf:
            return
        beyond = int((entropy.detach() >= interval[1]).sum())
        rows = int((~empty).sum()) if beyond else 0
    except RuntimeError:  # inside vmap, or with fake tensors, there are no values to look at
        return
    if beyond > INACTIVE_SHARE * rows:
        _warned.add(law)
        warnings.warn(
            f"correction inactive: {beyond} of {rows} attention rows have an entropy above {interval[1]:.4f} "
            "nats, where this law leaves the softmax as it is; fit_temperature fits one that reaches further "
            "(said once a law)",
            CorrectionInactiveWarning,
            stacklevel=3,
        )


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
        the law, with its validation in `fit`. The same input gives the same law: nothing is random.

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
    beta_max = _number("beta_max", beta_max)
    if beta_max <= 1:
        raise ArgumentError("beta_max", "a value above 1", beta_max)
    threshold = _number("threshold", threshold)
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
        tuple(_polyfit(centres, medians, degree)),
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
    found = []
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
        found.append(beta.masked_fill((beta > 1) & (ties >= target), math.nan))
    return torch.cat(found)


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


def _polyfit(x: Tensor, y: Tensor, degree: int) -> list[float]:
    """Least squares of the relative residuals; coefficients from the highest degree to the lowest."""
    scale = x.abs().max()
    powers = torch.vander(x / scale, degree + 1)
    solution = torch.linalg.lstsq(powers / y[:, None], torch.ones_like(y)[:, None], driver="gelsd").solution
    exponents = torch.arange(degree, -1, -1, dtype=x.dtype)
    return [float(value) for value in solution[:, 0] / scale**exponents]


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
