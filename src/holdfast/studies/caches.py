"""States as they are after many tokens, without reading them: what they cost does not depend on what is in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from holdfast.errors import ArgumentError
from holdfast.nn import AttentionState, BackboneState, RATState, State, WindowState


def filled(state: BackboneState, tokens: int) -> BackboneState:
    """A new state with a limit, as after so many tokens, with normal numbers in it."""
    return BackboneState(layers=tuple(_filled(layer, tokens) for layer in state.layers))


def again(state: BackboneState) -> BackboneState:
    """The same state as nobody has continued it yet, over the same memory: it is written in place once more.

    A state that is continued a second time copies what it keeps, since the first continuation may still be in use.
    Whoever times a step at one length again and again would time that copy.
    """
    return BackboneState(layers=tuple(_again(layer) for layer in state.layers))


def _again(state: State) -> State:
    if not isinstance(state, AttentionState):
        raise ArgumentError("state", "layers of attention", type(state).__name__)
    return replace(state, seen=state.seen.clone(), cache=replace(state.cache, appended=[0], age=0))


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
