"""What the bench of costs times: training, statistics and decoding, each checked against float64 before it is timed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from holdfast.benches.harness.timing import Arm
from holdfast.benches.sharpness.arms import ROWS
from holdfast.nn import Adaptive, LogN, Normaliser, Plain, adaptive_attention, attention_statistics, attention_weights
from holdfast.nn.softmax import CorrectionInactiveWarning

TOLERANCE = 1e-4
"""Distance from float64, relative, in the 2-norm, above which an arm is not timed."""

NORMALISERS: dict[str, Normaliser] = {"plain": Plain(), "log-n": LogN(64), "adaptive": Adaptive()}


@dataclass(frozen=True)
class Subject:
    """Arms that do one thing on the same inputs; the peer is `sdpa`.

    Arguments:
        name: what they do.
        arms: what may be timed.
        errors: distance of each of ours from float64, relative, in the 2-norm over the rows looked at.
        aims: what each of ours may take, in times of the peer.
    """

    name: str
    arms: Mapping[str, Arm]
    errors: Mapping[str, float]
    aims: Mapping[str, float]

    @property
    def wrong(self) -> tuple[str, ...]:
        """Arms that are too far from float64."""
        return tuple(name for name, error in self.errors.items() if not error <= TOLERANCE)

    @property
    def right(self) -> dict[str, Arm]:
        """The other ones, which may be timed."""
        return {name: arm for name, arm in self.arms.items() if name not in self.wrong}


def training(tokens: int, heads: int, head_dim: int, causal: bool, device: str) -> Subject:
    """Forward and backward of one sequence."""
    query, key, value, gradient = _tensors(4, (1, heads, tokens, head_dim), device)
    tensors = [tensor.requires_grad_() for tensor in (query, key, value)]
    rows = torch.linspace(0, tokens - 1, min(ROWS, tokens), device=device).long()
    of_rows = torch.zeros_like(gradient)  # what all other queries add to the gradients of keys and values is nothing
    of_rows[:, :, rows] = gradient[:, :, rows]

    def through(attend: Callable[[], Tensor], outer: Tensor) -> Callable[[], list[Tensor]]:
        return lambda: list(torch.autograd.grad(attend(), tensors, outer))

    def ours(normaliser: Normaliser) -> Callable[[], Tensor]:
        return lambda: adaptive_attention(query, key, value, causal=causal, normaliser=normaliser)

    def sdpa() -> Tensor:
        return scaled_dot_product_attention(query, key, value, is_causal=causal)

    errors = {}
    for name, normaliser in NORMALISERS.items():
        exact = _gradients_of_rows(tensors, rows, gradient[:, :, rows], causal, normaliser)
        with _quiet():
            errors[name] = max(map(_distance, through(ours(normaliser), of_rows)(), exact))
    arms = {"sdpa": Arm(through(sdpa, gradient), _quiet)}
    arms |= {name: Arm(through(ours(each), gradient), _quiet) for name, each in NORMALISERS.items()}
    return Subject("train", arms, errors, {"plain": 1.2, "log-n": 1.2, "adaptive": 1.8})


def statistics(tokens: int, heads: int, head_dim: int, causal: bool, device: str) -> Subject:
    """The entropy of all rows of one sequence, and all statistics of theirs, beside a forward pass."""
    query, key, value = _tensors(3, (1, heads, tokens, head_dim), device)
    rows = torch.linspace(0, tokens - 1, min(ROWS, tokens), device=device).long()

    def entropy() -> Tensor:
        return attention_statistics(query, key, causal=causal).entropy

    def everything() -> Tensor:
        row = attention_statistics(query, key, causal=causal)
        return torch.stack([row.entropy, row.logsumexp, row.largest, row.spread, row.visible.to(query.dtype)], -1)

    logits = query[:, :, rows].double() @ key.double().mT * head_dim**-0.5
    unseen = torch.zeros(len(rows), tokens, dtype=torch.bool, device=device)
    if causal:
        unseen = torch.arange(tokens, device=device) > rows[:, None]
    low, high = (logits.masked_fill(unseen, fill) for fill in (torch.inf, -torch.inf))
    log_weights = high.log_softmax(-1)
    exact = [
        -(log_weights.exp() * log_weights.masked_fill(unseen, 0.0)).sum(-1),
        high.logsumexp(-1),
        log_weights.exp().amax(-1),
        high.amax(-1) - low.amin(-1),
        (~unseen).sum(-1).expand(logits.shape[:3]).double(),
    ]
    columns = everything()[:, :, rows].unbind(-1)
    errors = {
        "entropy": _distance(entropy()[:, :, rows], exact[0]),
        "everything": max(map(_distance, columns, exact)),
    }
    arms = {
        "sdpa": Arm(lambda: scaled_dot_product_attention(query, key, value, is_causal=causal)),
        "entropy": Arm(entropy),
        "everything": Arm(everything),
    }
    return Subject("statistics", arms, errors, {"entropy": 1.5, "everything": 4.0})


def decoding(keys: int, batch: int, heads: int, head_dim: int, device: str) -> Subject:
    """One new token of each sequence of a batch."""
    (query,) = _tensors(1, (batch, heads, 1, head_dim), device)
    key, value = _tensors(2, (batch, heads, keys, head_dim), device)

    def ours(normaliser: Normaliser) -> Callable[[], Tensor]:
        return lambda: adaptive_attention(query, key, value, causal=True, normaliser=normaliser)

    errors = {}
    for name, normaliser in NORMALISERS.items():
        weights = attention_weights(query.double(), key.double(), normaliser=normaliser)
        errors[name] = _distance(ours(normaliser)(), weights @ value.double())
    arms = {"sdpa": Arm(lambda: scaled_dot_product_attention(query, key, value))}
    arms |= {name: Arm(ours(normaliser), _quiet) for name, normaliser in NORMALISERS.items()}
    return Subject("decode", arms, errors, dict.fromkeys(NORMALISERS, 2.0))


def _tensors(count: int, shape: tuple[int, ...], device: str) -> list[Tensor]:
    """Normally distributed numbers in float32, always the same for the same shape, on any device."""
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(shape, generator=generator).to(device) for _ in range(count)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without a word about rows at which the law cannot act."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorrectionInactiveWarning)
        yield


def _gradients_of_rows(
    tensors: list[Tensor], rows: Tensor, gradient: Tensor, causal: bool, normaliser: Normaliser
) -> list[Tensor]:
    """Gradients in float64 by the formula, of some rows, as if there were no others."""
    query, key, value = (tensor.detach().double() for tensor in tensors)
    keys = key.shape[2]
    visible = torch.ones(len(rows), keys, dtype=torch.bool, device=rows.device)
    if causal:
        visible = torch.arange(keys, device=rows.device) <= rows[:, None]
    asked = [tensor.requires_grad_() for tensor in (query[:, :, rows], key, value)]
    weights = attention_weights(*asked[:2], mask=visible, normaliser=normaliser)
    of_asked, of_key, of_value = torch.autograd.grad(weights @ asked[2], asked, gradient.double())
    of_query = torch.zeros_like(query)
    of_query[:, :, rows] = of_asked
    return [of_query, of_key, of_value]


def _distance(answer: Tensor, exact: Tensor) -> float:
    """Relative, in the 2-norm."""
    difference = torch.linalg.vector_norm(answer.detach().double() - exact.detach())
    return float(difference / torch.linalg.vector_norm(exact.detach()))
