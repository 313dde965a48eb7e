"""A law of adaptive temperature for each layer or head of a transformers model, fitted to the model's own logits.

fit = fit_model_temperature(model, batches, reference=2048)
set_normalisers(model, fit.normalisers)
model.save_pretrained("model")
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.nn import Adaptive, AdaptiveTemperature, ByHead, FitError, Plain, fit_temperature
from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.visibility import block, hidden
from holdfast.nn.fit_temperature import HOLDOUT
from holdfast.probes.replaced_attention import attention_replaced, model_attention, model_implementation
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.probes.sharpness.reading import ROWS, Layers, ModelInputs, forward_arguments, run, sees_no_future, side_of

ABSENT = -1e30
"""Stands in a row for a key that there is not: a finite number, whose weight is exactly 0 at any temperature."""

HeadLogits = dict[int, Float[Tensor, "_ _"]]
"""By size n, rows of one head (rows, n), as `fit_temperature` takes them."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class ModelTemperature:
    """Laws of the heads of a model.

    Arguments:
        laws: by the path of the attention layer, a law for each head; `None` where the fit was refused.
        refusals: likewise, why; `None` where there is a law.
    """

    laws: Mapping[str, tuple[AdaptiveTemperature | None, ...]]
    refusals: Mapping[str, tuple[str | None, ...]]

    @property
    def normalisers(self) -> dict[str, ByHead]:
        """For `set_normalisers`: the law of each head, and the softmax where there is none."""
        return {
            path: ByHead(tuple(Plain() if law is None else Adaptive(law) for law in laws))
            for path, laws in self.laws.items()
        }

    @property
    def fitted(self) -> int:
        """How many heads have a law."""
        return sum(law is not None for laws in self.laws.values() for law in laws)

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return sum(map(len, self.laws.values()))

    def __str__(self) -> str:
        """How many heads have a law, and by which rules the others were refused."""
        rules = Counter(reason for reasons in self.refusals.values() for reason in reasons if reason is not None)
        by_rule = Counter[str]()
        for reason, count in rules.items():
            by_rule[reason.partition(":")[0]] += count
        rest = "".join(f"; {count} keep the softmax: {rule}" for rule, count in by_rule.most_common())
        return f"{self.fitted} of {self.heads} heads have a law{rest}"


def fit_model_temperature(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    reference: int,
    by: Literal["head", "layer"] = "head",
    rows: int = 128,
    degree: int = 4,
    bins: int = 24,
    threshold: float = 0.5,
    beta_max: float = 64.0,
) -> ModelTemperature:
    """Fit a law to each head, or layer, from the logits that the model itself makes of some batches.

    The model runs once over the batches, as it is, and is left so; `set_normalisers` then gives it the laws. Every law
    brings the entropy of rows that see more keys than `reference` down to what it is there, see `fit_temperature`. A
    head in which that does not hold on sequences kept back, or in which nothing is to be sharpened, keeps the softmax.

    No fit can know that a head is meant to average. Compare the model's loss with and without the laws.

    Arguments:
        model: one that asks transformers for its attention, with the attention that it was trained with.
        batches: token numbers (batch, time), or dicts of what the model's forward takes; sequences reach from
            `reference` to the longest wanted. At least four in all: every fourth sequence is kept back.
        reference: number of keys at which the model works as it should, such as its length in training.
        by: whether heads of a layer share a law, fitted to the rows of all.
        rows: rows of each head and size, at least.
        degree: see `fit_temperature`.
        bins: likewise.
        threshold: likewise.
        beta_max: likewise.

    Returns:
        The laws.

    Errors:
        FitError: all fits were refused.
        ArgumentError: see `model_logits`.

    Source: arXiv 2410.01104, section 3, where one law serves all heads.
    """
    if by not in ("head", "layer"):
        raise ArgumentError("by", "head or layer", by)
    logits = model_logits(model, batches, reference=reference, rows=rows)
    laws: dict[str, tuple[AdaptiveTemperature | None, ...]] = {}
    refusals: dict[str, tuple[str | None, ...]] = {}
    errors: list[FitError] = []
    for path, heads in logits.items():
        found: list[tuple[AdaptiveTemperature | None, str | None]] = []
        for given in heads if by == "head" else [_pooled(heads)]:
            try:
                options = {"degree": degree, "bins": bins, "threshold": threshold, "beta_max": beta_max}
                found.append((_fitted(given, reference, options), None))
            except FitError as error:
                errors.append(error)
                found.append((None, f"{error.rule}: {error.detail}"))
        found = found * len(heads) if by == "layer" else found
        laws[path] = tuple(law for law, _ in found)
        refusals[path] = tuple(reason for _, reason in found)
    fit = ModelTemperature(laws, refusals)
    if fit.fitted == 0:
        # What is wrong in most heads says more than that some of them see no more keys than a window has.
        rule, _ = Counter(error.rule for error in errors).most_common(1)[0]
        detail = next(error.detail for error in errors if error.rule == rule)
        raise FitError(rule, f"{fit}; for example: {detail}")
    return fit


