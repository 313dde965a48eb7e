"""What power-propagation adds to a step of its inner optimiser, and what second-order steps cost beside AdamW's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from holdfast.benches.harness.timing import Arm


@dataclass(frozen=True)
class Options:
    """One step of every optimiser on linear layers of the same size, with gradients that stay, and one of ResNet-18."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run, on a CPU on one thread: cpu, cuda, or auto, which is cuda where there is one."""
    width: int = 512
    """Inputs and outputs of a layer."""
    layers: int = 8
    """Layers; eight make two million parameters."""
    channels: int = 64
    """Of the first stage of the network that is trained; 64 is ResNet-18."""
    batch: int = 32
    """Images of 3 x 32 x 32 that it is trained on."""
    rounds: int = 30
    """Timed rounds at most."""
    budget: float = 40.0
    """Seconds after which no further round begins, once there are three; for the training half of it."""


TOY = Options(width=8, layers=2, channels=4, batch=2, rounds=2)

AIM_OF_ADAMW = 1.8
"""What a step of PowerProp(AdamW) may take, in steps of foreach AdamW."""
AIM_OF_TRAINING = 1.1
"""What a step of training with it may take, in steps of training with foreach AdamW."""
REFERENCES = {
    "powerprop-fused-adamw": "adamw-fused",
    "powerprop-sgd": "sgd",
    "training": "training",
    "training-powerprop": "training",
}
"""What an arm is compared with where that is not foreach AdamW."""


def run(options: Options, tell: Tell) -> Report:
    """Time all arms in turn.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, on a CPU of the processor.

    Errors:
        ArgumentError: a size is not positive, or there is no such device.
    """
    import torch

    from holdfast.benches.harness.timing import interleaved, on_gpu
    from holdfast.benches.rat.measure import processor_time
    from holdfast.benches.sharpness.arms import device_of
    from holdfast.errors import count_of

    device = device_of(options.device)
    options = replace(options, device="cuda" if device == "cuda" else "cpu")
    for name in ("width", "layers", "channels", "batch", "rounds"):
        count_of(name, getattr(options, name), 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        clock = on_gpu if options.device == "cuda" else processor_time
        times = {}
        for arms, budget_s in ((subject(options), options.budget), (training(options), options.budget / 2)):
            times.update(interleaved(arms, clock, rounds=options.rounds, budget_s=budget_s, shuffled=True))
    finally:
        torch.set_num_threads(threads)
    rows: list[Row] = list(rows_of(times))
    for row in rows:
        tell(row)
    words, number = summary(rows, aims=options.width >= 256)
    return Report(asdict(options), tuple(rows), words, number)


def subject(options: Options) -> dict[str, Arm]:
    """The arms, each an optimiser of a network of its own; those of packages that are not installed are left out."""
    from importlib.util import find_spec

    import torch
    from torch.optim import SGD, AdamW

    from holdfast.benches.harness.timing import Arm
    from holdfast.optim import PowerProp, second_order

    def adamw(model: nn.Module, **how: bool) -> Optimizer:
        return AdamW(model.parameters(), lr=1e-5, **(how or {"foreach": True}))  # type: ignore[arg-type]

    makers: dict[str, Callable[[nn.Module], Optimizer]] = {
        "adamw-foreach": adamw,
        "adamw-fused": lambda model: adamw(model, fused=True),
        "sgd": lambda model: SGD(model.parameters(), lr=1e-5),
        "powerprop-adamw 2": lambda model: PowerProp(model, adamw(model), alpha=2),
        "powerprop-adamw 3": lambda model: PowerProp(model, adamw(model), alpha=3),
        "powerprop-adamw 4": lambda model: PowerProp(model, adamw(model), alpha=4),
        "powerprop-fused-adamw": lambda model: PowerProp(model, adamw(model, fused=True), alpha=3),
        "powerprop-sgd": lambda model: PowerProp(model, SGD(model.parameters(), lr=1e-5), alpha=3),
        "muon": lambda model: second_order("muon", model, lr=1e-5, head=True),
    }
    if find_spec("pytorch_optimizer") is not None:
        makers["soap"] = lambda model: second_order("soap", model, lr=1e-5)
        makers["shampoo"] = lambda model: second_order("shampoo", model, lr=1e-5)
    arms = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(options.width, options.width, bias=False) for _ in range(options.layers)]
        model = torch.nn.Sequential(*layers).to(options.device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        arms[name] = Arm(make(model).step)
    return arms


def training(options: Options) -> dict[str, Arm]:
    """A step of training ResNet-18, with AdamW and with power-propagation around it."""
    import torch

    from holdfast.benches.harness.timing import Arm
    from holdfast.benches.plasticity.resnet import resnet18
    from holdfast.optim import PowerProp

    def step(*, powered: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        model = resnet18(options.channels).to(options.device)
        images = torch.randn(options.batch, 3, 32, 32, device=options.device)
        labels = torch.arange(options.batch, device=options.device) % 10
        inner = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)
        optimizer: Optimizer = PowerProp(model, inner, alpha=4) if powered else inner

        def once() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return once

    return {"training": Arm(step(powered=False)), "training-powerprop": Arm(step(powered=True))}


def rows_of(times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A row an arm: times, and what they are of its reference's in the same round.

    Arguments:
        times: milliseconds of each arm by round.
    """
    from holdfast.benches.harness.timing import ratio

    rows = []
    for name, taken in times.items():
        reference = REFERENCES.get(name, "adamw-foreach")
        share = ratio(taken, times[reference])
        mean = statistics.fmean(taken)  # what is done every tenth step is in it
        row = {"arm": name, "ms": statistics.median(taken), "mean_ms": mean, "reference": reference}
        rows.append({**row, "ratio": share.median, "low": share.low, "high": share.high, "rounds": len(taken)})
    return rows


def summary(rows: Sequence[Mapping[str, Any]], *, aims: bool) -> tuple[str, float | None]:
    """The result in a phrase, and the slowest PowerProp(AdamW) in steps of foreach AdamW."""
    ratios = {row["arm"]: row["ratio"] for row in rows}
    powered = [value for name, value in ratios.items() if name.startswith("powerprop-adamw")]
    if not powered:
        return "no time was measured", None
    slowest = max(powered)
    judged = f" (aim {AIM_OF_ADAMW:g}{', missed' if slowest > AIM_OF_ADAMW else ''})" if aims else ""
    words = [f"PowerProp(AdamW) takes {slowest:.2f} steps of foreach AdamW{judged}"]
    for name in ("powerprop-fused-adamw", "powerprop-sgd"):
        words += [f"{name} {ratios[name]:.2f} of {REFERENCES[name]}'s"] if name in ratios else []
    if "training-powerprop" in ratios:
        share = ratios["training-powerprop"]
        judged = f" (aim {AIM_OF_TRAINING:g}{', missed' if share > AIM_OF_TRAINING else ''})" if aims else ""
        words += [f"training ResNet-18 with it {share:.2f} of training with AdamW{judged}"]
    words += [f"{name} {ratios[name]:.1f}" for name in ("muon", "soap", "shampoo") if name in ratios]
    return ", ".join(words), slowest
