"""torch.compile takes the training step, at any length."""

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

told = {}
for mixers, is_padded in ((("attention",), False), (("rat", "window"), True)):
    torch._dynamo.reset()
    network, counter, graphs, difference = model(mixers).train(), CompileCounter(), [], 0.0
    compiled = torch.compile(network, backend=counter, fullgraph=not is_padded)
    for length in (16, 9, 20, 11, 32):
        ids, mask = padded(rows(length, length - 3), "left")
        given = {"input_ids": ids, "labels": ids, "num_items_in_batch": torch.tensor(7)}
        if is_padded:
            given["attention_mask"] = mask
        difference = max(difference, (compiled(**given).loss - network(**given).loss).abs().item())
        graphs.append(counter.frame_count)
    told["+".join(mixers)] = (graphs, difference)
print(json.dumps(told))
"""


@pytest.mark.slow
def test_graphs_serve_many_lengths() -> None:
    """In a process of its own, since a compiler cannot look into run-time type checks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=250, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    # the whole step is one graph: of the first length, and of all others
    assert told["attention"][0] == [1, 2, 2, 2, 2]
    # the look at a mask and RAT's core are outside; lengths that end a chunk differ from those that do not
    graphs = told["rat+window"][0]
    assert graphs[2:] == [graphs[2]] * 3
    assert max(difference for _, difference in told.values()) < 1e-5
