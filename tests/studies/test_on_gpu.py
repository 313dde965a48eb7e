"""The parts of the studies that name a device run on a GPU, at toy size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

pytest.importorskip("cattrs")

from holdfast.lab import Study
from holdfast.studies.action.study import study as action
from holdfast.studies.lists.study import study as lists
from holdfast.studies.macros.study import study as macros
from holdfast.studies.plasticity.study import study as plasticity
from holdfast.studies.rat.study import study as rat
from holdfast.studies.solutions.study import study as solutions
from tests.studies.action.toy import TOY as ACTION
from tests.studies.confidence.models import TOY as CONFIDENCE
from tests.studies.confidence.models import study as confidence
from tests.studies.lists.toy import TOY as LISTS
from tests.studies.macros.toy import TOY as MACROS
from tests.studies.plasticity.toy import TOY as PLASTICITY
from tests.studies.rat.toy import TOY as RAT
from tests.studies.solutions.toy import TOY as SOLUTIONS
from tests.studies.tools import results_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(config: Any) -> Any:
    """The configuration with every device in it replaced."""
    if not dataclasses.is_dataclass(config):
        return config
    changes = {
        field.name: "cuda" if field.name == "device" else on_gpu(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init
    }
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("study", "config", "part"),
    [
        (lists, LISTS, "neural"),
        (rat, RAT, "needles"),
        (rat, RAT, "language"),
        (rat, RAT, "positions"),
        (rat, RAT, "cost"),
        (rat, RAT, "throughput"),
        (plasticity, PLASTICITY, "sweep"),
        (plasticity, PLASTICITY, "offsets"),
        (action, ACTION, "latency"),
        (action, ACTION, "parity"),
        (confidence, CONFIDENCE, "trained"),
        (confidence, CONFIDENCE, "emergence"),
        (solutions, SOLUTIONS, "glyphs"),
        (solutions, SOLUTIONS, "vit"),
        (macros, MACROS, "minatar"),
    ],
    ids=lambda value: value.name if isinstance(value, Study) else value if isinstance(value, str) else "",
)
def test_a_part_runs(study: Study[Any], config: Any, part: str) -> None:
    results = results_of(study, on_gpu(config), part)
    for _, outcome in results.outcomes:
        assert outcome.records
        for row in outcome.records:
            assert not any(math.isnan(value) for value in row.values() if isinstance(value, float)), row
