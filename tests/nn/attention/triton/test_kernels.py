"""Every kernel compiles to the machine code of a GPU, without one: the interpreter takes more than a GPU does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")

SCRIPT = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from holdfast.nn.attention.triton import host, kernels

FIXED = {"law_ptr": "*fp64", "scale": "fp32", "softcap": "fp32"}
WIDE = ("h_ptr", "lse_ptr", "score_ptr", "part_ptr", "sum_ptr", "partial_ptr")


def check(kernel, dtype, dim, warps, stages, **constants):
    padded = host._padded(dim)
    given = {
        "DIM": dim, "VALUE_DIM": dim, "BLOCK_D": padded, "BLOCK_DV": padded, "BLOCK_S": 32, "BLOCK_R": 16,
        "q_dim": 1, "k_dim": 1, "v_dim": 1, "STATISTICS": True, **constants,
    }
    names = kernel.arg_names
    signature = {name: "*" + dtype if name.endswith("_ptr") else "i32" for name in names}
    signature |= {name: FIXED[name] for name in names if name in FIXED}
    signature |= {name: "*fp32" for name in names if name in WIDE}
    signature |= {name: "constexpr" for name in names if name in given}
    values = {(place,): given[name] for place, name in enumerate(names) if name in given}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if name.endswith(("_ptr", "_row", "_head", "_batch")) and name not in given
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages}
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.__name__, dtype, dim, len(made.asm["cubin"]), made.metadata.shared)
    assert made.metadata.shared <= 232448
    if dtype == "bf16" and kernel is not kernels.decode_merge:  # products run on tensor cores
        assert "mma" in made.asm["ptx"]


common = {"CAUSAL": True, "ADAPT": True, "WINDOW": False, "SOFTCAP": False}
tile = {"BLOCK_M": 32, "BLOCK_N": 32}
check(kernels.prefill_kernel, "bf16", 32, 4, 2, **common, **tile)
off = common | {"ADAPT": False, "STATISTICS": False, "SOFTCAP": True}
check(kernels.prefill_kernel, "fp32", 20, 4, 2, **off, **tile)
one = {"BLOCK_N": 32, "queries": 1}
check(kernels.decode_scores, "bf16", 32, 4, 2, **common, **one)
check(kernels.decode_scores, "fp16", 20, 4, 2, **common | {"ADAPT": False, "WINDOW": True}, **one)
check(kernels.decode_values, "bf16", 32, 4, 2, **one)
check(kernels.decode_merge, "bf16", 32, 4, 2)
"""


@pytest.mark.slow
def test_every_kernel_compiles(tmp_path):
    """For one architecture, at small sizes: a process of its own, since the interpreter may be on in this one."""
    pytest.importorskip("triton.backends.nvidia")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    file = tmp_path / "check.py"
    file.write_text(SCRIPT)
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", str(file)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 6
