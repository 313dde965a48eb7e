"""A process that does one piece of an unattended run: it may raise, hang or die without harm to the others.

It is given one JSON document as its only argument, writes rows to the run's file as they are measured, and leaves a
report in a file of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from holdfast.benches.harness.errand import Errand, die_with_parent
from holdfast.benches.harness.gpu_tests import run_tests
from holdfast.benches.harness.machine import commit, machine, versions
from holdfast.benches.harness.report import finite
from holdfast.benches.registry import Bench, Device


def main(words: list[str]) -> int:
    """Do the errand."""
    die_with_parent()
    errand = Errand.of(words[0])
    if errand.bench is not None:
        bench = Bench(**errand.bench)
        report = bench.run(bench.options(errand.device, toy=errand.toy), errand.tell).to_dict()
    elif errand.tests:
        report = run_tests(errand)
    else:
        report = describe(errand.device)
    path = Path(errand.report)
    path.with_suffix(".new").write_text(json.dumps(finite(report)), encoding="utf-8")
    path.with_suffix(".new").rename(path)
    return 0


def describe(device: Device) -> dict[str, Any]:
    """The machine, its versions, and what is missing there: without these nothing can be measured."""
    missing = []
    for name in ("numpy", "torch", "jaxtyping"):
        try:
            __import__(name)
        except Exception as error:
            missing.append(f"{name} ({type(error).__name__}: {error})")
    problem = ""
    if missing:
        problem = f"cannot import {', '.join(missing)}; jaxtyping comes with build/gpu-packages, which "
        problem += "`make gpu-packages` fills where there is a network"
    elif device == "cuda":
        import torch

        if not torch.cuda.is_available():
            problem = "there is no CUDA device; rehearse with --device cpu --toy"
        else:
            torch.ones(8, device="cuda").sum().item()
    document = {"machine": machine(), "versions": versions(), "commit": commit()}
    return document | ({"problem": problem} if problem else {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
