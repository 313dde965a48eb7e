"""`holdfast generate`: continue a text with a language model."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from holdfast.cli.parsing import OK, as_typed, parse, say
from holdfast.errors import require


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Continue a text with a language model."""

    model: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MODEL")] = None
    """Folder with a model and its tokenizer, as save_pretrained and holdfast train language write it; the small one
    that the package ships unless given."""
    prompt: str = ""
    """Text to continue; - reads it from standard input."""
    tokens: int = 200
    """Most tokens to add."""
    temperature: float | None = None
    """Of the tokens drawn, 0 for the most likely ones; 0.8, or 0 with beams, unless given."""
    top_p: float = 1.0
    """Draw only from the most likely tokens that have this share of the probability together."""
    beams: int = 1
    """Continuations that are followed side by side."""
    seed: int = 0
    """Of what is drawn."""
    json: bool = False
    """Print JSON."""


def generate(words: Sequence[str]) -> int:
    """Parse the words after `holdfast generate` and carry them out."""
    options: Generate = parse(Generate, "holdfast generate", words)
    transformers = require("transformers", "hf")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    from holdfast.models.language.generate import SHIPPED, Sampling, continued, load

    temperature = options.temperature
    if temperature is None:
        temperature = 0.8 if options.beams == 1 else 0.0
    with as_typed(options):
        sampling = Sampling(
            tokens=options.tokens,
            temperature=temperature,
            top_p=options.top_p,
            beams=options.beams,
            seed=options.seed,
        )
        model, tokenizer = load(SHIPPED if options.model is None else options.model)
        prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
        if options.json:
            text = continued(model, tokenizer, prompt, sampling)
            say(jsonlib.dumps({"prompt": prompt, "text": text, "seed": options.seed}, indent=1))
            return OK
        _write(prompt)
        continued(model, tokenizer, prompt, sampling, show=_write)
        _write("\n")
    return OK


def _write(text: str) -> None:
    """Show text at once, whatever the terminal can show of it."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))
    sys.stdout.flush()
