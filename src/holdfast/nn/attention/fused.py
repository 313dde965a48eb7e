"""Attention by PyTorch's fused kernel on a CPU, with and without gradient: a row's factor multiplies its query.

Where the factor needs the row's entropy, `streamed.py` computes the output. The entropy is a constant of the backward
pass: that is the kernel's own, of queries times their factor, from the output and the logarithm of each row's sum.
Nothing of the size of queries times keys is ever stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.nn.attention import checkpointed, kernel, plain, streamed
from holdfast.nn.attention.call import AttentionCall, Declined, full_precision
from holdfast.nn.attention.kernel import Fused
from holdfast.nn.attention.visibility import block, hidden, some_heads, span
from holdfast.nn.masking import all_finite
from holdfast.nn.normalisers import FactorNormaliser, Plain

FEWEST = 16
"""From this many queries on it is used; for fewer, its look at keys and values costs more."""

TABLE = 1 << 14
"""From this many logits on it is used where the factor needs the entropy."""

ROWS = 256
"""Queries at a time where more than causality hides keys: few, so that the keys none of them sees can be skipped."""

LOGITS = 1 << 22
"""Places in a mask that are worked on at once, 16 MiB in float32."""

SHORT = 1 << 16
"""Up to this many pairs of a query and a key, sequences with masks of their own are taken together all the same."""


def refusal(call: AttentionCall) -> str | None:
    """What the kernel has no argument for, and where it does not pay or values may not be looked at."""
    if call.queries < FEWEST:
        return f"fewer than {FEWEST} queries"
    if call.softcap is not None or call.sinks is not None:
        return "the kernel takes no softcap and no sinks"
    if call.mask is not None and call.mask.is_floating_point():
        return "only masks that hide"
    if not isinstance(call.normaliser, FactorNormaliser):
        return "the normaliser is no factor of the row"
    if call.normaliser.needs_entropy and not call.needs_gradient:
        return "without gradient a pass over the keys is saved by `streamed`"
    if call.normaliser.needs_entropy and call.table < TABLE:
        return "few logits are faster all at once"
    if call.normaliser.needs_entropy and not call.normaliser.detach:
        return "the factor has a gradient"
    if not kernel.available():
        return "this PyTorch has no such kernel"
    return None if call.on_cpu and call.concrete else "only on a CPU, where values may be looked at"


def compute(call: AttentionCall) -> Float[Tensor, "batch heads queries value_dim"]:
    """The output, in float32 or better, of finite numbers.

    Errors:
        Declined: that is not so.
    """
    assert call.value is not None
    value_dim = call.value.shape[-1]
    call = _prepared(call)
    assert isinstance(call.normaliser, FactorNormaliser)
    assert call.value is not None
    known: tuple[Tensor, Tensor] | None = None
    if type(call.normaliser) is Plain:
        query = call.query * call.scale
    else:
        entropy, visible = call.query.new_zeros(*call.query.shape[:3], 1), None
        if call.normaliser.needs_entropy:
            with torch.no_grad():
                answer = streamed.answer(call)
            known, entropy, visible = (answer.output, answer.total), answer.entropy, answer.visible
        visible = _visible(call) if visible is None else visible
        # If the factor has a gradient, that is to parameters of the normaliser.
        factor = call.normaliser.factor(entropy, visible, call.rows.query.unsqueeze(1)).to(call.query.dtype)
        query = call.query * (call.scale * factor)
    options = {field.name: getattr(call, field.name) for field in fields(call) if field.name not in TENSORS}
    output: Tensor = _Attention.apply(query, call.key, call.value, call.mask, options, known)  # type: ignore[no-untyped-call]
    if not all_finite(output.detach()):  # a product or a sum of large numbers overflowed on the way
        raise Declined
    return output if output.shape[-1] == value_dim else output[..., :value_dim].contiguous()


def _prepared(call: AttentionCall) -> AttentionCall:
    """The same with all tensors of one width, in float32 or better."""
    wide = call.wide()
    assert wide.value is not None
    # The kernel multiplies hidden values by zero, and zero times NaN is NaN.
    if not all(all_finite(tensor.detach()) for tensor in (wide.query, wide.key, wide.value)):
        raise Declined
    width = max(wide.query.shape[-1], wide.value.shape[-1])
    # The kernel wants keys as wide as values, and zeros change no product.
    query, key, value = (
        torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1])) if tensor.shape[-1] < width else tensor
        for tensor in (wide.query, wide.key, wide.value)
    )
    return replace(wide, query=query, key=key, value=value)


def _visible(call: AttentionCall) -> Int[Tensor, "*#batch queries 1"]:
    """How many keys each query sees."""
    position = call.rows.query.unsqueeze(1)
    if call.mask is None and call.window is None:
        return (position + 1).clamp(min=0) if call.causal else torch.full_like(position, call.keys)
    visible = position.new_zeros(*call.query.shape[:3], 1)
    for piece in _pieces(call):
        visible[piece.sequences, :, piece.queries] = piece.visible
    return visible


@dataclass(frozen=True)
class Piece:
    """Some queries, and the keys that any of them sees.

    Arguments:
        sequences: which of the call's.
        queries: likewise.
        keys: likewise.
        seen: which of these keys each query sees; `None`: those that causality leaves.
        visible: how many.
    """

    sequences: slice
    queries: slice
    keys: slice
    seen: Bool[Tensor, "#batch #heads queries keys"] | None
    visible: Int[Tensor, "*#batch queries 1"]

    def fused(self, call: AttentionCall) -> Fused:
        """The attention of this piece."""
        assert call.value is not None
        query = call.query[self.sequences, :, self.queries]
        key, value = (tensor[self.sequences, :, self.keys] for tensor in (call.key, call.value))
        if self.seen is None:
            return Fused(query, key, value, causal=call.causal)
        # A row that sees nothing sees all here, so that its numbers are finite in any case; it is cleared after.
        unseen = ~self.seen & (self.visible > 0)
        return Fused(query, key, value, query.new_zeros(unseen.shape).masked_fill_(unseen, -math.inf))

    def cleared(self, tensor: Tensor) -> Tensor:
        """The tensor with zeros in the rows that see nothing."""
        return tensor if self.seen is None else tensor.masked_fill(self.visible == 0, 0.0)


def _pieces(call: AttentionCall) -> Iterator[Piece]:
    """One where causality is all that hides keys; else a few queries at a time, without those that see nothing."""
    batch, queries, keys = call.query.shape[0], call.queries, call.keys
    everything = slice(0, batch)
    if call.mask is None and call.window is None and (queries <= keys or not call.causal):
        yield Piece(everything, slice(0, queries), slice(0, keys), None, _visible(call))
        return
    # Sequences with a mask of their own see spans of their own, which is worth some calls where they are long.
    alike = call.mask is None or call.mask.shape[0] == 1 or queries * keys <= SHORT
    step = ROWS if call.window is None else max(ROWS // 4, min(ROWS, call.window))
    if call.mask is not None:
        step = max(1, min(step, LOGITS // (keys * call.mask.shape[1] * (call.mask.shape[0] if alike else 1))))
    for sequences in [everything] if alike else [slice(place, place + 1) for place in range(batch)]:
        part = some_heads(call, sequences, slice(0, call.query.shape[1]))
        for start in range(0, queries, step):
            stop = min(queries, start + step)
            low, high = span(part, start, stop)
            seen = _seen(block(part, start, stop, low, high))
            somewhere = seen.flatten(0, -2).any(0).nonzero()
            if len(somewhere):
                first, last = int(somewhere[0]), int(somewhere[-1]) + 1
                seen = seen[..., first:last]
                keys_of = slice(low + first, low + last)
                yield Piece(sequences, slice(start, stop), keys_of, seen, seen.sum(-1, keepdim=True))


def _seen(part: AttentionCall) -> Bool[Tensor, "#batch #heads queries keys"]:
    """Which keys each query sees."""
    unseen = hidden(part)
    if unseen is None:
        return torch.ones(1, 1, part.queries, part.keys, dtype=torch.bool, device=part.query.device)
    return (~unseen).expand(*unseen.shape[:2], part.queries, part.keys)


TENSORS = ("query", "key", "value", "mask")


def _forward(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Output and logarithms of the sums of all pieces."""
    output, total = call.query.new_zeros(call.query.shape), call.query.new_zeros(call.query.shape[:3])
    for piece in _pieces(call):
        part, sums = piece.fused(call).forward()
        part = piece.cleared(part)
        if part.shape == output.shape:
            return part, sums
        output[piece.sequences, :, piece.queries] = part
        total[piece.sequences, :, piece.queries] = sums
    return output, total


