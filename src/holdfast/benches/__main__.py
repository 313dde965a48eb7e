"""Run the GPU tests and all benches that a device serves: `python -m holdfast.benches`, from `src` if need be.

It needs torch, numpy, jaxtyping and pytest, and none of the other packages of the command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from holdfast.benches.harness.unattended import CANNOT_START, Run, pieces, run_unattended
from holdfast.benches.registry import BENCHES
from holdfast.errors import did_you_mean

ROOT = Path(__file__).parents[3]


def main(words: list[str]) -> int:
    """Parse the command line and run.

    Returns:
        Exit status, as `run_unattended` says.
    """
    parser = argparse.ArgumentParser("python -m holdfast.benches", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="BENCH", help="only these; all by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="where to run")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, which prove only that everything runs")
    parser.add_argument("--budget", type=float, default=345.0, help="seconds for all of it (default: 345)")
    parser.add_argument("--no-tests", action="store_true", help="leave out the GPU tests")
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    options = parser.parse_args(words)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        hint = did_you_mean(unknown[0], BENCHES)
        parser.error(f"no bench named {unknown[0]!r}.{hint} There are: {', '.join(BENCHES)}")
    lines = options.output or _usual_file(options.device)
    try:
        lines.parent.mkdir(parents=True, exist_ok=True)
        lines.open("a").close()
    except OSError as error:
        print(f"holdfast.benches: error: cannot write {lines}: {error.strerror}", file=sys.stderr)
        return CANNOT_START
    benches = {name: bench for name, bench in BENCHES.items() if not options.names or name in options.names}
    chosen = pieces(benches, options.device, ROOT, tests=not options.no_tests and not options.names)
    root = ROOT if (ROOT / "tests").is_dir() else Path.cwd()
    return run_unattended(Run(options.device, options.toy, options.budget, lines.absolute(), root), chosen)


def _usual_file(device: str) -> Path:
    """`gpu.jsonl` in the folder named by `OUT`, else among the results; what a CPU measures is not kept there."""
    out = os.environ.get("OUT")
    if out:
        return Path(out) / "gpu.jsonl"
    return ROOT / "benchmarks" / "results" / "gpu.jsonl" if device == "cuda" else ROOT / "build" / "benches.jsonl"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
