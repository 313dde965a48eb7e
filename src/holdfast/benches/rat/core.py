"""What RAT's core costs in prefill, training and decoding, beside PyTorch's fused attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from holdfast.benches.harness.report import Report
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from holdfast.benches.rat.subjects import Shape, Subject

Part = Literal["prefill", "train", "decode"]


@dataclass(frozen=True)
class Options:
    """RAT's core on whole sequences and on one new token, beside attention with all and with few key heads."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    parts: tuple[Part, ...] = ("prefill", "train", "decode")
    """What is timed: forward, forward and backward, one new token."""
    lengths: tuple[int, ...] | None = None
    """Numbers of tokens; unless given, 512 and 2048 on a CPU, 4096 to 131072 on a GPU."""
    tokens: int | None = None
    """Tokens of all sequences of a prefill or a training step; unless given, those of one on a CPU, 131072 on a GPU."""
    batches: tuple[int, ...] | None = None
    """Sequences that are decoded at once; unless given, 1 and 32 on a CPU, 1, 64 and 512 on a GPU."""
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
    """Of the inputs; unless given, float32 on a CPU and bfloat16 on a GPU."""
    bytes_s: float | None = None
    """Bytes a second that the GPU copies, for the floors; measured unless given."""
    flops: float | None = None
    """Operations a second of the GPU's products in half precision, likewise."""
    rounds: int = 30
    """Timed rounds at most."""
    budget: float = 1.0
    """Seconds after which no further round of a case begins, once there are three."""


TOY = Options(lengths=(48,), batches=(2,), tokens=96, heads=4, head_dim=16, chunk_sizes=(4,), dtype="float32", rounds=2)

AIMS = {
    ("prefill", 4096): 3.0,
    ("prefill", 16384): 7.5,
    ("train", 4096): 4.0,
    ("train", 16384): 7.5,
}
"""Least speed-up over attention on one thread of a CPU, with chunks of 16 tokens; elsewhere `NOT_SLOWER`."""

NOT_SLOWER = 512
"""From this many tokens on RAT is not to be slower than attention over whole sequences."""

DECODE_AIM = 13.0
"""Likewise for one new token of 32 sequences after 16384, whose cache of keys fits into no processor's."""

SLOPE_AIM = 1.5
"""The exponent of the length with which the time of a prefill is to grow at most between 4096 and 16384 tokens."""


def aim(subject: Subject) -> float | None:
    """The least speed-up over attention."""
    shape = subject.shape
    if shape.device != "cpu" or shape.chunk_size != 16:
        return None
    if subject.name == "decode":
        return DECODE_AIM if (shape.batch, shape.tokens) == (32, 16384) else None
    return AIMS.get((subject.name, shape.tokens), 1.0 if shape.tokens >= NOT_SLOWER else None)


def run(options: Options, tell: Tell) -> Report:
    """Check the arms, time them in turn on inputs of the same sizes, and compare them within each round.

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
    from holdfast.benches.rat.measure import Plan, measure, slope, summary
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
    growth = slope(rows, "prefill", 4096, 16384) if options.chunk_sizes == (16,) and not gpu else None
    checks = [] if growth is None else [(f"prefill grows by the power {growth:.2f} of the length", growth < SLOPE_AIM)]
    settings = asdict(options) | {"too_large": too_large} | ({"machine": asdict(machine)} if machine else {})
    return Report(settings, rows, *summary(rows, checks), failures)


def _makers(options: Options) -> Iterator[tuple[str, Callable[[], Subject]]]:
    """Every case, and what makes its arms."""
    from functools import partial

    from holdfast.benches.rat.settings import shape_of
    from holdfast.benches.rat.subjects import core, decoding

    for chunk_size in options.chunk_sizes:
        for length in options.lengths or ():
            shape: Shape = replace(shape_of(options), tokens=length, chunk_size=chunk_size)
            whole = replace(shape, batch=max(1, (options.tokens or length) // length))
            for part in options.parts:
                if part == "decode":
                    for batch in options.batches or ():
                        yield f"{part}, {length}", partial(decoding, replace(shape, batch=batch))
                else:
                    yield f"{part}, {length}", partial(core, whole, train=part == "train")
