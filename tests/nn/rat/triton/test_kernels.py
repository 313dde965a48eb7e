"""Every kernel compiles to the machine code of GPUs, without one: the interpreter takes more than a GPU does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")

SCRIPT = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from holdfast.nn.rat.triton.decode_kernels import merge_kernel, step_kernel
from holdfast.nn.rat.triton.gradient_kernels import (
    query_gradient_kernel, state_gradient_kernel, state_scan_gradient_kernel,
)
from holdfast.nn.rat.triton.kernels import attend_kernel, states_kernel, turn_kernel

FIXED = {"cycles_ptr": "*fp64", "count_ptr": "*i64", "scale": "fp32", "factor": "fp32"}
WIDE = (
    "g_ptr", "own_ptr", "own_weight_ptr", "own_gradient_ptr", "lse_ptr", "delta_ptr", "sums_ptr", "partial_ptr",
    "start_k_ptr", "start_v_ptr", "end_k_ptr", "end_v_ptr", "start_dk_ptr", "start_dv_ptr", "end_dk_ptr", "end_dv_ptr",
)
DIM = 20


def check(kernel, dtype, **constants):
    given = {"DIM": DIM, "HALF": DIM // 2, "BLOCK_D": 32, "BLOCK_H": 16, **constants}
    names = kernel.arg_names
    signature = {name: "*" + dtype if name.endswith("_ptr") else "i32" for name in names}
    signature |= {name: FIXED[name] for name in names if name in FIXED}
    signature |= {name: "*fp32" for name in names if name in WIDE}
    signature |= {name: "constexpr" for name in names if name in given}
    values = {(place,): given[name] for place, name in enumerate(names) if name in given}
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name.endswith("_ptr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    for target in (80, 90):
        made = compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": 4, "num_stages": 2})
        print(kernel.__name__, dtype, target, len(made.asm["cubin"]), made.metadata.shared)
        # The least of a multiprocessor's shared memory that either kind of device has.
        assert made.metadata.shared <= 166912
        if dtype == "bf16" and "BLOCK_M" in constants:  # products run on tensor cores
            assert "mma" in made.asm["ptx"]


tiles = {"BLOCK_M": 32, "BLOCK_N": 32}
check(states_kernel, "bf16", BLOCK_C=4, PAST=True, KEYS=True)
check(turn_kernel, "bf16", BLOCK_R=8, TURN=-1, PAST=True, OWN=True)
check(attend_kernel, "bf16", **tiles, PAST=True, LSE=True)
# Where a size is 1, the kernel sees a number instead of an argument.
ones = {"heads": 1, "groups": 1, "chunk_size": 1}
check(attend_kernel, "fp32", **tiles, **ones, PAST=False, LSE=False)
check(query_gradient_kernel, "bf16", **tiles, PAST=True)
check(state_gradient_kernel, "bf16", **tiles, PAST=True)
check(state_gradient_kernel, "fp16", **tiles, **ones, PAST=False, time=1, keys=1, splits=1)
check(state_scan_gradient_kernel, "bf16", BLOCK_C=4, PAST=True)
check(state_scan_gradient_kernel, "fp32", BLOCK_C=1, **ones, PAST=False, time=1, chunks=1)
check(step_kernel, "bf16", BLOCK_N=32, ROPE=True, SPLIT=True)
check(step_kernel, "fp32", BLOCK_N=32, ROPE=False, SPLIT=False, heads=1, groups=1, splits=1, capacity=1)
check(merge_kernel, "bf16", BLOCK_S=8)
"""


@pytest.mark.slow
def test_every_kernel_compiles(tmp_path):
    """For two architectures, at small sizes: a process of its own, since the interpreter may be on in this one."""
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
    assert len(answer.stdout.splitlines()) == 24
