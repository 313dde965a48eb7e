"""What projection and the monitor add to a step, beside Adam's own and beside a whole step of training."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from holdfast.benches.harness.timing import Arm


@dataclass(frozen=True)
class Options:
    """One step of ResNet-18: Adam, projection, the monitor, forward and backward."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    width: int = 64
    """Channels of the first stage; 64 is ResNet-18."""
    batch: int | None = None
    """Images of 3 x 32 x 32; unless given, 8 on a CPU and 128 on a GPU."""
    every: int = 50
    """The monitor measures at every step of this number."""
    rounds: int = 30
    """Timed rounds at most."""
    budget: float = 30.0
    """Seconds after which no further round begins, once there are three."""


TOY = Options(width=4, batch=2, rounds=2)

AIM_OF_ADAM = 0.30
"""What projection may take of a step of foreach Adam."""
AIM_OF_TRAINING = 0.02
"""What the monitor may take of a step of training, on average."""
REFERENCES = ("adam-foreach", "adam-fused", "training")


def run(options: Options, tell: Tell) -> Report:
    """Time all arms in turn on the same weights and gradients; on a GPU count what is copied to the host too.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, on a CPU of the processor.

    Errors:
        ArgumentError: a size is not positive, or there is no such device.
    """
    import torch

    from holdfast.benches.sharpness.arms import device_of
    from holdfast.errors import count_of

    device = device_of(options.device)
    gpu = device == "cuda"
    batch = options.batch if options.batch is not None else (128 if gpu else 8)
    options = replace(options, device="cuda" if gpu else "cpu", batch=batch)
    for name in ("width", "batch", "every", "rounds"):
        count_of(name, getattr(options, name), 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, failures = _measured(options, tell)
        if gpu:
            copied = _copies(options)
            for row in copied:
                tell(row)
            rows += copied
            failures += [
                f"{row['arm']}: {row['host_copies']:g} copies to the host a step"
                for row in copied[1:]
                if row["host_copies"] > copied[0]["host_copies"]
            ]
    finally:
        torch.set_num_threads(threads)
    words, number = summary(rows, options.every, aims=options.width >= 64)
    return Report(asdict(options), tuple(rows), words, number, tuple(failures))


def _measured(options: Options, tell: Tell) -> tuple[list[Row], list[str]]:
    """Rows of times."""
    from holdfast.benches.harness.timing import interleaved, on_gpu, peak_on_cpu, peak_on_gpu
    from holdfast.benches.rat.measure import processor_time

    gpu = options.device == "cuda"
    arms, wrong = subject(options)
    peaks = {name: (peak_on_gpu if gpu else peak_on_cpu)(arm) for name, arm in arms.items()}
    clock = on_gpu if gpu else processor_time
    times = interleaved(arms, clock, rounds=options.rounds, budget_s=options.budget, shuffled=True)
    rows: list[Row] = []
    for name, row in rows_of(times, options.every).items():
        peak = peaks.get(name)
        rows.append({**row, "peak_mib": None if peak is None else round(peak / 2**20, 2)})
        tell(rows[-1])
    return rows, wrong


def subject(options: Options) -> tuple[dict[str, Arm], list[str]]:
    """The arms, all on one network whose gradients stay as they are, and what is wrong with them."""
    import torch
    from torch import nn

    from holdfast.benches.harness.timing import Arm
    from holdfast.benches.plasticity.resnet import resnet18
    from holdfast.optim import EffectiveLR, Projector

    torch.manual_seed(0)
    model = resnet18(options.width).to(options.device)
    images = torch.randn(options.batch or 1, 3, 32, 32, device=options.device)
    labels = torch.randint(10, (options.batch or 1,), device=options.device)
    foreach = torch.optim.Adam(model.parameters(), lr=1e-5, foreach=True)
    fused = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    # Parts on an optimiser of their own, which makes no step: their calls are timed alone.
    idle = torch.optim.Adam(model.parameters(), lr=1e-5)
    projector = Projector(model, idle)
    monitor = EffectiveLR(model, idle, every=1)

    def pass_() -> None:
        model.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model(images), labels).backward()

    def measure() -> None:
        monitor._before = {}  # what a step that comes seldom keeps
        monitor.before_step()
        monitor.after_step()

    pass_()
    for optimizer in (foreach, fused):
        optimizer.step()
    wrong = []
    projector.project()
    for layer in projector.projected:
        norm, target = float(layer.parameter.detach().double().norm()), float(projector.targets[layer.name])
        if abs(norm / target - 1) > 1e-5:
            wrong.append(f"project: {layer.name} is off its norm by {abs(norm / target - 1):.1g}")
    arms: dict[str, Callable[[], object]] = {
        "adam-foreach": foreach.step,
        "adam-fused": fused.step,
        "project": projector.project,
        "monitor": measure,
        "pass": pass_,
    }
    return {name: Arm(call) for name, call in arms.items()}, wrong


