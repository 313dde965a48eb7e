"""Continue a text with a saved language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer, set_seed

from holdfast.errors import ArgumentError, count_of

SHIPPED = Path(__file__).parent / "pretrained"
"""Where the small model lies that comes with the package."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Arguments:
        tokens: most tokens to add.
        temperature: divides the logits of tokens that are drawn; 0: always the most likely one.
        top_p: only the most likely tokens that have this share of the probability together are drawn.
        beams: continuations that are followed side by side.
        seed: of what is drawn.

    Errors:
        ArgumentError: values out of range.
    """

    tokens: int = 200
    temperature: float = 0.8
    top_p: float = 1.0
    beams: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        count_of("tokens", self.tokens, least=1)
        count_of("beams", self.beams, least=1)
        count_of("seed", self.seed)
        if not 0 <= self.temperature < float("inf"):
            raise ArgumentError("temperature", "a number of at least 0", self.temperature)
        if not 0 < self.top_p <= 1:
            raise ArgumentError("top_p", "a share in (0, 1]", self.top_p)

    def arguments(self) -> dict[str, Any]:
        """As `generate` of transformers takes them."""
        drawn = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        chosen = drawn if self.temperature > 0 else {"do_sample": False}
        return {"max_new_tokens": self.tokens, "num_beams": self.beams, **chosen}


def load(folder: Path) -> tuple[Any, Any]:
    """A causal language model and its tokenizer from a folder; nothing is downloaded.

    Errors:
        ArgumentError: there is none, or it does not load.
    """
    if folder == SHIPPED and not (folder / "config.json").is_file():
        raise ArgumentError("model", "a folder with a model, since none comes with this installation", "none")
    if not (folder / "config.json").is_file():
        raise ArgumentError("model", "a folder with a model, as save_pretrained writes it", str(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # A processor multiplies in bfloat16 slowly.
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)
        model = model.to(device)
    except Exception as error:  # what is wrong with a folder comes as errors of many libraries
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArgumentError(
            "model", "a folder with a language model and its tokenizer", f"{folder} ({reason})"
        ) from error
    return model.eval(), _tokenizer(folder)


def _tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder; for some models transformers makes an empty one where there is none."""
    reason = "it makes no token of a letter"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer("a", add_special_tokens=False)["input_ids"]:
            return tokenizer
    except Exception as error:  # likewise
        reason = " ".join(str(error).split()) or type(error).__name__
    problem = f"{folder}, whose tokenizer is missing or does not load ({reason})"
    raise ArgumentError("model", "a folder with a language model and its tokenizer", problem) from None


def continued(
    model: Any, tokenizer: Any, prompt: str, sampling: Sampling, show: Callable[[str], None] | None = None
) -> str:
    """The text that a model adds to a prompt.

    Arguments:
        model: of transformers.
        tokenizer: of the model.
        prompt: a text; if it is empty, the model begins one.
        sampling: how tokens are chosen.
        show: gets the text piece by piece as it comes, which beams do not allow: all of it at once then.

    Errors:
        ArgumentError: nothing to begin with.
    """
    numbers = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not numbers:
        numbers = [tokenizer.bos_token_id]
        if numbers == [None]:
            raise ArgumentError("prompt", "at least one token, since the model has none that begins a text", prompt)
    given = torch.tensor([numbers], device=model.device)
    piecewise = show is not None and sampling.beams == 1
    set_seed(sampling.seed)
    with torch.inference_mode():
        output = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            pad_token_id=model.config.pad_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            streamer=_Pieces(tokenizer, show) if piecewise else None,
            **sampling.arguments(),
        )
    text: str = tokenizer.decode(output[0, len(numbers) :], skip_special_tokens=True)
    if show is not None and not piecewise:
        show(text)
    return text


class _Pieces(TextStreamer):
    """Hands on whole words, so that no character comes in halves."""

    def __init__(self, tokenizer: Any, show: Callable[[str], None] | None) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.show = show

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hand on what is complete."""
        if text and self.show is not None:
            self.show(text)
