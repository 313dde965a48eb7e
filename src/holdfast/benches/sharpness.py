"""What an adaptive temperature costs: time and memory of attention with and without, in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.lab.environment import environment, git_commit

Arm = Callable[[], Tensor]

WARMUP = 3
SHOW_AFTER_S = 2.0


@dataclass(frozen=True)
class Timing:
    """One arm in one case.

    Arguments:
        case: `"prefill"`, `"prefill, causal"` or `"decode"` (one query).
        length: number of keys.
        arm: `"sdpa"` (PyTorch), `"off"` (ours without adaptation) or `"adaptive"`.
        milliseconds: median over the rounds.
        peak_bytes: highest memory above the inputs, output included; `None` on a CPU.
        to_sdpa: time divided by that of `"sdpa"`.
        to_off: time divided by that of `"off"`.
    """

    case: str
    length: int
    arm: str
    milliseconds: float
    peak_bytes: int | None
    to_sdpa: float
    to_off: float


@dataclass(frozen=True)
class SharpnessBenchReport:
    """All timings, with the settings and the machine that they belong to."""

    settings: dict[str, Any]
    timings: tuple[Timing, ...]
    environment: dict[str, Any]
    commit: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table: medians in milliseconds, ratios within the run, memory in MiB."""
        lines = [f"{'case':<16} {'keys':>7} {'arm':<9} {'ms':>10} {'/sdpa':>7} {'/off':>7} {'peak MiB':>9}"]
        for each in self.timings:
            peak = "" if each.peak_bytes is None else f"{each.peak_bytes / 2**20:.1f}"
            lines.append(
                f"{each.case:<16} {each.length:>7} {each.arm:<9} {each.milliseconds:>10.3f} "
                f"{each.to_sdpa:>7.2f} {each.to_off:>7.2f} {peak:>9}"
            )
        return "\n".join(lines)


def bench_sharpness(
    *,
    device: str | None = None,
    lengths: Sequence[int] | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    dtype: str | None = None,
    repeats: int | None = None,
    stream: IO[str] | None = None,
) -> SharpnessBenchReport:
    """Time adaptive attention beside its peers, in turn on the same inputs, and take medians.

    Arguments:
        device: `"cpu"` or `"cuda"`; by default the GPU where there is one.
        lengths: numbers of keys; prefill has as many queries, decode has one.
        heads: query heads.
        kv_heads: key heads, which divide the query heads.
        head_dim: dimensions of a head.
        dtype: of the inputs, by its name in torch.
        repeats: timed rounds, after three that are not.
        stream: where progress is shown once the bench takes over two seconds, if it is a terminal; `None`: nowhere.

    Returns:
        The report; times in milliseconds, memory in bytes.

    Errors:
        ArgumentError: a size is not positive, or there is no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise ArgumentError("device", "cpu, since this machine has no CUDA device", device)
    lengths = tuple(lengths or ((4096, 16384) if gpu else (128, 512)))
    heads = (32 if gpu else 4) if heads is None else heads
    kv_heads = max(1, heads // 4) if kv_heads is None else kv_heads
    head_dim = (128 if gpu else 64) if head_dim is None else head_dim
    dtype = dtype or ("bfloat16" if gpu else "float32")
    repeats = (30 if gpu else 5) if repeats is None else repeats
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "repeats": repeats}
    for name, number in (*sizes.items(), *(("lengths", length) for length in lengths)):
        if number < 1:
            raise ArgumentError(name, "at least 1", number)
    if heads % kv_heads:
        raise ArgumentError("kv_heads", f"a number that divides heads = {heads}", kv_heads)

    kind = getattr(torch, dtype)
    cases = [(case, length) for length in lengths for case in ("prefill", "prefill, causal", "decode")]
    timings: list[Timing] = []
    started = time.monotonic()
    console = Console(file=stream)
    with Progress(console=console, disable=stream is None or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("bench sharpness", total=len(cases), visible=False)
        for case, length in cases:
            generator = torch.Generator(device).manual_seed(length)
            options: dict[str, Any] = {"generator": generator, "device": device, "dtype": kind}
            query = torch.randn(1, heads, 1 if case == "decode" else length, head_dim, **options)
            key, value = (torch.randn(1, kv_heads, length, head_dim, **options) for _ in range(2))
            arms = _arms(query, key, value, case == "prefill, causal", gpu)
            timings += _case(case, length, arms, repeats, gpu)
            bar.update(task, advance=1, visible=time.monotonic() - started > SHOW_AFTER_S)
    settings = {"device": device, "lengths": list(lengths), "dtype": dtype, **sizes}
    return SharpnessBenchReport(settings, tuple(timings), environment(), git_commit(Path(__file__).parent))


def _arms(query: Tensor, key: Tensor, value: Tensor, causal: bool, gpu: bool) -> dict[str, Arm]:
    """What is compared: the kernel on a GPU, the streaming form on a CPU."""
    gqa = query.shape[1] != key.shape[1]

    def sdpa() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=gqa)

    if gpu:
        from holdfast.nn import Plain
        from holdfast.nn.attention import AttentionCall
        from holdfast.nn.attention.triton import host

        def kernel(**options: Any) -> Tensor:
            return host.compute(AttentionCall.of(query, key, value, causal=causal, **options))

        return {
            "sdpa": sdpa,
            "off": lambda: kernel(normaliser=Plain()),
            "adaptive": kernel,
        }
    from holdfast.nn import Plain, adaptive_attention

    plain = Plain()
    return {
        "sdpa": sdpa,
        "off": lambda: adaptive_attention(query, key, value, causal=causal, normaliser=plain),
        "adaptive": lambda: adaptive_attention(query, key, value, causal=causal),
    }


def _case(case: str, length: int, arms: dict[str, Arm], repeats: int, gpu: bool) -> list[Timing]:
    """Rounds in which every arm runs once, so that whatever slows the machine slows all of them."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    peaks: dict[str, int | None] = dict.fromkeys(arms)
    with torch.no_grad():
        for turn in range(WARMUP + repeats):
            for name, arm in arms.items():
                milliseconds = _on_gpu(arm) if gpu else _on_cpu(arm)
                if turn >= WARMUP:
                    taken[name].append(milliseconds)
        if gpu:
            for name, arm in arms.items():
                torch.cuda.synchronize()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                arm()
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() - before
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return [
        Timing(case, length, name, took, peaks[name], took / medians["sdpa"], took / medians["off"])
        for name, took in medians.items()
    ]


def _on_cpu(arm: Arm) -> float:
    started = time.perf_counter()
    arm()
    return (time.perf_counter() - started) * 1e3


def _on_gpu(arm: Arm) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    arm()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop))
