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

from holdfast.nn.xlstm.triton.gradient_kernels import (
    key_gradient_kernel, memory_gradient_kernel, value_gradient_kernel,
)
from holdfast.nn.xlstm.triton.kernels import memories_kernel, output_kernel, units_kernel

OF_TOKENS = ("q_ptr", "k_ptr", "v_ptr", "o_ptr", "dy_ptr", "dq_ptr", "dk_ptr", "dv_ptr")


def check(kernel, dtype, **constants):
    names = kernel.arg_names
    signature = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in names}
    signature |= {name: "*" + dtype for name in names if name in OF_TOKENS}
    signature |= {name: "fp32" for name in names if name == "eps"}
    signature |= {name: "constexpr" for name in names if name in constants}
    values = {(place,): constants[name] for place, name in enumerate(names) if name in constants}
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name.endswith("_ptr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    for target in (80, 90):
        made = compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": 4, "num_stages": 3})
        print(kernel.__name__, dtype, target, len(made.asm["cubin"]), made.metadata.shared)
        # The least of a multiprocessor's shared memory that either kind of device has.
        assert made.metadata.shared <= 166912
        if dtype == "bf16" and "SIZE" in constants:  # products run on tensor cores
            assert "mma" in made.asm["ptx"]


check(units_kernel, "fp32", BLOCK_H=32)
sizes = {"DIM": 640, "VALUE_DIM": 640, "SIZE": 64, "BLOCK_K": 64, "BLOCK_V": 64}
small = {"DIM": 5, "VALUE_DIM": 7, "SIZE": 16, "BLOCK_K": 16, "BLOCK_V": 16}
for kernel in (memories_kernel, output_kernel, memory_gradient_kernel, key_gradient_kernel, value_gradient_kernel):
    check(kernel, "bf16", **sizes)
    # Where a size is 1, the kernel sees a number instead of an argument.
    ones = {name: 1 for name in ("time", "chunks", "heads") if name in kernel.arg_names}
    check(kernel, "fp32", **small, **ones)
"""


@pytest.mark.slow
def test_every_kernel_compiles(tmp_path):
    """For two architectures: a process of its own, since the interpreter may be on in this one."""
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
    assert len(answer.stdout.splitlines()) == 22
