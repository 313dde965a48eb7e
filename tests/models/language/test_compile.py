"""torch.compile takes the training step whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("transformers")

PROGRAM = """
import json
import torch
from torch._dynamo.testing import CompileCounter
from tests.models.language.tiny import model, padded, rows

torch.set_grad_enabled(True)
network, told = model(("rat", "attention")).train(), {}
for kind in ("whole", "padded"):
    torch._dynamo.reset()
    counter, difference = CompileCounter(), 0.0
    compiled = torch.compile(network, backend=counter, fullgraph=kind == "whole")
    for length in (16, 9, 20, 11):
        ids, mask = padded(rows(length, length - 3), "left")
        given = {"input_ids": ids, "labels": ids, "num_items_in_batch": torch.tensor(7)}
        if kind == "padded":
            given["attention_mask"] = mask
        difference = max(difference, (compiled(**given).loss - network(**given).loss).abs().item())
    told[kind] = (counter.frame_count, difference)
print(json.dumps(told))
"""


@pytest.mark.slow
def test_one_graph_serves_many_lengths() -> None:
    """In a process of its own, since a compiler cannot look into run-time type checks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=250, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    # of the first length alone; of lengths that end a chunk, and of those that do not
    assert told["whole"][0] <= 3
    # what is before the mask is read and what is after it, of the first length and of all others
    assert told["padded"][0] <= 4
    assert max(told["whole"][1], told["padded"][1]) < 1e-5
