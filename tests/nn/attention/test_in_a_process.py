"""What needs an interpreter of its own: what an import loads, traces without run-time checks of shapes, and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(script: str) -> str:
    answer = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


IMPORTED = """
import sys
import jaxtyping, numpy, torch
before = {name.partition(".")[0] for name in sys.modules}
import holdfast.nn, holdfast.nn.huggingface
print(*{name.partition(".")[0] for name in sys.modules} - before)

from holdfast.nn import adaptive_attention
q, k, v = (torch.randn(1, 2, 80, 8) for _ in range(3))
mask = torch.arange(80) >= 40
traced = torch.jit.trace(lambda q, k, v, mask: adaptive_attention(q, k, v, mask=mask), (q, k, v, mask))
torch.testing.assert_close(traced(q, k, v, ~mask), adaptive_attention(q, k, v, mask=~mask))
compiled = torch.compile(adaptive_attention, backend="eager", fullgraph=True)
for query in (q, q.clone().requires_grad_()):
    for options in ({"causal": True}, {"mask": mask}):
        expected = adaptive_attention(query, k, v, **options)
        torch.testing.assert_close(compiled(query, k, v, **options), expected)
"""


def test_importing_loads_little_and_traces_hold_on_to_no_value():
    """A trace of one mask is right for another, and compilers follow without a break."""
    loaded = set(run(IMPORTED).split())
    assert "holdfast" in loaded
    assert loaded - {"holdfast"} - set(sys.stdlib_module_names) == set()


LONG = """
import resource, torch
from holdfast.nn import Adaptive, Plain, adaptive_attention, adaptive_softmax
from holdfast.nn.attention import fused
torch.manual_seed(0)
q, k, v = (torch.randn(1, 8, 4096, 64, requires_grad=True) for _ in range(3))
rows = torch.arange(4000, 4016)
with torch.no_grad():
    z = (q[:, :, rows] @ k.mT / 8).masked_fill(torch.arange(4096) > rows[:, None], float("-inf"))
    expected = {Adaptive(): adaptive_softmax(z) @ v, Plain(): z.softmax(-1) @ v}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for recorded in (False, True):
    with torch.set_grad_enabled(recorded):
        for normaliser, of_rows in expected.items():
            output = adaptive_attention(q, k, v, causal=True, normaliser=normaliser)
            torch.testing.assert_close(output.detach()[:, :, rows], of_rows, atol=1e-3, rtol=1e-3)
            if recorded:
                torch.autograd.grad(output.sum(), (q, k, v))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_long_inputs_need_little_memory():
    """Forward and backward: a table of scores would take 537 MB, what SDPA keeps takes 70."""
    assert float(run(LONG)) < 250
