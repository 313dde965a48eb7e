"""Prompts of one question, whose beginning is computed once, beside one prompt at a time and plain batches.

A Llama with random weights reads K prompts that begin with P tokens alike and go on with S of their own, and gives the
logits after the last. Arms: `one` computes prompt by prompt with the logits of every place, as `model(tokens).logits`
does; `one-last` with those of the last place; `batch` all prompts together; `shared` is
`holdfast.confidence.responders.shared_prefix`. Time is that of the processor, so that other programs do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    from torch import Tensor

LEAST = {"one": 4.0, "one-last": 2.0, "batch": 1.3}
"""How many times the processor time of `shared` each arm has to take at least at the default sizes."""

TOLERANCE = 1e-4
"""Of logits, which are of order one."""


@dataclass(frozen=True)
class Options:
    """Prompts that begin alike, beside one at a time and plain batches."""

    prefix: int = 96
    """Tokens that all prompts begin with (P)."""
    suffix: int = 64
    """Tokens of each prompt alone (S)."""
    prompts: int = 36
    """Prompts (K)."""
    vocabulary: int = 32_000
    """Tokens of the vocabulary."""
    layers: int = 4
    """Layers of the model."""
    width: int = 256
    """Of its hidden states."""
    rounds: int = 5
    """Timed rounds."""
    threads: int = 1
    """Of PyTorch."""


TOY = Options(prefix=12, suffix=4, prompts=6, vocabulary=50, layers=1, width=16, rounds=2)


def run(options: Options, tell: Tell) -> Report:
    """Time every arm once in each round.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report. Its ratio: processor time of plain batches divided by that of the shared prefix. An arm whose
        logits differ from those of one prompt at a time has no time.

    Errors:
        ArgumentError: a size is not positive.
    """
    import torch

    from holdfast.benches.harness.timing import Arm, interleaved, ratio
    from holdfast.errors import count_of

    for name, size in asdict(options).items():
        count_of(name, size, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        calls = arms(options)
        want = calls["one"]()
        errors = {name: float((call() - want).abs().max()) for name, call in calls.items()}
        timed = {name: Arm(call) for name, call in calls.items() if errors[name] <= TOLERANCE}
        milliseconds = interleaved(timed, processor_time, rounds=options.rounds, warmup=1)
    finally:
        torch.set_num_threads(threads)
    rows: list[Row] = []
    for name, taken in milliseconds.items():
        to_shared = ratio(taken, milliseconds["shared"]) if "shared" in milliseconds else None
        rows.append(
            {
                "arm": name,
                "cpu_ms": statistics.median(taken),
                "prompts_per_cpu_s": 1e3 * options.prompts / statistics.median(taken),
                "to_shared": None if to_shared is None else to_shared.median,
                "low": None if to_shared is None else to_shared.low,
                "high": None if to_shared is None else to_shared.high,
                "least": LEAST.get(name),
                "error": errors[name],
            }
        )
        tell(rows[-1])
    failures = [f"{name}: logits differ by {error:.2g}" for name, error in errors.items() if not error <= TOLERANCE]
    if options == Options():
        failures += [
            f"{row['arm']} takes {row['to_shared']:.2f} times as long as shared, not {row['least']}"
            for row in rows
            if row["least"] is not None and row["to_shared"] is not None and row["to_shared"] < row["least"]
        ]
    by_arm = {row["arm"]: row["to_shared"] for row in rows}
    words = ", ".join(f"{by_arm[name]:.1f} x over {name}" for name in LEAST if by_arm.get(name) is not None)
    return Report(
        asdict(options),
        tuple(rows),
        f"shared beginnings: {words or 'not timed'}",
        by_arm.get("batch"),
        tuple(failures),
    )


def arms(options: Options) -> dict[str, Callable[[], Tensor]]:
    """Ways to the logits after each prompt, (prompts, vocabulary)."""
    import torch
    import transformers

    from holdfast.confidence.responders.shared_prefix import LastLogits

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
    )
    model = transformers.LlamaForCausalLM(config)
    model.train(False)
    beginning = torch.randint(options.vocabulary, (options.prefix,)).tolist()
    ends = torch.randint(options.vocabulary, (options.prompts, options.suffix)).tolist()
    rows = [[*beginning, *end] for end in ends]

    def one_by_one(**more: Any) -> Tensor:
        with torch.inference_mode():
            return torch.stack([model(torch.tensor([row]), **more).logits[0, -1] for row in rows])

    def together(share: bool) -> Tensor:
        logits = torch.empty(len(rows), options.vocabulary)
        for members, last in LastLogits(model, share=share)(rows):
            logits[members] = last[:, 0]
        return logits

    return {
        "one": one_by_one,
        "one-last": lambda: one_by_one(logits_to_keep=1),
        "batch": lambda: together(False),
        "shared": lambda: together(True),
    }


def processor_time(call: Callable[[], object]) -> float:
    """Milliseconds of the processor, of all threads together."""
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1e3
