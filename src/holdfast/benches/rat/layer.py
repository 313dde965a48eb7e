"""What the whole RAT layer costs, projections included, beside a layer of attention and the layer of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.benches.harness.report import Report
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from holdfast.benches.rat.subjects import Subject

Part = Literal["layer", "layer-train"]


@dataclass(frozen=True)
class Options:
    """A RAT layer on whole sequences, beside layers of attention with all and with few key heads."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    parts: tuple[Part, ...] = ("layer", "layer-train")
    """What is timed: forward, forward and backward."""
    lengths: tuple[int, ...] | None = None
    """Numbers of tokens; unless given, 512 and 2048 on a CPU, 4096 to 131072 on a GPU."""
    tokens: int | None = None
    """Tokens of all sequences; unless given, those of one on a CPU, 131072 on a GPU."""
    heads: int | None = None
    """Heads of RAT, and query heads of attention; unless given, 4 on a CPU and 16 on a GPU."""
    kv_heads: int | None = None
    """Key heads of the grouped attention; unless given, an eighth of the heads, and at least one."""
    groups: int = 2
    """Queries and keys that RAT's heads share."""
    head_dim: int | None = None
    """Dimensions of a head; unless given, 64 on a CPU and 128 on a GPU."""
    chunk_sizes: tuple[int, ...] = (16,)
    """Tokens a chunk."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of inputs and weights; unless given, float32 on a CPU and bfloat16 on a GPU."""
    official: Path | None = None
    """A checkout of github.com/CLAIRE-Labo/RAT, whose layer, which needs a GPU, is timed too."""
    bytes_s: float | None = None
    """Bytes a second that the GPU copies, for the floors; measured unless given."""
    flops: float | None = None
    """Operations a second of the GPU's products in half precision, likewise."""
    rounds: int = 20
    """Timed rounds at most."""
    budget: float = 0.7
    """Seconds after which no further round of a case begins, once there are three."""


TOY = Options(lengths=(48,), tokens=96, heads=4, head_dim=16, chunk_sizes=(4,), dtype="float32", rounds=2)

AIMS = {("layer", 4096): 1.0, ("layer-train", 4096): 1.0, ("layer-train", 131072): 9.0}
"""Least speed-up over the layer of attention on a GPU, with chunks of 16 tokens."""

FLOOR_AIM = 100 / 1.5
"""Least percent of the floor that a forward pass over 131072 tokens is to reach there."""


def aim(subject: Subject) -> float | None:
    """The least speed-up over attention."""
    shape = subject.shape
    return AIMS.get((subject.name, shape.tokens)) if shape.device == "cuda" and shape.chunk_size == 16 else None


def run(options: Options, tell: Tell) -> Report:
    """Time all layers in turn on the same input, and compare them within each round.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, memory in MiB above the inputs.

    Errors:
        ArgumentError: a size is not positive or does not fit, or there is no such device.
    """
    import torch

    from holdfast.benches.rat.floors import Machine
    from holdfast.benches.rat.measure import Plan, measure, summary
    from holdfast.benches.rat.settings import filled

    options = filled(options)
    before = torch.get_num_threads()
    torch.manual_seed(0)
    gpu = options.device == "cuda"
    try:
        if not gpu:
            torch.set_num_threads(1)
        machine = Machine.measured(options.bytes_s, options.flops) if gpu else None
        plan = Plan(options.rounds, options.budget, aim, machine)
        rows, failures, too_large = measure(_makers(options), plan, tell)
    finally:
        torch.set_num_threads(before)
    checks = [
        (f"layer, 131072 tokens: {row['percent_of_floor']} % of the floor", row["percent_of_floor"] >= FLOOR_AIM)
        for row in rows
        if (row["subject"], row["arm"], row["tokens"], row["chunk_size"]) == ("layer", "rat-auto", 131072, 16)
        and row["percent_of_floor"] is not None
    ]
    settings = (
        asdict(options) | {"too_large": too_large} | {"official": str(options.official) if options.official else None}
    )
    settings |= {"machine": asdict(machine)} if machine else {}
    return Report(settings, rows, *summary(rows, checks), failures)


def _makers(options: Options) -> Iterator[tuple[str, Callable[[], Subject]]]:
    """Every case, and what makes its arms."""
    from functools import partial

    from holdfast.benches.rat.settings import shape_of
    from holdfast.benches.rat.subjects import layer

    for chunk_size in options.chunk_sizes:
        for length in options.lengths or ():
            batch = max(1, (options.tokens or length) // length)
            shape = replace(shape_of(options), tokens=length, chunk_size=chunk_size, batch=batch)
            for part in options.parts:
                make = partial(layer, shape, train=part == "layer-train", official=options.official)
                yield f"{part}, {length}", make
