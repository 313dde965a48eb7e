"""One attention call: everything that decides its result, made and checked once.

A user's arguments and those that transformers hands to an attention function come in by a constructor each. Below it
a call is taken as it is, whole or in parts (`visibility.py`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.masking import hidden_by, masked_bias
from holdfast.nn.normalisers import Adaptive, Normaliser, Rows
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Declined(Exception):
    """A way to compute a call sees, while it computes, that its numbers would be wrong: another one takes over."""


OFFSETS = "holdfast_offsets"
"""Attribute of a mask: the positions of its first query and of its first key in the sequence."""


def transformed() -> bool:
    """Whether a function is traced or transformed around what runs now.

    That is inside `compile`, `jit.trace`, `vmap` and the other transforms of `torch.func` and in forward-mode
    differentiation.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or torch.autograd.forward_ad._current_level >= 0:
        return True
    return torch._C._functorch.peek_interpreter_stack() is not None


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """What one attention is computed from. Not checked: `of` and `of_transformers` do that.

    Arguments:
        query: `heads` is a multiple of `kv_heads`; each key head serves that many query heads in turn (GQA).
        key: of the dtype of `query`.
        value: likewise; `None` where only logits and weights are asked for.
        mask: with four dimensions, each of its full size or 1: bool (True = visible) or additive.
        sinks: a logit for each head that takes part in the distribution and has no value.
        normaliser: turns logits into weights.
        causal: a query sees no key after it.
        window: a query sees keys less than this many positions away.
        scale: of the products.
        softcap: logits become softcap x tanh(logit / softcap), before mask and normaliser.
        first_query: position of the first query in the sequence, an int; a tensor where a compiled model keeps it on
            the device, which needs a mask and neither `causal` nor `window`.
        first_key: position of the first key, where a cache has forgotten the ones before.
    """

    query: Float[Tensor, "batch heads queries dim"]
    key: Float[Tensor, "batch kv_heads keys dim"]
    value: Float[Tensor, "batch kv_heads keys value_dim"] | None
    mask: Tensor | None
    sinks: Float[Tensor, " heads"] | None
    normaliser: Normaliser
    causal: bool
    window: int | None
    scale: float
    softcap: float | None
    first_query: Any
    first_key: int = 0

    @classmethod
    def of(
        cls,
        query: Any,
        key: Any,
        value: Any = None,
        *,
        mask: Any = None,
        causal: bool = False,
        scale: Any = None,
        softcap: Any = None,
        window: Any = None,
        sinks: Any = None,
        normaliser: Any = None,
        detach: bool = True,
    ) -> AttentionCall:
        """Check the arguments of `holdfast.nn.adaptive_attention`. The last query stands at the last key.

        Errors:
            ArgumentError: shapes, dtypes, devices or options that do not fit.
        """
        query, key, value = _of_one_dtype(query, key, value)
        _check_tensors(query, key, value, mask, sinks)
        for name, number in (("scale", scale), ("softcap", softcap)):
            if number is not None and not isinstance(number, Real | torch.SymFloat):
                raise ArgumentError(name, "a number", repr(number))
        if softcap is not None and not softcap > 0:
            raise ArgumentError("softcap", "a positive number", softcap)
        if window is not None:
            count_of("window", window, least=1)
        return cls(
            query=query,
            key=key,
            value=value,
            mask=None if mask is None else mask[(None,) * (4 - mask.ndim)],
            sinks=sinks,
            normaliser=_normaliser(normaliser, detach, query.shape[1]),
            causal=causal,
            window=window,
            scale=query.shape[3] ** -0.5 if scale is None else float(scale) if isinstance(scale, Real) else scale,
            softcap=softcap,
            first_query=key.shape[2] - query.shape[2],
        )

    @classmethod
    def of_transformers(
        cls,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor | None,
        attention_mask: Tensor | None,
        *,
        normaliser: Normaliser | None = None,
        **options: Any,
    ) -> AttentionCall:
        """Read what transformers hands to an attention function.

        Arguments:
            module: the attention layer, which says whether it is causal where its mask does not.
            query: of all heads.
            key: with the slots of a static cache that are still empty, which are left out.
            value: likewise.
            attention_mask: none, bool or additive. One that is there is complete: causality and window are in it. Where
                it stands in the sequence is noted in its attribute `OFFSETS`; without, its last query stands at the
                last key, and the first key is the first of the sequence.
            normaliser: turns logits into weights.
            options: the others by the names of transformers. `scaling`, `softcap`, `sliding_window`, `s_aux`,
                `is_causal`, `position_bias` and `cache` are read.

        Errors:
            ArgumentError: a paged cache, sinks of another kind, or arguments that do not fit.
        """
        if options.get("cache") is not None:
            raise ArgumentError("attn_implementation", "sdpa or flash attention for a paged cache", "this one")
        if options.get("sinks") is not None:
            got = "sinks that each query computes"
            raise ArgumentError("attn_implementation", "eager, or a model whose sinks are one number a head", got)
        if attention_mask is not None and attention_mask.ndim != 4:
            raise ArgumentError("attention_mask", "four dimensions (batch, heads, queries, keys)", attention_mask.ndim)
        causal = options.get("is_causal")
        causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
        keys = _filled_keys(query, key, attention_mask, causal)
        mask = attention_mask
        if mask is not None:
            mask = mask[..., :keys] if mask.shape[-1] > 1 else mask
            mask = mask if mask.is_floating_point() else mask.bool()
        bias, sinks = options.get("position_bias"), options.get("s_aux")
        call = cls.of(
            query,
            key[:, :, :keys],
            None if value is None else value[:, :, :keys],
            mask=mask if bias is None else masked_bias(bias[..., :keys], mask),
            causal=causal and attention_mask is None,
            scale=options.get("scaling"),
            softcap=options.get("softcap"),
            window=options.get("sliding_window") if attention_mask is None else None,
            sinks=None if sinks is None else sinks.reshape(-1).to(query.dtype),
            normaliser=normaliser,
        )
        offsets = getattr(attention_mask, OFFSETS, None)
        return call if offsets is None else replace(call, first_query=offsets[0], first_key=offsets[1])

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.query.shape[2]

    @property
    def keys(self) -> int:
        """Number of keys."""
        return self.key.shape[2]

    @property
    def groups(self) -> int:
        """Query heads for each key head."""
        return self.query.shape[1] // self.key.shape[1]

    @property
    def table(self) -> int:
        """Number of logits of all heads of all sequences."""
        return self.query.shape[0] * self.query.shape[1] * self.queries * self.keys

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: float32 or better."""
        return torch.promote_types(self.query.dtype, torch.float32)

    @property
    def rows(self) -> Rows:
        """Positions of queries and keys."""
        device = self.query.device
        return Rows(
            torch.arange(self.queries, device=device) + self.first_query,
            torch.arange(self.keys, device=device) + self.first_key,
        )

    @property
    def needs_gradient(self) -> bool:
        """Whether a backward pass may follow."""
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self._tensors)

    @property
    def transformed(self) -> bool:
        """Whether a function is traced or transformed around the call."""
        return transformed()

    @property
    def concrete(self) -> bool:
        """Whether values may decide how to compute: not where it is `transformed`, nor with fake or empty tensors."""
        if self.transformed:
            return False
        try:
            for tensor in self._tensors:
                bool(tensor.detach()[(0,) * tensor.ndim])
        except (RuntimeError, IndexError):
            return False
        return True

    @property
    def readable(self) -> bool:
        """Whether values may decide how to compute, and be overwritten: `concrete`, and no backward pass follows."""
        return not self.needs_gradient and self.concrete

    @property
    def on_cpu(self) -> bool:
        """Whether a look at values costs nothing: elsewhere the processor would wait for an accelerator."""
        return self.query.device.type == "cpu"

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        tensors = (self.query, self.key, self.value, self.mask, self.sinks)
        return (*(tensor for tensor in tensors if tensor is not None), *self.normaliser.tensors)

    def wide(self) -> AttentionCall:
        """The same with query, key and value in the dtype that is computed in."""
        if self.query.dtype == self.dtype:
            return self
        value = None if self.value is None else self.value.to(self.dtype)
        return replace(self, query=self.query.to(self.dtype), key=self.key.to(self.dtype), value=value)

    def without_groups(self) -> AttentionCall:
        """The same with a key head for each query head: copies, where a view cannot share them."""
        if self.groups == 1:
            return self
        key, value = (None if t is None else t.repeat_interleave(self.groups, dim=1) for t in (self.key, self.value))
        assert key is not None
        return replace(self, key=key, value=value)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off: it would take products of logits in half precision, and every number that follows from them."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def _of_one_dtype(*tensors: Any) -> tuple[Any, ...]:
    """Query, key and value as they are; under autocast, where they may differ in dtype, in that of autocast."""
    given = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    kind = given[0].device.type if given else "cpu"
    mixed = len({tensor.dtype for tensor in given}) > 1 and all(tensor.dtype in DTYPES[:3] for tensor in given)
    if not mixed or not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(tensor.to(dtype) if isinstance(tensor, Tensor) else tensor for tensor in tensors)


def _check_tensors(query: Any, key: Any, value: Any, mask: Any, sinks: Any) -> None:
    """Refuse what is no tensor, stands elsewhere or does not fit in shape and dtype."""
    tensors = {"query": query, "key": key, "value": value, "mask": mask, "sinks": sinks}
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None or name in ("query", "key")}
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise ArgumentError(name, "a tensor", type(tensor).__name__)
        if tensor.device != query.device:
            raise ArgumentError(name, f"a tensor on {query.device}, where query is", f"one on {tensor.device}")
        if tensor.ndim != 4 and name in ("query", "key", "value"):
            raise ArgumentError(name, "four dimensions (batch, heads, tokens, width)", f"shape {tuple(tensor.shape)}")
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    if query.dtype not in DTYPES:
        raise ArgumentError("query", "float16, bfloat16, float32 or float64", str(query.dtype))
    if 0 in (batch, heads, dim, key.shape[1]):
        expected = "at least one sequence, head and number in each"
        raise ArgumentError("query, key", expected, f"shapes {tuple(query.shape)}, {tuple(key.shape)}")
    dtypes = [tensor.dtype for tensor in (key, value) if tensor is not None]
    if any(dtype != query.dtype for dtype in dtypes):
        raise ArgumentError("key, value", f"the dtype of query, {query.dtype}", ", ".join(map(str, dtypes)))
    if key.shape[0] != batch or key.shape[3] != dim or heads % key.shape[1]:
        raise ArgumentError(
            "key", f"shape (batch {batch}, a divisor of {heads} heads, keys, dim {dim})", f"shape {tuple(key.shape)}"
        )
    if value is not None and value.shape[:3] != key.shape[:3]:
        raise ArgumentError("value", f"shape {tuple(key.shape[:3])} + (value_dim,)", f"shape {tuple(value.shape)}")
    if keys == 0 or queries == 0:
        raise ArgumentError("key, query", "at least one key and one query", f"{keys} keys, {queries} queries")
    if mask is not None:
        full = (batch, heads, queries, keys)
        pairs = zip(reversed(mask.shape), reversed(full), strict=False)
        if mask.ndim > 4 or not all(size in (1, wanted) for size, wanted in pairs):
            raise ArgumentError("mask", f"a shape that broadcasts to {full}", f"shape {tuple(mask.shape)}")
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise ArgumentError("mask", "bool (True = visible) or additive floats", str(mask.dtype))
    if sinks is not None and sinks.shape != (heads,):
        raise ArgumentError("sinks", f"shape ({heads},)", f"shape {tuple(sinks.shape)}")


def _normaliser(given: Any, detach: bool, heads: int) -> Normaliser:
    """A normaliser as it is, a law as `Adaptive`, the published law for `None`."""
    if isinstance(given, Normaliser):
        if given.heads not in (None, heads):
            raise ArgumentError("normaliser", f"one that is for {heads} heads", f"{given} for {given.heads}")
        return given
    if given is not None and not isinstance(given, AdaptiveTemperature):
        raise ArgumentError("normaliser", "an AdaptiveTemperature, a Normaliser or None", repr(given))
    return Adaptive(PUBLISHED if given is None else given, detach)


def _filled_keys(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> int:
    """How many keys there are, without the slots at the end of a static cache that are still empty.

    The queries stand at the last of them, which is where the causal mask and normalisers with a position look.
    """
    queries, keys = query.shape[2], key.shape[2]
    if queries == keys:
        return keys
    if mask is None:
        # `transformers` leaves the mask of a static cache out only in a prefill, where all slots behind are empty.
        return queries if causal and 1 < queries < keys else keys
    if torch.compiler.is_compiling():
        return keys
    anywhere = (~hidden_by(mask if mask.is_floating_point() else mask.bool()))[..., :keys].flatten(0, 2).any(0)
    last = int(anywhere.nonzero().max()) + 1 if bool(anywhere.any()) else keys
    return min(keys, max(last, queries))
