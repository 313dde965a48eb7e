"""What a policy remembers can be taken, joined with others, parted and set again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.state_tensors import state_tensors
from holdfast.rl.memory import joined
from holdfast.rl.stepping import Policy, PolicyConfig
from tests.models.action.tiny import BACKBONES, model

GROWS = {"attention", "attention without positions", "rat", "window", "hybrid"}
"""Backbones that keep more with every token, or slots of their own."""


def policy(name: str, slots: int, target: float | None = None) -> Policy:
    config = PolicyConfig(domain="arm", slots=slots, autoreset="same_step", target_return=target)
    return Policy(model(BACKBONES[name]), config)


def acted(acting: Policy, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        acting.act(rng.standard_normal((acting.config.slots, 5)), rng.standard_normal(acting.config.slots))


def tensors(memory: Any) -> list[torch.Tensor]:
    return list(state_tensors(memory.state)[0].values())


@pytest.mark.parametrize("name", BACKBONES)
def test_a_policy_goes_back_to_what_it_remembered(name: str) -> None:
    acting = policy(name, 2)
    acted(acting, 3, seed=0)
    memory = acting.memory
    acted(acting, 2, seed=1)
    first = acting.logits
    acting.memory = memory
    acted(acting, 2, seed=1)
    assert first is not None
    assert torch.equal(first, acting.logits)


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_joined_is_parted_again_bit_by_bit(name: str) -> None:
    single = [policy(name, 1, target) for target in (1.0, 2.0, 3.0)]
    for steps, acting in enumerate(single, 1):
        acted(acting, steps, seed=steps)
    memories = [acting.memory for acting in single]
    assert all(memory.joinable == (name not in GROWS) for memory in memories)
    if name in GROWS:
        with pytest.raises(ArgumentError, match="memories: expected of a backbone whose state does not grow"):
            joined(memories)
        return
    whole = joined(memories)
    assert (whole.slots, whole.target.tolist()) == (3, [1.0, 2.0, 3.0])
    for before, after in zip(memories, whole.parted(), strict=True):
        assert all(map(torch.equal, tensors(before), tensors(after)))
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors(after))
        for part, array in before.episodes.arrays().items():
            assert np.array_equal(array, after.episodes.arrays()[part])
    (alone,) = memories[0].parted()
    assert alone is joined(memories[:1]) is memories[0]


def test_a_memory_of_other_slots_is_refused() -> None:
    two, three = policy("xlstm", 2), policy("xlstm", 3)
    before = two.memory
    with pytest.raises(ArgumentError, match="memory: expected that of 2 slots, got 3"):
        two.memory = three.memory
    assert two.memory == before
