"""Adaptive temperature: sharpen an attention row by as much as its own entropy asks for.

The rule (arXiv 2410.01104, section 3 and figure 4), for one row of logits z with p = softmax(z):

    H = Shannon entropy of p, in nats
    beta = 1 if H <= threshold else max(1, polyval(coefficients, H))
    weights = softmax(beta z)

beta is an *inverse* temperature, and the coefficients run from the highest degree to the lowest.
The published polynomial was fitted to one small model; `holdfast.nn.fit_temperature` fits a law to yours, and
`holdfast.nn.adaptive_softmax` applies one.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError

PUBLISHED_COEFFICIENTS = (-0.037, 0.481, -2.3, 4.917, -1.791)
"""beta = -0.037 H⁴ + 0.481 H³ - 2.3 H² + 4.917 H - 1.791 (arXiv 2410.01104, figure 4)."""

FORMAT = "holdfast.adaptive_temperature"
VERSION = 1


def finite_number(name: str, value: object) -> float:
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
        threshold = finite_number("threshold", self.threshold)
        if threshold < 0:
            raise ArgumentError("threshold", "an entropy in nats, at least 0", threshold)
        beta_min = finite_number("beta_min", self.beta_min)
        if beta_min <= 0:
            raise ArgumentError("beta_min", "a value above 0", beta_min)
        beta_max = None if self.beta_max is None else finite_number("beta_max", self.beta_max)
        if beta_max is not None and beta_max < beta_min:
            raise ArgumentError("beta_max", f"at least beta_min = {beta_min}", beta_max)
        span = self.entropy_range
        if span is not None:
            if not isinstance(span, tuple | list) or len(span) != 2:
                raise ArgumentError("entropy_range", "a pair (low, high) of entropies in nats", span)
            low, high = (finite_number("entropy_range", value) for value in span)
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
    roots = [root for root in _real_roots(law.coefficients, 1.0) if low < root < high]
    breaks = sorted({edge for edge in (0.0, law.threshold, low, high, *roots) if 0 <= edge < math.inf})
    looks = [(a + b) / 2 for a, b in pairwise(breaks)] + [breaks[-1] + 1.0]
    beta = law.beta(torch.tensor(looks, dtype=torch.float64, device="cpu")).tolist()
    stretches = list(zip(breaks, [*breaks[1:], math.inf], strict=True))
    active = [stretch for stretch, value in zip(stretches, beta, strict=True) if value != 1.0]
    return (active[0][0], active[-1][1]) if active else None


def _real_roots(coefficients: tuple[float, ...], level: float) -> list[float]:
    """The real numbers H at which polyval(coefficients, H) = level."""
    roots = np.roots([*coefficients[:-1], coefficients[-1] - level])
    # A root of even order may come out as a pair with a tiny imaginary part.
    return sorted(float(root.real) for root in roots if abs(root.imag) <= 1e-6 * (1 + abs(root.real)))
