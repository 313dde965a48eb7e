"""Attention with an adaptive temperature, or any other normaliser, in memory that grows with the keys only.

The temperature of a row depends on the whole row, so that every row is seen twice: once for its entropy, once for
its weights. Where keys are only hidden or not, a CPU does that in two calls of PyTorch's fused attention; otherwise
queries are taken a few at a time, and the logits of those few are kept between the two passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from holdfast.errors import ArgumentError, count_of
from holdfast.nn import kernels
from holdfast.nn._fused import fused_attention
from holdfast.nn._visibility import Options, cut_mask, full_mask, hidden_and_added, mask_of_head
from holdfast.nn.normalisers import Adaptive, FactorNormaliser, Normaliser, Plain, Rows, SSMax, hidden_keys
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

CHUNK = 1 << 22
"""Logits that are worked on at once, 16 MiB in float32: enough rows for a fast product, few enough for the cache."""

DIRECT = 1 << 24
"""Up to this many logits, 64 MiB in float32, all heads are done at once; above, a chunk at a time, and a backward
pass computes each chunk again."""

STREAMED = 1 << 16
"""From this many logits a head a CPU works a chunk at a time where no gradient is wanted, in memory that it has
already: several times faster than all at once, which spends most of its time on fresh memory."""

FUSED = 64
"""From this many queries on PyTorch's fused kernel is used where it can be; for fewer, its preparations cost more."""

MASKED = -1e30
"""Stands for a masked logit where -inf would meet a factor of zero; its exponential is zero all the same."""


