"""What two processes do together, started by `torchrun`: steps of a sharded model, then the command line's training."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from holdfast.cli import main
from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM

STEPS = 3


def steps(model: torch.nn.Module, batches: torch.Tensor) -> list[float]:
    """Losses of some steps of AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in batches:
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.detach())
    return losses


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded(folder: Path) -> None:
    """A model that is sharded over both processes, beside one that every process has."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(0)
    config = HoldfastConfig(
        vocab_size=32, hidden_size=16, mixers=["rat", "window"], num_attention_heads=2, chunk_size=4, sliding_window=8
    )
    reference = HoldfastForCausalLM(config).train()
    model: Any = copy.deepcopy(reference)
    batches = torch.randint(32, (STEPS, 2 * size, 24))
    mesh = init_device_mesh("cpu", (size,))
    for block in model.backbone.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    of_shards = torch.stack(steps(model, batches[:, 2 * rank : 2 * rank + 2]))
    distributed.all_reduce(of_shards)
    of_whole = steps(reference, batches)
    local = sum(parameter.to_local().numel() for parameter in model.parameters())
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    difference = max((whole(ours) - theirs).abs().max().item() for ours, theirs in pairs)
    if rank == 0:
        found = {
            "share": local / sum(parameter.numel() for parameter in reference.parameters()),
            "sharded": (of_shards / size).tolist(),
            "whole": torch.stack(of_whole).tolist(),
            "difference": difference,
        }
        (folder / "sharded.json").write_text(json.dumps(found))


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    sharded(Path(sys.argv[1]))
    main(sys.argv[2:])
