"""Adaptive attention on a CPU beside PyTorch's fused attention: ratios of interleaved medians, and memory.

python benchmarks/attention_cpu.py [--length 16384] [--heads 8] [--repeats 5] [--padding 0]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import warnings

import torch

from holdfast.lab.environment import environment
from holdfast.nn import CorrectionInactiveWarning, Plain, adaptive_attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--padding", type=int, default=0, help="keys at the left that a mask hides, for all arms")
    options = parser.parse_args()
    warnings.simplefilter("ignore", CorrectionInactiveWarning)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, options.heads, options.length, options.dim) for _ in range(3))
    q *= 3
    causal = options.padding == 0
    mask = None
    if options.padding:
        mask = torch.ones(options.length, options.length, dtype=torch.bool).tril()
        mask[:, : options.padding] = False
    arms = {
        "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal),
        "plain": lambda: adaptive_attention(q, k, v, mask=mask, causal=causal, normaliser=Plain()),
        "adaptive": lambda: adaptive_attention(q, k, v, mask=mask, causal=causal),
    }
    taken: dict[str, list[float]] = {name: [] for name in arms}
    extra: dict[str, float] = {}
    with torch.no_grad():
        for _ in range(options.repeats):
            for name, arm in arms.items():
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                started = time.perf_counter()
                arm()
                taken[name].append(time.perf_counter() - started)
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
                extra[name] = max(extra.get(name, 0.0), grown)
    peer = statistics.median(taken["sdpa"])
    print(
        json.dumps(
            {
                "shape": {
                    "heads": options.heads,
                    "length": options.length,
                    "dim": options.dim,
                    "padding": options.padding,
                },
                "threads": torch.get_num_threads(),
                "ratio_to_sdpa": {name: statistics.median(times) / peer for name, times in taken.items()},
                "peak_growth_mb": extra,
                "peak_process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "environment": environment(),
            }
        )
    )


if __name__ == "__main__":
    main()