class _Attention(torch.autograd.Function):
    """Softmax attention by the fused kernel; what hides keys is in `mask` and the options of an `AttentionCall`.

    Output and logarithms of the sums may be known already.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
        known: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        output, total = known or _forward(AttentionCall(query=query, key=key, value=value, mask=mask, **options))
        ctx.save_for_backward(query, key, value, mask, output, total)
        ctx.options = options
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with full_precision(gradients[0].device):
            return _gradients(ctx, *gradients)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Of query, key and value, and nothing for the rest."""
    query, key, value, mask, output, total = ctx.saved_tensors
    call = AttentionCall(query=query, key=key, value=value, mask=mask, **ctx.options)
    if torch.is_grad_enabled():
        return *_by_formula(call, gradient), None, None, None
    of_query, of_key, of_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
    for piece in _pieces(call):
        rows, keys = (piece.sequences, slice(None), piece.queries), (piece.sequences, slice(None), piece.keys)
        shares = piece.fused(call).backward(output[rows], total[rows], piece.cleared(gradient[rows]))
        if shares[0].shape == query.shape and shares[1].shape == key.shape:
            return *shares, None, None, None
        of_query[rows] = shares[0]
        of_key[keys] += shares[1]
        of_value[keys] += shares[2]
    return of_query, of_key, of_value, None, None, None


def _by_formula(call: AttentionCall, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients in operations that differentiate again, which the kernel's do not."""
    call = replace(call, normaliser=Plain(), scale=1.0)
    way = plain if plain.refusal(call) is None else checkpointed
    assert call.value is not None
    tensors = (call.query, call.key, call.value)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    of_wanted = iter(torch.autograd.grad(way.compute(call), wanted, gradient, create_graph=True))
    return tuple(next(of_wanted) if tensor.requires_grad else None for tensor in tensors)
