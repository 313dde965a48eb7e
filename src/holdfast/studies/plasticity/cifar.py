"""Part `cifar`: the paper's warm start on CIFAR-10, from files of the user.

The images are those of the binary version: data_batch_1.bin and so on, and test_batch.bin, records of a label and 3,072
bytes. Without a folder the part has no trials, and its claims say what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    depends_on,
    equivalent,
    paired_difference,
    progress,
    unusable,
)
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from holdfast.lab import Record

SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE * SIDE

NORMS = ("held", "free")
SCHEDULES = {"rewarm": "re-warmed", "detected": "re-warmed when detected", "decay": "one decay"}

MISSING = "no images: name a folder with the binary version of CIFAR-10:  --config.cifar.folder PATH"


@dataclass(frozen=True, kw_only=True)
class CifarConfig:
    """Networks that learn a part of CIFAR-10, then all of it.

    Arguments:
        folder: with the binary version; empty: the part is left out.
        fractions: of the images in the first phase, ascending; the last is all of them.
        epochs: of each phase over its images, Adam.
        batch: images a step.
        rate: peak of the learning rate.
        final: lowest rate, as a share of the peak.
        channels: of each of the three convolutions.
        hidden: units of the layer after them.
        device: where.
    """

    folder: str = ""
    fractions: tuple[float, ...] = (0.1, 0.5, 1.0)
    epochs: int = 70
    batch: int = 128
    rate: float = 1e-3
    final: float = 1 / 30
    channels: int = 32
    hidden: int = 256
    device: str = "cuda"


def trials(config: Any) -> Iterator[Trial[CifarConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: CifarConfig = config.cifar
    if not settings.folder:
        return
    for seed in config.dear_range:
        for fraction in settings.fractions:
            for schedule in SCHEDULES:
                for norms in NORMS:
                    labels: dict[str, str | float] = {"fraction": fraction, "schedule": schedule, "norms": norms}
                    gpu = 0.25 if settings.device.startswith("cuda") else 0.0
                    yield Trial(seed, settings, labels, cost=2.0 * settings.epochs * (1 + fraction), gpu=gpu)


def images_of(folder: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images as bytes (n, 3, 32, 32), and labels: to learn from, and to test on.

    Errors:
        ArgumentError: a file is missing or not of this format.
    """
    import numpy as np
    import torch

    train, test = sorted(Path(folder).glob("data_batch_*.bin")), Path(folder) / "test_batch.bin"
    if not train or not test.is_file():
        raise ArgumentError("folder", "one with data_batch_1.bin and so on, and test_batch.bin", folder)
    parts = []
    for files in (train, [test]):
        rows = []
        for file in files:
            depends_on(file)
            content = np.fromfile(file, np.uint8)
            if not len(content) or len(content) % RECORD or content[::RECORD].max() >= CLASSES:
                raise ArgumentError("folder", f"records of {RECORD} bytes that begin with a label below 10", str(file))
            rows.append(torch.from_numpy(content).view(-1, RECORD))
        joined = torch.cat(rows)
        parts.append((joined[:, 1:].view(-1, 3, SIDE, SIDE), joined[:, 0].long()))
    return parts[0], parts[1]