def adaptive_attention(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    temperature: AdaptiveTemperature | Normaliser | None = None,
    detach: bool = True,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Attention whose weights are sharpened, row by row, by as much as their entropy asks for.

    Memory is a few chunks of logits, or a few copies of the inputs: a full table of scores is never made. Statistics
    are in float32 or better whatever the inputs. On a CPU, without gradient, additive mask, softcap and sinks,
    PyTorch's fused attention does the work, in two calls for a law. With `HOLDFAST_KERNELS=triton` in the environment
    the Triton kernel of `holdfast.nn.kernels` computes what it takes: no mask, sinks and gradient, and a law or the
    plain softmax.

    Arguments:
        query: of float16, bfloat16, float32 or float64.
        key: `kv_heads` divides `heads`; each key head serves that many query heads in turn (GQA). Not repeated.
        value: as `key`.
        mask: broadcasts to (batch, heads, queries, keys): bool, True = visible, or additive in a floating dtype
            (-inf, or at most half the dtype's lowest value, hides).
        causal: a query sees no key after it; the last query stands at the last key.
        scale: of the products; 1 / sqrt(dim) unless given.
        softcap: logits become softcap x tanh(logit / softcap), before mask and temperature.
        window: a query sees keys less than this many positions away.
        sinks: a logit for each head that takes part in the softmax, its entropy and its temperature, and has no value.
        temperature: a law, or any `Normaliser`; `None`: the published law.
        detach: treat the law's temperature as a constant in the backward pass. For a `Normaliser` it says so itself.

    Returns:
        The output, in the dtype of `query`; zeros for a query without a visible key. NaN stays in its rows: one in a
        query makes that row NaN, one (or an infinity) in a key or value reaches no row that does not see that key. (Of
        values the Triton kernel does not look: there it may reach the rows next to one that sees it.)

    Errors:
        ArgumentError: shapes, dtypes or options that do not fit.

    Source: arXiv 2410.01104, section 3.
    """
    options = _checked(query, key, value, mask, causal, scale, softcap, window, sinks)
    normaliser = _normaliser(temperature, detach, query.shape[1])
    batch, heads, queries, _ = query.shape
    if mask is None and sinks is None and isinstance(normaliser, Plain | Adaptive):
        law = normaliser.temperature if isinstance(normaliser, Adaptive) else None
        if kernels.opted_in(query, key, value, temperature=law):
            return kernels.attention(
                query, key, value, causal=causal, scale=scale, softcap=softcap, window=window, temperature=law
            )
    needs_grad = torch.is_grad_enabled() and any(
        each is not None and each.requires_grad for each in (query, key, value, mask, sinks)
    )
    cpu = not needs_grad and query.device.type == "cpu" and _readable(query, key, value, mask, sinks)
    only_hides = softcap is None and sinks is None and (mask is None or mask.dtype == torch.bool)
    if cpu and only_hides and queries >= FUSED and isinstance(normaliser, FactorNormaliser):
        fused = fused_attention(query, key, value, mask=mask, normaliser=normaliser, options=options)
        if fused is not None:
            return fused.to(query.dtype)
    groups = heads // key.shape[1]
    streamed = cpu and queries * options.keys >= STREAMED
    if not streamed and batch * heads * queries * options.keys <= DIRECT:
        weights = _weights(query, key, mask, sinks, normaliser, options)
        grouped = weights.reshape(batch, key.shape[1], groups * queries, options.keys)
        v = value.to(weights.dtype)
        hides = mask is not None or window is not None or (causal and queries > 1)
        weigh = torch.matmul if not hides else _output if cpu else _weigh
        output = weigh(grouped, v)
        return output.reshape(batch, heads, queries, value.shape[-1]).to(query.dtype)
    output = query.new_zeros(batch, heads, queries, value.shape[-1])
    parts: list[Tensor] = []
    scratch = () if needs_grad else _scratch(options, query)
    for b in range(batch):
        for head in range(heads):
            k, v = key[b, head // groups], value[b, head // groups]
            own_mask = None if mask is None else mask_of_head(mask, b, head)
            sink = None if sinks is None else sinks[head]
            wide = _wide(query.dtype)
            if not needs_grad:
                k, v = k.to(wide), v.to(wide)
            own = _for_head(normaliser, head)
            for start, stop in _chunks(options):
                low, high = options.span(start, stop)
                if low == high and sink is None:
                    parts.append(output[b, head, start:stop])
                    continue
                part = None if own_mask is None else cut_mask(own_mask, start, stop, low, high)
                chunk = (query[b, head, start:stop], k[low:high], v[low:high], part, sink, start, low)
                if not needs_grad:
                    output[b, head, start:stop] = _fast(*chunk, own, options, scratch)
                else:
                    parts.append(checkpoint(_whole, *chunk, own, options, use_reentrant=False))
    if needs_grad:
        return torch.cat(parts).view(batch, heads, queries, -1)
    return output


def attention_weights(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    temperature: AdaptiveTemperature | Normaliser | None = None,
    detach: bool = True,
) -> Float[Tensor, "batch heads queries keys"]:
    """The weights of `adaptive_attention`, written down plainly, with all scores in memory.

    Arguments:
        query: as in `adaptive_attention`, like the other arguments.
        key: likewise.
        mask: likewise.
        causal: likewise.
        scale: likewise.
        softcap: likewise.
        window: likewise.
        sinks: likewise; their weight is left out, so that rows may sum to less than one.
        temperature: likewise.
        detach: likewise.

    Returns:
        The weights, in float32 or better.
    """
    options = _checked(query, key, key, mask, causal, scale, softcap, window, sinks)
    normaliser = _normaliser(temperature, detach, query.shape[1])
    return _weights(query, key, mask, sinks, normaliser, options)


@dataclass(frozen=True)
class RowStatistics:
    """What one pass over a row's logits tells, in pieces that can be merged.

    Arguments:
        top: largest visible logit, m; -inf without any.
        total: s = sum of exp(z - m).
        moment: t = sum of (z - m) exp(z - m), on shifted logits, which large offsets do not hurt.
        least: smallest visible logit; inf without any.
        visible: number of visible keys.

    Source: the streaming form of the entropy, H = ln s - t / s.
    """

    top: Float[Tensor, "batch heads queries"]
    total: Float[Tensor, "batch heads queries"]
    moment: Float[Tensor, "batch heads queries"]
    least: Float[Tensor, "batch heads queries"]
    visible: Int[Tensor, "batch heads queries"]

    @classmethod
    def of(cls, logits: Float[Tensor, "batch heads queries keys"]) -> RowStatistics:
        """Statistics of a block of logits, -inf where masked; a block may be empty or wholly masked."""
        hidden = hidden_keys(logits)
        z = logits.to(_wide(logits.dtype))
        if z.shape[-1] == 0:
            zero = z.sum(-1)
            return cls(zero - math.inf, zero, zero, zero + math.inf, zero.long())
        top = z.masked_fill(hidden, -math.inf).amax(-1)
        finite = top.masked_fill(top == -math.inf, 0.0)
        shifted = (z - finite.unsqueeze(-1)).masked_fill(hidden, 0.0)
        weight = shifted.exp().masked_fill(hidden, 0.0)
        return cls(
            top,
            weight.sum(-1),
            (shifted * weight).sum(-1),
            z.masked_fill(hidden, math.inf).amin(-1),
            (~hidden).sum(-1),
        )

    def merge(self, other: RowStatistics) -> RowStatistics:
        """Statistics of both blocks together; in any order, and exact."""
        top = torch.maximum(self.top, other.top)
        total, moment = torch.zeros_like(top), torch.zeros_like(top)
        for part in (self, other):
            # A block without a visible key has a top of -inf: it weighs nothing, and must not give inf x 0.
            fall = torch.where(part.top == -math.inf, 0.0, part.top - top)
            factor = torch.where(part.top == -math.inf, 0.0, fall.exp())
            total = total + factor * part.total
            moment = moment + factor * (part.moment + fall * part.total)
        return RowStatistics(top, total, moment, torch.minimum(self.least, other.least), self.visible + other.visible)

    @property
    def entropy(self) -> Float[Tensor, "batch heads queries"]:
        """Shannon entropy in nats; 0 for a row without a visible key."""
        total = self.total.masked_fill(self.visible == 0, 1.0)
        return total.log() - self.moment / total

    @property
    def logsumexp(self) -> Float[Tensor, "batch heads queries"]:
        """Logarithm of the sum of exp(z); -inf for a row without a visible key."""
        return self.top + self.total.log()

    @property
    def largest(self) -> Float[Tensor, "batch heads queries"]:
        """Largest weight; 0 for a row without a visible key."""
        return torch.where(self.visible == 0, 0.0, 1 / self.total)

    @property
    def spread(self) -> Float[Tensor, "batch heads queries"]:
        """Largest minus smallest visible logit, in nats; 0 for a row without a visible key."""
        return torch.where(self.visible == 0, 0.0, self.top - self.least)


def attention_statistics(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    block: int = 1024,
) -> RowStatistics:
    """Statistics of every attention row, streamed over blocks of keys; what no query sees is not computed.

    Arguments:
        query: as in `adaptive_attention`, like the other arguments it shares with it.
        key: likewise.
        mask: likewise.
        causal: likewise.
        scale: likewise.
        softcap: likewise.
        window: likewise.
        sinks: likewise; a sink counts as a visible key.
        block: keys at a time. Queries are taken a few at a time too, so that memory does not grow with both.

    Returns:
        The statistics, in float32 or better.
    """
    options = _checked(query, key, key, mask, causal, scale, softcap, window, sinks)
    batch, heads, queries, _ = query.shape
    wide = _wide(query.dtype)
    position = _queries(options, query)
    step = max(1, CHUNK // (batch * heads * min(block, options.keys)))
    parts = []
    for first in range(0, queries, step):
        last = min(queries, first + step)
        rows = query[:, :, first:last].to(wide)
        found = RowStatistics.of(rows.new_zeros(*rows.shape[:3], 0))
        low, high = options.span(first, last)
        for start in range(low // block * block, high, block):
            stop = min(options.keys, start + block)
            products = _products(rows, key[:, :, start:stop].to(wide))
            seen = Rows(position[first:last], torch.arange(start, stop, device=query.device))
            part = None if mask is None else cut_mask(full_mask(mask), first, last, start, stop)
            found = found.merge(RowStatistics.of(_logits(products, part, seen, options)))
        if sinks is not None:
            found = found.merge(RowStatistics.of(sinks.to(wide)[:, None, None].expand(*rows.shape[:3], 1)))
        parts.append(found)
    return RowStatistics(*(torch.cat([getattr(part, each.name) for part in parts], -1) for each in fields(parts[0])))


def _normaliser(temperature: Any, detach: bool, heads: int) -> Normaliser:
    if isinstance(temperature, Normaliser):
        if isinstance(temperature, SSMax) and isinstance(temperature.scale, tuple) and len(temperature.scale) != heads:
            raise ArgumentError("temperature", f"a scale for each of {heads} heads", f"{len(temperature.scale)} scales")
        return temperature
    if temperature is not None and not isinstance(temperature, AdaptiveTemperature):
        raise ArgumentError("temperature", "an AdaptiveTemperature, a Normaliser or None", repr(temperature))
    return Adaptive(PUBLISHED if temperature is None else temperature, detach)


def _readable(*tensors: Tensor | None) -> bool:
    """Whether values decide how to compute, without derivatives: not where a function is traced or transformed.

    That is inside `compile`, `jit.trace`, `vmap` and forward-mode differentiation, and with fake or empty tensors.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or torch.autograd.forward_ad._current_level >= 0:
        return False
    try:
        for each in tensors:
            if each is not None:
                bool(each[(0,) * each.ndim])
    except (RuntimeError, IndexError):
        return False
    return True


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _queries(options: Options, like: Tensor) -> Int[Tensor, " query"]:
    return torch.arange(options.offset, options.keys, device=like.device)


def _check_tensors(query: Any, **others: Any) -> None:
    """Refuse what is no tensor, stands elsewhere or has too few dimensions."""
    for name, each in {"query": query, **others}.items():
        if each is None and name in ("mask", "sinks"):
            continue
        if not isinstance(each, Tensor):
            raise ArgumentError(name, "a tensor", type(each).__name__)
        if each.device != query.device:
            raise ArgumentError(name, f"a tensor on {query.device}, where query is", f"one on {each.device}")
        if each.ndim != 4 and name in ("query", "key", "value"):
            raise ArgumentError(name, "four dimensions (batch, heads, tokens, width)", f"shape {tuple(each.shape)}")


def _checked(
    query: Any, key: Any, value: Any, mask: Any, causal: bool, scale: Any, softcap: Any, window: Any, sinks: Any
) -> Options:
    """Refuse what does not fit together."""
    _check_tensors(query=query, key=key, value=value, mask=mask, sinks=sinks)
    for name, number in (("scale", scale), ("softcap", softcap)):
        if number is not None and not isinstance(number, Real | torch.SymFloat):
            raise ArgumentError(name, "a number", repr(number))
    batch, heads, queries, dim = query.shape
    if not query.is_floating_point():
        raise ArgumentError("query", "a floating-point dtype", str(query.dtype))
    if key.dtype != query.dtype or value.dtype != query.dtype:
        raise ArgumentError("key, value", f"the dtype of query, {query.dtype}", f"{key.dtype}, {value.dtype}")
    if key.shape[0] != batch or key.shape[3] != dim or heads % key.shape[1]:
        raise ArgumentError(
            "key", f"shape (batch {batch}, a divisor of {heads} heads, keys, dim {dim})", f"shape {tuple(key.shape)}"
        )
    if value.shape[:3] != key.shape[:3]:
        raise ArgumentError("value", f"shape {tuple(key.shape[:3])} + (value_dim,)", f"shape {tuple(value.shape)}")
    keys = key.shape[2]
    if keys == 0 or queries == 0:
        raise ArgumentError("key, query", "at least one key and one query", f"{keys} keys, {queries} queries")
    if mask is not None:
        full = (batch, heads, queries, keys)
        pairs = zip(reversed(mask.shape), reversed(full), strict=False)
        if mask.ndim > 4 or not all(have in (1, want) for have, want in pairs):
            raise ArgumentError("mask", f"a shape that broadcasts to {full}", f"shape {tuple(mask.shape)}")
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise ArgumentError("mask", "bool (True = visible) or additive floats", str(mask.dtype))
    if softcap is not None and not softcap > 0:
        raise ArgumentError("softcap", "a positive number", softcap)
    if window is not None:
        count_of("window", window, least=1)
    if sinks is not None and sinks.shape != (heads,):
        raise ArgumentError("sinks", f"shape ({heads},)", f"shape {tuple(sinks.shape)}")
    return Options(causal, window, dim**-0.5 if scale is None else scale, softcap, queries, keys)


def _chunks(options: Options) -> Iterator[tuple[int, int]]:
    step = max(1, min(options.queries, CHUNK // options.keys))
    for start in range(0, options.queries, step):
        yield start, min(options.queries, start + step)


def _scratch(options: Options, query: Tensor) -> tuple[Tensor, Tensor]:
    """Room for two chunks of logits: made once, for fresh memory costs more than the arithmetic on it."""
    size = min(options.queries, max(1, CHUNK // options.keys)) * options.keys
    room = torch.empty(2, size, dtype=_wide(query.dtype), device=query.device)
    return room[0], room[1]


def _for_head(normaliser: Normaliser, head: int) -> Normaliser:
    """A normaliser with one number a head, for one head."""
    if isinstance(normaliser, SSMax) and isinstance(normaliser.scale, tuple):
        return replace(normaliser, scale=normaliser.scale[head])
    return normaliser


def _products(
    query: Float[Tensor, "batch heads queries dim"], key: Float[Tensor, "batch kv_heads keys dim"]
) -> Float[Tensor, "batch heads queries keys"]:
    """Products of all queries with the keys of their head; no key head is repeated for the queries that share it."""
    batch, heads, queries, dim = query.shape
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1] * queries, dim)
    return (grouped @ key.mT).view(batch, heads, queries, key.shape[2])


def _logits(
    products: Float[Tensor, "*batch query key"], mask: Tensor | None, rows: Rows, options: Options
) -> Float[Tensor, "*batch query key"]:
    """Logits, -inf where hidden, of products of queries and keys; `mask` is cut to them."""
    z = products * options.scale
    if options.softcap is not None:
        z = options.softcap * torch.tanh(z / options.softcap)
    hidden, added = hidden_and_added(mask, rows, options)
    if added is not None:
        z = z + added.to(z.dtype)
    # What is hidden stays hidden, whatever the logit.
    return z if hidden is None else z.masked_fill(hidden, -math.inf)


def _weights(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    mask: Tensor | None,
    sinks: Float[Tensor, " heads"] | None,
    normaliser: Normaliser,
    options: Options,
) -> Float[Tensor, "batch heads queries keys"]:
    """All weights at once."""
    wide = _wide(query.dtype)
    rows = Rows(_queries(options, query), torch.arange(options.keys, device=query.device))
    z = _logits(_products(query.to(wide), key.to(wide)), mask, rows, options)
    if sinks is not None:
        z, rows = _with_sink(z, sinks[:, None, None], rows)
    return normaliser.weights(z, rows)[..., : options.keys]


def _with_sink(z: Float[Tensor, "*batch query key"], sink: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
    """Logits with a column for the sink, which stands nowhere."""
    z = torch.cat([z, sink.to(z.dtype).expand(*z.shape[:-1], 1)], dim=-1)
    return z, Rows(rows.query, torch.cat([rows.key, rows.key.new_zeros(1)]), sink=True)


def _weigh(
    weights: Float[Tensor, "*batch query key"], value: Float[Tensor, "*batch key value_dim"]
) -> Float[Tensor, "*batch query value_dim"]:
    """Weighted sum of the values, where NaN and infinity count only if they have weight, and 0 x NaN is 0.

    A row that gives weight to one is NaN. Nothing is looked up, so that `vmap` and `compile` can follow.
    """
    # One more column carries how much weight goes to what is not finite, for one product costs less than two.
    broken = (~(value @ value.new_full((value.shape[-1], 1), 1e-30)).isfinite()).to(value.dtype)
    output = weights @ torch.cat([value.nan_to_num(0.0, 0.0, 0.0), broken], dim=-1)
    return output[..., :-1].masked_fill(output[..., -1:] > 0, math.nan)


def _rows(query: Tensor, key: Tensor, start: int, low: int, options: Options) -> Rows:
    first = options.offset + start
    return Rows(
        torch.arange(first, first + len(query), device=query.device),
        torch.arange(low, low + len(key), device=query.device),
    )


def _whole(
    query: Float[Tensor, "queries dim"],
    key: Float[Tensor, "keys dim"],
    value: Float[Tensor, "keys value_dim"],
    mask: Tensor | None,
    sink: Tensor | None,
    start: int,
    low: int,
    normaliser: Normaliser,
    options: Options,
) -> Float[Tensor, "queries value_dim"]:
    """One chunk of queries of one head, in operations that have gradients."""
    wide = _wide(query.dtype)
    rows = _rows(query, key, start, low, options)
    z = _logits(query.to(wide) @ key.to(wide).mT, mask, rows, options)
    if sink is not None:
        z, rows = _with_sink(z, sink, rows)
    weights = normaliser.weights(z, rows)[:, : len(key)]
    return _weigh(weights, value.to(wide)).to(query.dtype)


def _fast(
    query: Float[Tensor, "queries dim"],
    key: Float[Tensor, "keys dim"],
    value: Float[Tensor, "keys value_dim"],
    mask: Tensor | None,
    sink: Tensor | None,
    start: int,
    low: int,
    normaliser: Normaliser,
    options: Options,
    scratch: tuple[Tensor, ...],
) -> Float[Tensor, "queries value_dim"]:
    """The same without gradients: the logits are overwritten by their weights, and read as seldom as possible."""
    if not isinstance(normaliser, FactorNormaliser) or sink is not None:
        return _whole(query, key, value, mask, sink, start, low, normaliser, options)
    rows = _rows(query, key, start, low, options)
    z, weight = (each[: len(query) * len(key)].view(len(query), len(key)) for each in scratch)
    torch.mm(query.to(key.dtype) * options.scale, key.mT, out=z)
    if options.softcap is not None:
        z.div_(options.softcap).tanh_().mul_(options.softcap)
    visible: Tensor | int = z.shape[1]
    empty: Tensor | None = None
    if mask is None and options.window is None and options.causal:
        # Only the last columns of a causal chunk are hidden from anybody.
        edge = min(len(query), z.shape[1])
        tail = options.hidden(rows.query, rows.key[-edge:])
        assert tail is not None
        z[:, -edge:].masked_fill_(tail, MASKED)
        visible = (rows.query - low + 1).clamp(min=0).unsqueeze(1)
    else:
        hidden, added = hidden_and_added(mask, rows, options)
        if added is not None:
            z.add_(added.to(z.dtype))
        if hidden is not None:
            hidden = hidden | hidden_keys(z)
            z.masked_fill_(hidden, MASKED)
            visible = (~hidden).sum(1, keepdim=True)
    if isinstance(visible, Tensor):
        empty = visible == 0
    else:
        visible = torch.full((len(z), 1), visible, device=z.device)
    z.sub_(z.amax(1, keepdim=True))
    factor = torch.ones_like(z[:, :1])
    if normaliser.needs_entropy:
        # The fused softmax is twice as fast as an exponential and a sum; its largest weight is one over that sum.
        torch.softmax(z, 1, out=weight)
        entropy = -weight.amax(1, keepdim=True).log() - torch.linalg.vecdot(z, weight).unsqueeze(1)
        factor = normaliser.factor(entropy, visible, rows.query.unsqueeze(1)).to(z.dtype)
        if bool((factor == 1).all()):
            return _output(weight, value, empty).to(query.dtype)
    else:
        factor = normaliser.factor(factor, visible, rows.query.unsqueeze(1)).to(z.dtype)
    # Not zero: a masked logit must stay far below, also where a row of one key has a factor of ln 1.
    torch.softmax(z.mul_(factor.clamp(min=1e-20)), 1, out=weight)
    return _output(weight, value, empty).to(query.dtype)


def _output(
    weight: Float[Tensor, "*batch query key"], value: Float[Tensor, "*batch key value_dim"], empty: Tensor | None = None
) -> Float[Tensor, "*batch query value_dim"]:
    """As `_weigh`, which it asks only where it must; zeros in rows that see nothing."""
    output = weight @ value
    if not bool(output.isfinite().all()) and not bool(value.isfinite().all()):
        output = _weigh(weight, value)
    return output if empty is None else output.masked_fill_(empty, 0.0)
