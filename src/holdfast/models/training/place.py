"""Where a training run computes: device, precision, and how many processes share the work."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from holdfast.errors import ArgumentError
from holdfast.models.training.recipe import OptimisationRecipe


@dataclass(frozen=True)
class Place:
    """Where a process computes.

    Arguments:
        device: cpu or cuda.
        precision: of products.
        processes: number of processes of the run.
        rank: of this one.
    """

    device: str
    precision: str
    processes: int
    rank: int

    @classmethod
    def of(cls, recipe: OptimisationRecipe) -> Place:
        """The place that a recipe asks for, in the processes that a launcher has started.

        Errors:
            ArgumentError: there is no such device, it lacks the precision, or FSDP is asked for on a CPU.
        """
        gpu = torch.cuda.is_available()
        device = recipe.device if recipe.device != "auto" else "cuda" if gpu else "cpu"
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
            device = "cpu"
        if device == "cuda" and not gpu:
            raise ArgumentError("--device", "cpu, since torch sees no GPU", device)
        has_bfloat16 = device == "cpu" or torch.cuda.is_bf16_supported()
        precision = recipe.precision
        if precision == "auto":
            precision = "bfloat16" if device == "cuda" and has_bfloat16 else "float32"
        if precision == "float16" and device == "cpu":
            raise ArgumentError("--precision", "float32 or bfloat16 on a CPU", precision)
        if precision == "bfloat16" and not has_bfloat16:
            raise ArgumentError("--precision", "float32 or float16 on this GPU", precision)
        if device == "cpu" and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
            # Accelerate would drop it without a word and replicate the model.
            raise ArgumentError("FSDP", "a GPU; several processes on a CPU hold a whole model each (DDP)", "a CPU")
        processes, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0)))
        return cls(device, precision, processes, rank)

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def batch(self, recipe: OptimisationRecipe) -> int:
        """Windows that this process computes at a time.

        Errors:
            ArgumentError: the batch cannot be shared evenly.
        """
        shares = self.processes * recipe.accumulate
        if recipe.batch % shares:
            of = f"{self.processes} processes x --accumulate {recipe.accumulate}"
            raise ArgumentError("--batch", f"a multiple of {of}", recipe.batch)
        return recipe.batch // shares