def _fitted(logits: HeadLogits, reference: int, options: dict[str, Any]) -> AdaptiveTemperature:
    """A law for rows of some sizes.

    Errors:
        FitError: they cannot have one.
    """
    smallest = min(logits, default=0)
    if smallest not in (reference, reference + 1):  # one more where there is a sink
        raise FitError("range", f"expected rows that see about {reference} keys, got none")
    if len(logits) < 2:
        raise FitError("range", f"expected rows that see more than {reference} keys, got none")
    return fit_temperature(logits, reference=smallest, **options)


def _pooled(heads: tuple[HeadLogits, ...]) -> HeadLogits:
    """Rows of all heads; every fourth one is still of a sequence that is kept back."""
    return {size: torch.cat([head[size] for head in heads]) for size in heads[0]}


def model_logits(
    model: nn.Module, batches: Iterable[Any], *, reference: int, rows: int = 128
) -> dict[str, tuple[HeadLogits, ...]]:
    """Rows of a model's own attention logits, as `fit_temperature` takes them.

    Sizes are `reference` and its doubles. A row of the size `reference` sees more than three quarters of so many keys
    and not more of them, one of another size more than half. Logits are in descending order, a sink of the head among
    them as one key more; places of keys that a row does not have are filled with -1e30, which has no weight at any
    temperature. Every fourth row, which `fit_temperature` keeps back, comes from sequences that give no other rows.

    All is kept in main memory: 4 x `rows` bytes for each head and key of all sizes. The model runs without gradient and
    dropout, and is left as it was.

    Arguments:
        model: one that asks transformers for its attention.
        batches: token numbers (batch, time), or dicts of what the model's forward takes.
        reference: the smallest size.
        rows: rows of each head and size, at least, where sequences are long enough.

    Returns:
        By the path of the attention layer, rows of each head by size; sizes without four rows are left out.

    Errors:
        ArgumentError: the model computes its attention without asking, fewer than four sequences, or what it takes not.
    """
    count_of("reference", reference, least=2)
    count_of("rows", rows, least=HOLDOUT)
    read = [forward_arguments(model, *_arguments(batch)) for batch in batches]
    given = [ModelInputs.of(model, values, 0) for values in read]
    numbers = [_sequences(values) for values in read]
    if sum(numbers) < HOLDOUT:
        raise ArgumentError("batches", f"at least {HOLDOUT} sequences, of which one is kept back", sum(numbers))
    implementation = model_implementation(model)
    taken = _Taken(reference, -(-rows // sum(numbers)))
    with torch.no_grad(), random_state_kept(), evaluating(model):
        for inputs, number in zip(given, numbers, strict=True):
            _take(model, implementation, inputs, taken)
            taken.sequences += number
    if not taken.heads:
        raise ArgumentError("model", "one that asks transformers for its attention", type(model).__name__)
    return taken.by_head()


def _arguments(batch: Any) -> tuple[Tensor | None, None, Mapping[str, Any] | None]:
    """A batch as tokens, no mask and other inputs."""
    if isinstance(batch, Tensor):
        return batch, None, None
    if isinstance(batch, Mapping):
        return None, None, {name: value for name, value in batch.items() if name != "labels"}
    raise ArgumentError("batches", "tensors of token numbers, or dicts", type(batch).__name__)


def _sequences(values: Mapping[str, Any]) -> int:
    return next(len(value) for value in values.values() if isinstance(value, Tensor))


@dataclass
class _Taken:
    """Rows taken so far.

    Arguments:
        reference: the smallest size.
        each: rows of a sequence and size.
        sequences: how many were read.
        heads: by path, how many there are.
        rows: by path and size, rows (heads, n) with the number of their sequence.
    """

    reference: int
    each: int
    sequences: int = 0
    heads: dict[str, int] = field(default_factory=dict)
    rows: dict[str, dict[int, list[tuple[int, Tensor]]]] = field(default_factory=dict)

    def size_of(self, visible: int) -> int | None:
        """The size that a row with so many keys is of."""
        if visible <= self.reference:
            return self.reference if 4 * visible > 3 * self.reference else None
        return self.reference << math.ceil(math.log2(visible / self.reference))

    def add(self, path: str, call: AttentionCall, visible: Int[Tensor, "batch queries"]) -> None:
        """Rows of a call, of which some see nothing that counts."""
        self.heads[path] = call.query.shape[1]
        places = self.rows.setdefault(path, {})
        wanted: dict[int, list[tuple[int, int]]] = {}
        for sequence, counts in enumerate(visible.tolist()):
            by_size: dict[int, list[int]] = {}
            for query, count in enumerate(counts):
                size = self.size_of(count)
                if size is not None:
                    by_size.setdefault(size, []).append(query)
            for size, queries in by_size.items():
                for query in _spread(queries, self.each):
                    wanted.setdefault(query, []).append((sequence, size))
        for query, uses in wanted.items():
            z = plain.logits(block(call, query, query + 1, 0, call.keys)).squeeze(2)
            if call.sinks is not None:
                z = torch.cat([z, call.sinks.to(z.dtype)[None, :, None].expand(*z.shape[:2], 1)], -1)
            z = z.sort(-1, descending=True).values
            for sequence, size in uses:
                width = size + (call.sinks is not None)
                row = z.new_full((z.shape[1], width), ABSENT)
                seen = z[sequence, :, :width]
                row[:, : seen.shape[-1]] = seen.masked_fill(seen == -math.inf, ABSENT)
                places.setdefault(width, []).append((self.sequences + sequence, row.cpu()))

    def by_head(self) -> dict[str, tuple[HeadLogits, ...]]:
        """Three rows to fit to, then one of a sequence that is kept back, and so on."""
        return {path: self._of_layer(places, self.heads[path]) for path, places in self.rows.items()}

    def _of_layer(self, places: dict[int, list[tuple[int, Tensor]]], heads: int) -> tuple[HeadLogits, ...]:
        whole = {}
        for size, rows in sorted(places.items()):
            kept = [row for sequence, row in rows if sequence % HOLDOUT == HOLDOUT - 1]
            used = [row for sequence, row in rows if sequence % HOLDOUT != HOLDOUT - 1]
            groups = min(len(kept), len(used) // (HOLDOUT - 1))
            if groups:
                fitted = _spread(used, groups * (HOLDOUT - 1))
                held = _spread(kept, groups)
                ordered = [
                    row
                    for group in range(groups)
                    for row in (*fitted[group * (HOLDOUT - 1) : (group + 1) * (HOLDOUT - 1)], held[group])
                ]
                whole[size] = torch.stack(ordered, 1)
        return tuple({size: rows[head] for size, rows in whole.items()} for head in range(heads))


def _spread(values: list[Item], count: int) -> list[Item]:
    """So many of some values, evenly spaced; all where there are no more."""
    if len(values) <= count:
        return values
    return [values[len(values) * place // count] for place in range(count)]


def _take(model: nn.Module, implementation: str, given: ModelInputs, taken: _Taken) -> None:
    """Run the model over a batch with its own attention, and take rows of the logits that pass."""
    layers = Layers(model)
    with ExitStack() as stack:
        stack.enter_context(layers.watched(model))

        def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
            with full_precision(query.device):
                call = AttentionCall.of_transformers(module, query, key, None, mask, **options)
                cross = layers.is_cross(module, query, key)
                part = "cross" if cross else "decoder" if sees_no_future(call) else "encoder"
                kept = given.kept(side_of(part, "query", given), query.shape[0], query.shape[2], query.device)
                name = layers.names.get(id(module), type(module).__name__)
                taken.add(name, call, _visible(call).masked_fill(~kept, 0))
            return model_attention(module, implementation)(module, query, key, value, mask, **options)

        stack.enter_context(attention_replaced(model, attend, implementation))
        run(model, given)


def _visible(call: AttentionCall) -> Int[Tensor, "batch queries"]:
    """How many keys each query sees, the most of any head."""
    counts = []
    for start in range(0, call.queries, ROWS):
        part = block(call, start, min(call.queries, start + ROWS), 0, call.keys)
        unseen = hidden(part)
        if unseen is None:
            unseen = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=call.query.device)
        shape = (call.query.shape[0], unseen.shape[1], part.queries, part.keys)
        counts.append((~unseen).expand(shape).sum(-1).amax(1))
    return torch.cat(counts, 1)
