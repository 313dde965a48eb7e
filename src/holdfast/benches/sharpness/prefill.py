"""What an adaptive temperature costs over a whole text: time and memory, with as many queries as keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Literal

from holdfast.benches.harness.report import Report
from holdfast.benches.registry import Tell


@dataclass(frozen=True)
class Options:
    """Adaptive-temperature attention over a whole text, beside PyTorch's fused attention."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run: cpu, cuda, or auto, which is cuda where there is one."""
    kernels: Literal["triton", "reference"] | None = None
    """What computes ours; unless given, the Triton kernel on a GPU and PyTorch's operations on a CPU."""
    lengths: tuple[int, ...] | None = None
    """Numbers of keys; unless given, 128 and 512 on a CPU, 4096 to 32768 on a GPU."""
    attend: tuple[Literal["causal", "full"], ...] | None = None
    """What a query sees; unless given, both on a CPU and only what is not after it on a GPU."""
    heads: int | None = None
    """Query heads; unless given, 4 on a CPU and 32 on a GPU."""
    kv_heads: int | None = None
    """Key heads; unless given, a quarter of the query heads."""
    head_dims: tuple[int, ...] | None = None
    """Dimensions of a head; unless given, 64 on a CPU, 128 and 64 on a GPU."""
    dtypes: tuple[Literal["float32", "float16", "bfloat16"], ...] | None = None
    """Of the inputs; unless given, float32 on a CPU and bfloat16 on a GPU."""
    padding: int = 0
    """Keys at the left that a mask hides, for all arms. The Triton kernel takes no mask."""
    eager_up_to: int = 16384
    """Keys up to which PyTorch's operations are timed beside the kernel: they take far longer."""
    rounds: int | None = None
    """Timed rounds; unless given, 5 on a CPU and 30 on a GPU."""
    budget: float = 2.0
    """Seconds after which no further round of a case begins, once there are three."""


TOY = Options(
    kernels="triton" if find_spec("triton") else "reference",  # without Triton only the formula runs
    lengths=(64,),
    attend=("causal",),
    heads=2,
    kv_heads=1,
    head_dims=(16,),
    dtypes=("float32",),
    rounds=2,
)


def run(options: Options, tell: Tell) -> Report:
    """Time our arms beside their peers, in turn on the same inputs.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, memory in MiB above the inputs.

    Errors:
        ArgumentError: a size is not positive, or there is no such device.
    """
    from holdfast.benches.sharpness.arms import Case, check_sizes, device_of
    from holdfast.benches.sharpness.measure import Plan, headline, measure

    device = device_of(options.device)
    gpu = device == "cuda"
    lengths = options.lengths or ((16384, 4096, 32768, 8192) if gpu else (128, 512))
    heads = (32 if gpu else 4) if options.heads is None else options.heads
    kv_heads = max(1, heads // 4) if options.kv_heads is None else options.kv_heads
    rounds = (30 if gpu else 5) if options.rounds is None else options.rounds
    head_dims = options.head_dims or ((128, 64) if gpu else (64,))
    check_sizes(heads, kv_heads, rounds=rounds, lengths=min(lengths), head_dims=min(head_dims))
    cases = [
        Case(1, heads, kv_heads, length, length, head_dim, dtype, attend == "causal", options.padding)
        for dtype in options.dtypes or (("bfloat16",) if gpu else ("float32",))
        for head_dim in head_dims
        for length in lengths
        for attend in options.attend or (("causal",) if gpu else ("causal", "full"))
    ]
    ours = options.kernels or ("triton" if gpu and not options.padding else "reference")
    rows, failures = measure(cases, Plan(device, ours, rounds, options.budget, options.eager_up_to), tell)
    settings = asdict(options) | {"device": device, "kernels": ours, "cases": [asdict(case) for case in cases]}
    return Report(settings, rows, *headline(cases, rows), failures)
