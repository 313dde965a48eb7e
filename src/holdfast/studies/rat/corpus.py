"""Text for language models: bytes of the standard library's Python source, or tokens from a file.

The source is that of the Python that runs: `digest` tells which. Every arm of a seed reads the same windows.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError
from holdfast.lab.seeds import generator_for, rng_for
from holdfast.studies.rat.streams import TRAIN
from holdfast.studies.rat.training import IGNORED

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int
    from torch import Tensor

APART = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
"""Folders of the standard library that are left out: some systems ship it without them."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Where text comes from, and how it is read.

    Arguments:
        tokens: file of tokens, 16 bits each, little-endian; empty: bytes of the standard library's source.
        vocabulary: number of different tokens.
        validation: share of the text that is kept back, at its end.
        windows: windows of the text kept back that are read, evenly spaced.
        once: read every window of the training text once, in random order, rather than windows at random places.
        end: a token that ends a document: what follows it is not asked for. Negative: there is none.
    """

    tokens: str = ""
    vocabulary: int = 256
    validation: float = 0.05
    windows: int = 128
    once: bool = False
    end: int = -1


@dataclass(frozen=True)
class Corpus:
    """A text in two pieces.

    Arguments:
        train: tokens to learn from.
        validation: tokens kept back.
        digest: of the text: the same digits, the same text.
    """

    train: Int[np.ndarray, " tokens"]
    validation: Int[np.ndarray, " tokens"]
    digest: str


def corpus_of(text: Text) -> Corpus:
    """Read the text.

    Errors:
        ArgumentError: there is no such file.
    """
    import numpy as np

    if text.tokens:
        path = Path(text.tokens)
        if not path.is_file():
            raise ArgumentError("text.tokens", "a file of tokens", text.tokens)
        tokens: Int[np.ndarray, " tokens"] = np.memmap(path, dtype="<u2", mode="r")
        digest = f"{len(tokens)} tokens"  # hundreds of gigabytes are not read for it
    else:
        source = standard_library()
        tokens, digest = np.frombuffer(source, dtype=np.uint8), hashlib.sha256(source).hexdigest()[:12]
    cut = len(tokens) - int(len(tokens) * text.validation)
    return Corpus(tokens[:cut], tokens[cut:], digest)


@lru_cache(maxsize=1)
def standard_library() -> bytes:
    """The Python source of the standard library, file after file in an order that seems random but is fixed.

    In the order of names the end, which is kept back, would be of one kind.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    names = [path.relative_to(root) for path in root.rglob("*.py")]
    kept = [name.as_posix() for name in names if not APART & set(name.parts)]
    kept.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    return b"\n".join((root / name).read_bytes() for name in kept)


def training_windows(
    corpus: Corpus, text: Text, seed: int, step: int, batch: int, time: int
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Inputs and targets of a step.

    Errors:
        ArgumentError: the text is too short.
    """
    import numpy as np

    room = len(corpus.train) - time - 1
    if room < 0:
        raise ArgumentError("text", f"at least {time + 1} tokens to learn from", len(corpus.train))
    if text.once:
        order = _order(len(corpus.train) // (time + 1), seed)
        starts = order[np.arange(step * batch, (step + 1) * batch) % len(order)] * (time + 1)
    else:
        import torch

        starts = torch.randint(0, room + 1, (batch,), generator=generator_for(seed, TRAIN, step)).numpy()
    return windows_at(corpus.train, starts, time, text.end)


@lru_cache(maxsize=1)
def _order(windows: int, seed: int) -> Int[np.ndarray, " windows"]:
    return rng_for(seed, TRAIN).permutation(windows)


def validation_windows(
    corpus: Corpus, text: Text, time: int, *, reach: int = 0
) -> tuple[Int[Tensor, "windows time"], Int[Tensor, "windows time"]]:
    """Inputs and targets of the text kept back: windows that end at the same places whatever their length.

    Arguments:
        corpus: the text.
        text: how it is read.
        time: tokens of a window.
        reach: tokens of the longest window; 0: `time`.

    Errors:
        ArgumentError: the text is too short.
    """
    import numpy as np

    longest = max(reach, time) + 1
    if len(corpus.validation) < longest:
        raise ArgumentError("text", f"at least {longest} tokens kept back", len(corpus.validation))
    ends = np.linspace(longest, len(corpus.validation), text.windows).astype(np.int64)
    return windows_at(corpus.validation, ends - time - 1, time, text.end)


def windows_at(
    tokens: Int[np.ndarray, " tokens"], starts: Int[np.ndarray, " batch"], time: int, end: int = -1
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Inputs and targets: what stands from each start on, and one further.

    Arguments:
        tokens: the text.
        starts: of the windows.
        time: tokens of a window.
        end: a token after which nothing is asked for; negative: none.
    """
    import numpy as np
    import torch

    rows = torch.from_numpy(np.stack([tokens[start : start + time + 1] for start in starts]).astype(np.int64))
    inputs, targets = rows[:, :-1], rows[:, 1:]
    return inputs, targets.masked_fill(inputs == end, IGNORED)
