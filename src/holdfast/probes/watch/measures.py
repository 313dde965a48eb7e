"""What one look at a model tells: entropy of attention, rank of features and dormant units of a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.statistics import row_statistics
from holdfast.optim.rewarming.graph import buffers_kept
from holdfast.optim.rewarming.layers import unwrapped
from holdfast.probes.plasticity.activations import record
from holdfast.probes.plasticity.metrics import dormant_ratio
from holdfast.probes.replaced_attention import attention_replaced, model_attention, model_implementation
from holdfast.probes.watch.ranks import effective_rank


def watch_once(
    model: nn.Module,
    inputs: Any,
    *,
    attention: bool = True,
    running: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """Entropy of attention, rank of features and dormant units of a model on a batch.

    The model runs once more in evaluation mode without gradients, and is left as it was found: modes, buffers and all
    random states. What `torch.compile` and `DistributedDataParallel` wrap runs without them. Hooks of others run along.

    - `entropy/<layer>/mean`, `/max` and `/min`: over heads; a head's is the mean of H / ln n over its rows, with n the
      number of visible keys: 1 spreads evenly, 0 sees one key. Rows of padding and with fewer than two keys are left
      out.
    - `rank/<layer>`: the effective rank of the features behind an activation function, at most the number of rows.
    - `dormant/<layer>`: share of dormant units.

    Arguments:
        model: any module that takes the batch.
        inputs: as `holdfast.probes.plasticity.record` takes them.
        attention: whether to measure attention, which takes a model of transformers.
        running: a context in which the model runs, such as one of autocast.
    """
    numbers: dict[str, float] = {}
    plain = unwrapped(model)
    with ExitStack() as stack:
        stack.enter_context(buffers_kept(plain))
        if "torch._dynamo" in sys.modules:  # which takes seconds to import; without it nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code cannot be listened to
        if attention:
            stack.enter_context(_entropies(plain, inputs, numbers))
        stack.enter_context(running())
        stack.enter_context(_no_cache_of_casts())
        kept = record(plain, inputs)
    for name, layer in kept.items():
        numbers[f"rank/{name}"] = effective_rank(layer.features)
        numbers[f"dormant/{name}"] = dormant_ratio(layer.outputs)
    return numbers


@contextmanager
def _entropies(model: nn.Module, inputs: Any, into: dict[str, float]) -> Iterator[None]:
    """Have a model's attention tell its entropies."""
    implementation = model_implementation(model)
    names = {id(module): name for name, module in model.named_modules()}
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, **options: Any) -> Any:
        with full_precision(query.device):
            rows = row_statistics(AttentionCall.of_transformers(module, query, key, None, hidden, **options))
        counted = rows.visible > 1
        if isinstance(mask, Tensor) and tuple(mask.shape) == (query.shape[0], query.shape[2]):
            counted = counted & mask.bool()[:, None]
        share = (rows.entropy.double() / rows.visible.clamp(min=2).double().log()).masked_fill(~counted, 0.0)
        heads = share.sum((0, 2)) / counted.sum((0, 2))
        name = names.get(id(module), type(module).__name__)
        for part, number in (("mean", heads.mean()), ("max", heads.max()), ("min", heads.min())):
            into[f"entropy/{name}/{part}"] = float(number)
        return model_attention(module, implementation)(module, query, key, value, hidden, **options)

    with attention_replaced(model, attend, implementation):
        yield


@contextmanager
def _no_cache_of_casts() -> Iterator[None]:
    """Weights cast by autocast without gradients must not serve a training around, nor its older ones us."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
