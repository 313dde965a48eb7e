"""All benches by name. A new one is one file, which `Bench.module` describes, and one entry here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol, cast

from holdfast.benches.harness.report import Report
from holdfast.errors import lacking

Device = Literal["cpu", "cuda"]

Tell = Callable[[Mapping[str, Any]], None]
"""Called with each row of the report as soon as it is measured."""


class BenchModule(Protocol):
    """What the file of a bench has. Importing it loads nothing heavy: torch and numpy wait until `run`."""

    Options: type[Any]
    """Frozen dataclass of the settings, all with a default. One called `device` says where to run."""

    TOY: Any
    """Options that take seconds on any machine: they prove that everything runs, and measure nothing."""

    run: Callable[[Any, Tell], Report]


@dataclass(frozen=True)
class Bench:
    """A bench, known without being loaded, so that one whose packages are missing harms no other.

    Arguments:
        name: system and subject.
        line: what it measures, and beside which peer.
        module: where its file is.
        value: unattended runs take benches of a high value first.
        devices: where it can run.
        limit_s: seconds that it asks for: an unattended run shares out its own in proportion.
        needs: modules that it imports beyond torch and numpy, and what to give pip for each.
    """

    name: str
    line: str
    module: str
    value: int
    devices: tuple[Device, ...] = ("cpu",)
    limit_s: float = 60.0
    needs: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Those of the needed modules that are not installed."""
        return lacking(self.needs)

    def load(self) -> BenchModule:
        """Import the file."""
        return cast("BenchModule", import_module(self.module))

    def options(self, device: Device, *, toy: bool) -> Any:
        """Settings of an unattended run."""
        module = self.load()
        options = module.TOY if toy else module.Options()
        names = {field.name for field in dataclasses.fields(options)}
        return dataclasses.replace(options, device=device) if "device" in names else options

    def run(self, options: Any, tell: Tell = lambda row: None) -> Report:
        """Measure, and put the name on the report."""
        return dataclasses.replace(self.load().run(options, tell), bench=self.name)


BENCHES = {
    bench.name: bench
    for bench in (
        Bench(
            "sharpness-prefill",
            "adaptive-temperature attention over a whole text, beside PyTorch's fused attention",
            "holdfast.benches.sharpness.prefill",
            value=100,
            devices=("cuda", "cpu"),
            limit_s=55.0,
        ),
        Bench(
            "sharpness-decode",
            "adaptive-temperature attention of one new token, beside PyTorch's fused attention",
            "holdfast.benches.sharpness.decode",
            value=95,
            devices=("cuda", "cpu"),
            limit_s=25.0,
        ),
        Bench(
            "sharpness-cost",
            "attention in training, its row statistics and batched decoding, beside PyTorch's fused attention",
            "holdfast.benches.sharpness.cost",
            value=90,
            devices=("cuda", "cpu"),
            limit_s=30.0,
        ),
        Bench(
            "rat-core",
            "RAT's core in prefill, training and decoding, beside PyTorch's fused attention",
            "holdfast.benches.rat.core",
            value=98,
            devices=("cuda", "cpu"),
            limit_s=70.0,
        ),
        Bench(
            "rat-layer",
            "the whole RAT layer, beside a layer of attention",
            "holdfast.benches.rat.layer",
            value=93,
            devices=("cuda", "cpu"),
            limit_s=30.0,
        ),
        Bench(
            "action-serve",
            "latency of the server of action models for several loops, beside the server without a model",
            "holdfast.benches.action.serve",
            value=62,
            limit_s=120.0,
            needs=dict.fromkeys(("prometheus_client", "starlette", "uvicorn"), "holdfast[serving]"),
        ),
        Bench(
            "action-step",
            "one step of control after long episodes, beside NX-AI's xLSTM and transformers with and without a cache",
            "holdfast.benches.action.step",
            value=97,
            devices=("cuda", "cpu"),
            limit_s=60.0,
        ),
        Bench(
            "action-windows",
            "xLSTM in prefill and training, beside NX-AI's and a transformer",
            "holdfast.benches.action.windows",
            value=92,
            devices=("cuda", "cpu"),
            limit_s=30.0,
        ),
        Bench(
            "plasticity",
            "projection and the monitor of effective learning rates, beside Adam's step and a step of training",
            "holdfast.benches.plasticity.step",
            value=88,
            devices=("cuda", "cpu"),
            limit_s=30.0,
        ),
        Bench(
            "watch-cost",
            "training with the callback that watches it, beside the same training without",
            "holdfast.benches.watch.cost",
            value=42,
            limit_s=240.0,
            needs={"transformers": "holdfast[hf]", "accelerate": "holdfast[hf]", "lightning": "holdfast[lightning]"},
        ),
        Bench(
            "solutions",
            "power-propagation beside its inner optimiser, and second-order steps beside AdamW's",
            "holdfast.benches.solutions.step",
            value=70,
            devices=("cuda", "cpu"),
            limit_s=30.0,
        ),
        Bench(
            "macros",
            "updates of Rainbow beside a plain twin, and what the penalty and learning the similarity add",
            "holdfast.benches.macros.rainbow",
            value=68,
            devices=("cuda", "cpu"),
            limit_s=30.0,
        ),
        Bench(
            "confidence-prefix",
            "prompts that begin alike through a language model, beside one at a time and plain batches",
            "holdfast.benches.confidence.prefix",
            value=60,
            needs={"transformers": "holdfast[hf]"},
        ),
        Bench(
            "lists-glue",
            "gluing pair words to a list, beside numpy's argsort of as many numbers",
            "holdfast.benches.lists.glue",
            value=50,
            needs={"scipy": "scipy"},
        ),
        Bench(
            "lists-robust",
            "lists recovered from wrong votes on pairs, beside merge sort with the same votes",
            "holdfast.benches.lists.robust",
            value=40,
            needs={"scipy": "scipy"},
        ),
        Bench(
            "lists-topk",
            "the best k of a list by windows, beside a sliding window and a tournament",
            "holdfast.benches.lists.topk",
            value=39,
            needs={"scipy": "scipy"},
        ),
        Bench(
            "confidence-analysis",
            "analysing trials of minds that change, beside scipy's bootstrap of the same contrasts",
            "holdfast.benches.confidence.analysis",
            value=45,
            limit_s=180.0,
            needs={"scipy": "scipy"},
        ),
        Bench(
            "llm-client",
            "requests a second of the client to language models, beside the bare HTTP library",
            "holdfast.benches.llm.client",
            value=38,
            needs={"aiohttp": "holdfast[llm]", "tenacity": "holdfast[llm]", "uvicorn": "holdfast[serving]"},
        ),
        Bench(
            "lab-verdicts",
            "how often verdicts from few seeds are wrong, beside the plain t-test",
            "holdfast.benches.lab.verdicts",
            value=35,
            needs={"scipy": "scipy"},
        ),
        Bench(
            "lab-overhead",
            "what the lab adds to a trial, beside the standard library's process pool",
            "holdfast.benches.lab.overhead",
            value=30,
            needs={name: name for name in ("filelock", "jinja2", "rich")},
        ),
    )
}
"""In the order in which they are listed."""