def rows_of(times: Mapping[str, Sequence[float]], every: int) -> dict[str, dict[str, Any]]:
    """Rows by arm: times, and what they are of other arms' times in the same round.

    Arguments:
        times: milliseconds of each arm by round.
        every: steps between two that are measured.
    """
    from holdfast.benches.harness.timing import ratio

    full = dict(times)
    full["training"] = [a + b for a, b in zip(times["pass"], times["adam-foreach"], strict=True)]
    full[f"monitor / {every}"] = [taken / every for taken in times["monitor"]]
    rows = {}
    for name, taken in full.items():
        row: dict[str, Any] = {"arm": name, "ms": statistics.median(taken), "slowest_ms": max(taken)}
        for reference in REFERENCES:
            share = ratio(taken, full[reference])
            row[f"to_{reference}"] = share.median
            if reference == "adam-foreach":
                row |= {"low": share.low, "high": share.high}
        rows[name] = {**row, "rounds": len(taken)}
    return rows


def _copies(options: Options) -> list[dict[str, Any]]:
    """Copies from the GPU to the host a step of training: bare, and with both parts attached."""
    import torch
    from torch import nn

    from holdfast.benches.plasticity.resnet import resnet18
    from holdfast.optim import EffectiveLR, Projector

    rows = []
    for fused in (False, True):
        for attached in (False, True):
            torch.manual_seed(0)
            model = resnet18(options.width).to(options.device)
            images = torch.randn(options.batch or 1, 3, 32, 32, device=options.device)
            labels = torch.randint(10, (options.batch or 1,), device=options.device)
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=not fused, fused=fused)
            if attached:
                Projector(model, optimizer)
                EffectiveLR(model, optimizer, every=2)

            def step(model: nn.Module = model, optimizer: Optimizer = optimizer) -> None:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()  # noqa: B023
                optimizer.step()

            name = f"{'fused' if fused else 'foreach'}{' with both' if attached else ''}"
            rows.append({"arm": name, "host_copies": copies_of(step)})
    return rows


def copies_of(step: Callable[[], object], steps: int = 4) -> float:
    """Copies from a GPU to the host that one call makes, by the profiler, on average."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    return sum("Memcpy DtoH" in event.name for event in profiler.events() or ()) / steps


def summary(rows: Sequence[Mapping[str, Any]], every: int, *, aims: bool) -> tuple[str, float | None]:
    """The result in a phrase, and what projection takes of foreach Adam's step."""
    by_arm = {row["arm"]: row for row in rows}
    if "project" not in by_arm:
        return "no time was measured", None
    share = by_arm["project"]["to_adam-foreach"]
    seldom = by_arm[f"monitor / {every}"]["to_training"]
    words = [
        f"projection takes {share:.0%} of foreach Adam's step{_judged(share, AIM_OF_ADAM, aims)}",
        f"{by_arm['project']['to_adam-fused']:.0%} of fused Adam's",
        f"{by_arm['project']['to_training']:.1%} of a step of training",
        f"the monitor at every {every}th step {seldom:.2%} of it{_judged(seldom, AIM_OF_TRAINING, aims)}",
    ]
    return ", ".join(words), share


def _judged(share: float, aim: float, aims: bool) -> str:
    return f" (aim {aim:.0%}{', missed' if share > aim else ''})" if aims else ""
