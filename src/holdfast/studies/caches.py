"""States as they are after many tokens, without reading them: what they cost does not depend on what is in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from holdfast.nn import AttentionState, BackboneState, RATState, State, WindowState


def filled(state: BackboneState, tokens: int) -> BackboneState:
    """A new state with a limit, as after so many tokens, with normal numbers in it."""
    return BackboneState(layers=tuple(_filled(layer, tokens) for layer in state.layers))


def _filled(state: State, tokens: int) -> State:
    counts: dict[str, Any] = {"seen": torch.full_like(state.seen, tokens), "longest": tokens}
    if isinstance(state, AttentionState):
        state.cache.keys.normal_()
        state.cache.values.normal_()
        return replace(state, **counts, cache=replace(state.cache, used=tokens))
    if isinstance(state, RATState):
        for tensor in (state.closed.keys, state.closed.values):
            tensor.normal_()
        if tokens % state.chunk_size:
            state.running_key.normal_()
            state.running_value.normal_()
        return replace(state, **counts, closed=replace(state.closed, used=tokens // state.chunk_size))
    if isinstance(state, WindowState):
        state.cache.keys.normal_()
        state.cache.values.normal_()
        # It is as large with a limit as without, and faster without: then it is moved once in a while only.
        return replace(state, **counts, limit=None, cache=replace(state.cache, fixed=False))
    return replace(state, **counts)
