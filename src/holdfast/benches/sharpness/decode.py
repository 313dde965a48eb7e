"""What an adaptive temperature costs for one new token after a cache of keys: time and memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Literal

from holdfast.benches.harness.report import Report
from holdfast.benches.registry import Tell


@dataclass(frozen=True)
class Options:
    """Adaptive-temperature attention of one new token, beside PyTorch's fused attention."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run: cpu, cuda, or auto, which is cuda where there is one."""
    kernels: Literal["triton", "reference"] | None = None
    """What computes ours; unless given, the Triton kernel on a GPU and PyTorch's operations on a CPU."""
    lengths: tuple[int, ...] | None = None
    """Numbers of keys; unless given, 512 and 4096 on a CPU, 4096 to 32768 on a GPU."""
    batch: int | None = None
    """Sequences; unless given, 1 on a CPU, and 8 on a GPU, whose keys do not fit into its cache."""
    heads: int | None = None
    """Query heads; unless given, 4 on a CPU and 32 on a GPU."""
    kv_heads: int | None = None
    """Key heads; unless given, a quarter of the query heads."""
    head_dims: tuple[int, ...] | None = None
    """Dimensions of a head; unless given, 64 on a CPU, 128 and 64 on a GPU."""
    dtypes: tuple[Literal["float32", "float16", "bfloat16"], ...] | None = None
    """Of the inputs; unless given, float32 on a CPU and bfloat16 on a GPU."""
    eager_up_to: int = 32768
    """Keys up to which PyTorch's operations are timed beside the kernel: they take far longer."""
    rounds: int | None = None
    """Timed rounds; unless given, 5 on a CPU and 50 on a GPU."""
    budget: float = 1.0
    """Seconds after which no further round of a case begins, once there are three."""


TOY = Options(
    kernels="triton" if find_spec("triton") else "reference",
    lengths=(96,),
    batch=2,
    heads=2,
    kv_heads=1,
    head_dims=(16,),
    dtypes=("float32",),
    rounds=2,
)


def run(options: Options, tell: Tell) -> Report:
    """Time our arms beside their peers, in turn on the same inputs; on a GPU as CUDA graphs too.

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
    lengths = options.lengths or ((16384, 4096, 32768, 8192) if gpu else (512, 4096))
    batch = (8 if gpu else 1) if options.batch is None else options.batch
    heads = (32 if gpu else 4) if options.heads is None else options.heads
    kv_heads = max(1, heads // 4) if options.kv_heads is None else options.kv_heads
    rounds = (50 if gpu else 5) if options.rounds is None else options.rounds
    head_dims = options.head_dims or ((128, 64) if gpu else (64,))
    check_sizes(heads, kv_heads, batch=batch, rounds=rounds, lengths=min(lengths), head_dims=min(head_dims))
    cases = [
        Case(batch, heads, kv_heads, 1, length, head_dim, dtype, causal=False)
        for dtype in options.dtypes or (("bfloat16",) if gpu else ("float32",))
        for head_dim in head_dims
        for length in lengths
    ]
    ours = options.kernels or ("triton" if gpu else "reference")
    rows, failures = measure(cases, Plan(device, ours, rounds, options.budget, options.eager_up_to), tell)
    settings = asdict(options) | {"device": device, "kernels": ours, "cases": [asdict(case) for case in cases]}
    return Report(settings, rows, *headline(cases, rows), failures)