def network(config: CifarConfig, seed: int) -> nn.Sequential:
    """Three convolutions of stride 2, each with LayerNorm over the image and ReLU, a hidden layer and a read-out.

    No biases, which would make effective learning rates differ; He weights, those of the read-out from N(0, 1/fan in).
    Source: arXiv 2507.20057, appendix A; strides and the width of the hidden layer are not given there.
    """
    import torch
    from torch import nn

    from holdfast.lab.seeds import generator_for
    from holdfast.studies.plasticity.streams import WEIGHTS

    modules: list[nn.Module] = []
    for inputs, size in ((3, 5), (config.channels, 3), (config.channels, 3)):
        modules += [
            nn.Conv2d(inputs, config.channels, size, stride=2, padding=size // 2, bias=False),
            nn.GroupNorm(1, config.channels),
            nn.ReLU(),
        ]
    flat = config.channels * (SIDE // 8) ** 2
    hidden = [nn.Linear(flat, config.hidden, bias=False), nn.LayerNorm(config.hidden), nn.ReLU()]
    model = nn.Sequential(*modules, nn.Flatten(), *hidden, nn.Linear(config.hidden, CLASSES, bias=False))
    generator = generator_for(seed, WEIGHTS)
    matrices = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    with torch.no_grad():
        for tensor in matrices:
            gain = 1.0 if tensor is matrices[-1] else math.sqrt(2)
            tensor.normal_(0.0, gain / math.sqrt(tensor[0].numel()), generator=generator)
    return model


def run(trial: Trial[CifarConfig]) -> Outcome:
    """Train one network. All arms of a seed have the same images and initial weights.

    Records: `accuracy` on test images `after` the first phase and at the end. Curve: `epochs` (test accuracy by epoch).
    """
    import torch

    from holdfast.lab.seeds import generator_for
    from holdfast.optim import Cusum, Projector, Rewarm
    from holdfast.studies.plasticity.streams import BATCHES, SPLIT

    config, seed, device = trial.config, trial.seeds[0], trial.config.device
    (images, labels), tests = images_of(config.folder)
    order = torch.randperm(len(images), generator=generator_for(seed, SPLIT))
    images, labels = images[order].to(device), labels[order].to(device)
    model = network(config, seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
    if trial.labels["norms"] == "held":
        Projector(model, optimizer)
    kind, fraction = trial.labels["schedule"], float(trial.labels["fraction"] or 0.0)
    counts = (int(fraction * len(images)), len(images))
    phases = [config.epochs * math.ceil(count / config.batch) for count in counts]
    schedule = Rewarm(
        optimizer,
        peak=config.rate,
        final=config.rate * config.final,
        period={"decay": sum(phases), "detected": phases[1]}.get(str(kind), phases[0]),
        trigger=Cusum() if kind == "detected" else None,
    )
    curve: list[Record] = []
    for number, (count, steps) in enumerate(zip(counts, phases, strict=True)):
        if number and kind == "rewarm":
            schedule = Rewarm(optimizer, peak=config.rate, final=config.rate * config.final, period=steps)
        generator = generator_for(seed, BATCHES, number)
        for _ in range(config.epochs):
            for places in torch.randperm(count, generator=generator).split(config.batch):
                chosen = places.to(device)
                loss = torch.nn.functional.cross_entropy(model(_scaled(images[chosen])), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step(loss.detach() if kind == "detected" else None)
            curve.append({"epoch": len(curve) + 1, "accuracy": _accuracy(model, tests, device)})
            progress.report(len(curve) / (2 * config.epochs), accuracy=float(curve[-1]["accuracy"] or 0.0))
    record = {"after": curve[config.epochs - 1]["accuracy"], "accuracy": curve[-1]["accuracy"]}
    return Outcome([record], {"epochs": curve})


def _scaled(images: Tensor) -> Tensor:
    """From -1 to 1."""
    return images.float() / 127.5 - 1


def _accuracy(model: nn.Module, tests: tuple[Tensor, Tensor], device: str) -> float:
    import torch

    right = 0
    with torch.no_grad():
        for images, labels in zip(*(part.split(1000) for part in tests), strict=True):
            right += int((model(_scaled(images.to(device))).argmax(1).cpu() == labels).sum())
    return right / len(tests[0])


def _values(results: Results, place: int, schedule: str, norms: str) -> Values:
    fraction = results.config.cifar.fractions[place]
    return results.by_seed("accuracy", part="cifar", fraction=fraction, schedule=schedule, norms=norms)


def _none(*values: Values) -> Evidence | None:
    return None if any(value or value.failed for value in values) else unusable(MISSING)


def _gap(results: Results) -> Evidence:
    some, every = (_values(results, place, "decay", "free") for place in (0, -1))
    test = paired_difference(some, every, threshold=-0.01, alternative="less", names=("10 % first", "all first"))
    return _none(some, every) or test


def _closes(results: Results) -> Evidence:
    some, every = (_values(results, place, "rewarm", "held") for place in (0, -1))
    return _none(some, every) or equivalent(some, every, margin=0.01, names=("10 % first", "all first"))


def _needs(results: Results) -> Evidence:
    held, free = (_values(results, 0, "rewarm", norms) for norms in NORMS)
    return _none(held, free) or paired_difference(held, free, names=("held norms", "free norms"))


CLAIMS = (
    Claim(
        "cifar-gap",
        "On CIFAR-10, with one decay and free norms, a network that had 10 % of the images first ends more than .01 "
        "below one that had all of them.",
        _gap,
        paper="a gap (figure 4)",
        family="cifar",
        scale="gpu",
    ),
    Claim(
        "cifar-closes",
        "With held norms and a re-warmed rate both end within .01.",
        _closes,
        paper="the same accuracy whatever the first fraction (figure 4)",
        family="cifar",
        scale="gpu",
    ),
    Claim(
        "cifar-norms",
        "Re-warmed after 10 % of the images, a network with held norms ends above one with free ones.",
        _needs,
        paper="cycling the rate with free norms does not close the gap (figure 4)",
        family="cifar",
        scale="gpu",
    ),
)


def draw_fractions(results: Results, axes: Axes) -> list[Record]:
    """Final accuracy by the fraction of the first phase."""
    rows: list[Record] = []
    for number, (schedule, label) in enumerate(SCHEDULES.items()):
        for norms in NORMS:
            values = {
                fraction: list(_values(results, place, schedule, norms).values())
                for place, fraction in enumerate(results.config.cifar.fractions)
            }
            line = "-" if norms == "held" else "--"
            style: dict[str, Any] = {"color": f"C{number}", "linestyle": line, "marker": "o"}
            points = draw_over_seeds(axes, values, bounds=SHARE, dots=True, label=f"{label}, norms {norms}", **style)
            rows += [
                {"schedule": schedule, "norms": norms, "fraction": x, "accuracy": mean, "low": low, "high": high}
                for x, mean, low, high, _ in points
            ]
    axes.set_xlabel("fraction of the images in the first phase")
    axes.set_ylabel("test accuracy at the end")
    legend(axes)
    return rows


part = Part(
    "cifar",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "cifar",
            "CIFAR-10: test accuracy of networks that had a fraction of the images first and all of them then. Lines "
            "are means over seeds, dots are seeds.",
            draw_fractions,
        ),
    ),
)
