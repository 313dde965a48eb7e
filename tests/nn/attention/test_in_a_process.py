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


TRACED = """
import torch, transformers
from holdfast.nn import Entmax, Llama4, Sparsemax, adaptive_attention, attention_statistics, attention_weights
from holdfast.nn.huggingface import register

class Attention(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options
    def forward(self, query, key, value):
        return adaptive_attention(query, key, value, **self.options)

def heads(time):
    return tuple(torch.randn(1, 2, time, 8) for _ in range(3))

length = torch.export.Dim("length", min=2, max=4096)
shapes = dict.fromkeys(("query", "key", "value"), {2: length})
for options in ({}, {"window": 5, "softcap": 2.0, "normaliser": Entmax()}):
    layer = Attention(causal=True, **options)
    program = torch.export.export(layer, heads(24), dynamic_shapes=shapes).module()
    for time in (24, 3, 700):
        inputs = heads(time)
        torch.testing.assert_close(program(*inputs), layer(*inputs), atol=1e-4, rtol=1e-4)

class Rows(torch.nn.Module):
    def forward(self, query, key):
        sinks = torch.ones(query.shape[1])
        return (
            attention_weights(query, key, causal=True),
            attention_statistics(query, key, causal=True, sinks=sinks).entropy,
        )

def grouped(time):
    return torch.randn(1, 4, time, 8), torch.randn(1, 2, time, 8)

program = torch.export.export(Rows(), grouped(24), dynamic_shapes=dict.fromkeys(("query", "key"), {2: length})).module()
for time in (3, 700):
    inputs = grouped(time)
    torch.testing.assert_close(program(*inputs), Rows()(*inputs), atol=1e-4, rtol=1e-4)

for normaliser in (Entmax(), Sparsemax(), Entmax(1.3)):
    logits = torch.randn(3, 9, requires_grad=True)
    compiled = torch.compile(normaliser.weights, fullgraph=True, backend="eager")
    value = torch.randn(9)
    expected = torch.autograd.grad((normaliser.weights(logits) @ value).sum(), logits)
    torch.testing.assert_close(torch.autograd.grad((compiled(logits) @ value).sum(), logits), expected)

config = transformers.LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
def tokens(time):
    return torch.randint(3, 97, (2, time))
torch.manual_seed(0)

def model(name):
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM._from_config(config, attn_implementation=name).eval()
    for weight in made.parameters():
        weight.requires_grad_(False).mul_(4)
    return made

made = model(register())
shapes = {"input_ids": {1: torch.export.Dim("time", min=2, max=128)}, "use_cache": None}
program = torch.export.export(made, (tokens(12),), {"use_cache": False}, dynamic_shapes=shapes).module()
for time in (12, 3, 100):
    ids = tokens(time)
    torch.testing.assert_close(program(ids, use_cache=False).logits, made(ids).logits, atol=1e-3, rtol=1e-3)

# A static cache keeps its position in a tensor, and most of its slots are empty.
made = model(register("holdfast_traced", Llama4(attn_scale=0.5, floor_scale=4.0)))
ids, cache = tokens(14), transformers.StaticCache(config, max_cache_len=20)
full = made(ids, use_cache=False).logits
made(ids[:, :10], past_key_values=cache, use_cache=True)
step = torch.compile(made.forward, fullgraph=True, backend="eager")
for t in range(10, 14):
    last = step(ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits[:, -1]
    torch.testing.assert_close(last, full[:, t], atol=1e-3, rtol=1e-3)
"""


def test_compilers_and_exports_of_any_length():
    """Attention, normalisers and whole models: one graph, the numbers of the eager run."""
    pytest.importorskip("transformers")
    run(TRACED)


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
