"""Every kernel compiles to the machine code of a GPU, without one: the interpreter takes more than a GPU does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")

SCRIPT = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from holdfast.nn.kernels import adaptive_attention as room

FIXED = {"law_ptr": "*fp64", "scale": "fp32", "softcap": "fp32"}
WIDE = ("h_ptr", "lse_ptr", "score_ptr", "part_ptr", "sum_ptr", "partial_ptr")


def check(kernel, dtype, dim, capability, warps, stages, **constants):
    padded = room._padded(dim)
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
    made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    print(kernel.__name__, dtype, dim, len(made.asm["cubin"]), made.metadata.shared)
    assert made.metadata.shared <= (232448 if capability == 90 else 166912)
    if dtype == "bf16" and kernel is not room._decode_merge:  # products run on tensor cores
        assert "mma" in made.asm["ptx"]


capability = int(sys.argv[1])
common = {"CAUSAL": True, "ADAPT": True, "WINDOW": False, "SOFTCAP": False}
tile = {"BLOCK_M": 128, "BLOCK_N": 64}
check(room._prefill_kernel, "bf16", 128, capability, 8, 3, **common, **tile)
check(room._prefill_kernel, "fp16", 80, capability, 4, 2, **common | {"WINDOW": True, "SOFTCAP": True}, **tile)
check(room._prefill_kernel, "bf16", 64, capability, 4, 3, **common | {"ADAPT": False, "STATISTICS": False}, **tile)
check(room._prefill_kernel, "fp32", 64, capability, 4, 2, **common, BLOCK_M=32, BLOCK_N=32)
one = {"BLOCK_N": 64, "queries": 1}
check(room._decode_scores, "bf16", 128, capability, 4, 2, **common, **one)
check(room._decode_scores, "bf16", 96, capability, 4, 2, **common | {"ADAPT": False, "SOFTCAP": True}, **one)
check(room._decode_values, "bf16", 128, capability, 4, 2, **one)
check(room._decode_merge, "bf16", 128, capability, 4, 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles(capability, tmp_path):
    pytest.importorskip("triton.backends.nvidia")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    file = tmp_path / "check.py"
    file.write_text(SCRIPT)
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", str(file), str(capability)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 8
