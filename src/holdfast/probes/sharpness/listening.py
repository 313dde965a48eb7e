"""What passes through the attention of a transformers model, while the model runs as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.plain import logits, weights
from holdfast.nn.attention.statistics import RowStatistics, row_statistics
from holdfast.nn.attention.visibility import block
from holdfast.nn.masking import hidden_keys
from holdfast.nn.normalisers import Normaliser


@dataclass(frozen=True)
class MeasuredCall:
    """One call of one layer's attention, and which of its keys are left out of what is measured.

    Arguments:
        call: as transformers made it.
        excluded: keys that the measured distribution is conditional on not being; `None` for none.
    """

    call: AttentionCall
    excluded: Bool[Tensor, "#batch keys"] | None

    @classmethod
    def of(cls, call: AttentionCall, excluded: Bool[Tensor, "#batch slots"] | None) -> MeasuredCall:
        """A call, with what is excluded of all slots of its cache."""
        return cls(call, None if excluded is None else excluded[:, : call.keys])

    def statistics(self) -> tuple[RowStatistics, RowStatistics]:
        """Statistics of every row without the sink, and with it; streamed, without the excluded keys."""
        keys = row_statistics(replace(self._without_excluded(self.call), sinks=None))
        if self.call.sinks is None:
            return keys, keys
        return keys, keys.merge(RowStatistics.of(self._sink_column(keys.top)))

    def last_logits(self, rows: int) -> Float[Tensor, "batch heads rows columns"]:
        """Logits of the last queries, -inf where masked or excluded, the sink in the last column."""
        z = logits(self._without_excluded(self._last(rows)))
        return z if self.call.sinks is None else torch.cat([z, self._sink_column(z[..., 0])], dim=-1)

    def last_weights(self, rows: int, normaliser: Normaliser) -> Float[Tensor, "batch heads rows columns"]:
        """What a normaliser makes of them: it sees all keys, then the excluded ones are taken out of the result."""
        share = weights(replace(self._last(rows), normaliser=normaliser))
        if self.call.sinks is not None:
            share = torch.cat([share, (1 - share.sum(-1, keepdim=True)).clamp(min=0.0)], dim=-1)
        if self.excluded is None:
            return share
        gone = nn.functional.pad(self.excluded, (0, share.shape[-1] - self.excluded.shape[-1]))
        share = share.masked_fill(gone[:, None, None], 0.0)
        return share / share.sum(-1, keepdim=True)

    def norm_bound(self) -> Float[Tensor, "batch heads queries"]:
        """Upper bound on the spread of each row's logits, 2 scale |q| max |k|; NaN where a bias comes on top."""
        if self._is_biased():
            return self.call.query.new_full(self.call.query.shape[:3], math.nan, dtype=torch.float32)
        longest = _longest(self.call.key).repeat_interleave(self.call.query.shape[1] // self.call.key.shape[1], dim=1)
        return 2 * abs(self.call.scale) * _norms(self.call.query) * longest.unsqueeze(-1)

    def weight_bound(self, projections: Projections | None) -> Float[Tensor, "batch heads queries"]:
        """The bound of proposition 3.1, 2 scale sigma(W_q) sigma(W_k) |x| max |x_i|; NaN where it cannot be told.

        Holds where what stands between the projections and the logits keeps norms, as rotary positions do. Whether it
        does is seen from the norms of what arrives.
        """
        unknown = self.call.query.new_full(self.call.query.shape[:3], math.nan, dtype=torch.float32)
        if projections is None or self._is_biased():
            return unknown
        parts = (projections.query, self.call.query), (projections.key, self.call.key)
        if not all(projection is not None and projection.arrives_as(heads) for projection, heads in parts):
            return unknown
        of_query, of_key = cast("tuple[Projection, Projection]", (projections.query, projections.key))
        heads, kv_heads = self.call.query.shape[1], self.call.key.shape[1]
        gain = of_query.gain(heads) * of_key.gain(kv_heads).repeat_interleave(heads // kv_heads)
        longest = _longest(of_key.inputs)
        x = _norms(of_query.inputs)
        return 2 * abs(self.call.scale) * gain[:, None] * (x * longest.unsqueeze(-1)).unsqueeze(1)

    def _last(self, rows: int) -> AttentionCall:
        return block(self.call, max(0, self.call.queries - rows), self.call.queries, 0, self.call.keys)

    def _without_excluded(self, call: AttentionCall) -> AttentionCall:
        """A call whose mask hides the excluded keys too."""
        if self.excluded is None:
            return call
        gone = self.excluded[:, None, None]
        mask = call.mask
        if mask is None:
            mask = ~gone
        else:
            mask = mask & ~gone if mask.dtype == torch.bool else mask.masked_fill(gone, -math.inf)
        return replace(call, mask=mask)

    def _sink_column(self, like: Float[Tensor, "batch heads rows"]) -> Float[Tensor, "batch heads rows 1"]:
        assert self.call.sinks is not None
        return self.call.sinks.to(like.dtype)[:, None, None].expand(*like.shape, 1)

    def _is_biased(self) -> bool:
        mask = self.call.mask
        if mask is None or mask.dtype == torch.bool:
            return False
        return bool((~hidden_keys(mask) & (mask != 0)).any())


@dataclass(frozen=True)
class Projection:
    """One run of a linear layer without bias that makes queries or keys.

    Arguments:
        weight: of the layer.
        inputs: what it was given.
        outputs: what it made of it.
    """

    weight: Float[Tensor, "outputs inputs"]
    inputs: Float[Tensor, "batch time inputs"]
    outputs: Float[Tensor, "batch time outputs"]

    def arrives_as(self, heads: Float[Tensor, "batch heads time dim"]) -> bool:
        """Whether attention gets it head by head with unchanged norms."""
        batch, time, outputs = self.outputs.shape
        if (batch, time) != (heads.shape[0], heads.shape[2]) or outputs % heads.shape[1]:
            return False
        made = _norms(self.outputs.view(batch, time, heads.shape[1], -1).transpose(1, 2))
        rounding = max(1e-4, 4 * torch.finfo(heads.dtype).eps)
        return torch.allclose(made, _norms(heads), rtol=rounding, atol=1e-6, equal_nan=True)

    def gain(self, heads: int) -> Float[Tensor, " heads"]:
        """Largest singular value of each head's rows of the weight; NaN where that is broken."""
        rows = self.weight.double().view(heads, -1, self.weight.shape[1])
        if not bool(rows.isfinite().all()):
            return rows.new_full((heads,), math.nan)
        squared: Tensor = torch.linalg.eigvalsh(rows @ rows.mT)[:, -1]
        return squared.clamp(min=0).sqrt()


@dataclass
class Projections:
    """The latest run of a layer's projections; `None` before there is one."""

    query: Projection | None = None
    key: Projection | None = None


@contextmanager
def projections_seen(model: nn.Module) -> Iterator[dict[int, Projections]]:
    """Keep the latest run of the query and key projections of each layer that has such, by the id of the layer."""
    seen: dict[int, Projections] = {}
    handles = []

    def note(layer: int, part: str, linear: nn.Linear, given: tuple[Any, ...], made: Tensor) -> None:
        if made.ndim == 3:
            setattr(seen.setdefault(layer, Projections()), part, Projection(linear.weight, given[0], made))

    for module in model.modules():
        pair = {"query": getattr(module, "q_proj", None), "key": getattr(module, "k_proj", None)}
        # Exactly a linear layer: what is quantised or adapted is a class of its own, and its weight is not the map.
        if all(type(linear) is nn.Linear and linear.bias is None for linear in pair.values()):
            for part, linear in pair.items():
                assert linear is not None
                handles.append(linear.register_forward_hook(partial(note, id(module), part)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _longest(vectors: Float[Tensor, "*batch count dim"]) -> Float[Tensor, "*batch"]:
    """Largest norm among vectors, without broken ones: those show in the entropy of the rows that see them."""
    return _norms(vectors).nan_to_num(0.0).amax(-1)


def _norms(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Euclidean norms, in float32 or better."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32)).square().sum(-1).sqrt()
