"""Text to learn from: files, folders, a dataset, or the source of Python's standard library, as one row of tokens.

Every document stands between the tokenizer's tokens for begin and end of a text. The last twentieth of the bytes is
for validation.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.errors import ArgumentError, require
from holdfast.models.language.recipe import DataRecipe

VALIDATION_SHARE = 0.05
"""Share of the bytes, at the end, that is not learnt from."""

NO_SOURCE = frozenset({"encodings", "pydoc_data"})
"""Modules of the standard library that hold tables and manuals."""

OPTIONAL = frozenset({"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo", "venv"})
"""Modules that some distributions of Python leave out."""

TESTS = frozenset({"idle_test", "test", "tests"})
"""Folders of the standard library with tests, which are larger than all the rest."""


@dataclass(frozen=True)
class Part:
    """The training or the validation part of a corpus.

    Arguments:
        tokens: one row, with the tokens for begin and end of each document.
        nbytes: bytes of text that they stand for.
    """

    tokens: Integer[np.ndarray, " tokens"]
    nbytes: int

    def bits_per_byte(self, nats_per_token: float) -> float:
        """A mean loss, told in the unit that does not depend on the tokenizer."""
        return nats_per_token / float(np.log(2)) * len(self.tokens) / self.nbytes


@dataclass(frozen=True)
class Corpus:
    """Text, tokenised and divided.

    Arguments:
        name: what it is, for people.
        train: what is learnt from.
        validation: its end, for measurements.
        documents: number of files or rows.
        left_out: files that a folder has besides: hidden or binary.
        sha256: of all bytes, with the length of each document before it.
    """

    name: str
    train: Part
    validation: Part
    documents: int
    left_out: int
    sha256: str

    @property
    def nbytes(self) -> int:
        """Bytes of text."""
        return self.train.nbytes + self.validation.nbytes

    def to_dict(self) -> dict[str, Any]:
        """What identifies it."""
        return {
            "name": self.name,
            "documents": self.documents,
            "left_out": self.left_out,
            "bytes": self.nbytes,
            "sha256": self.sha256,
            "train_tokens": len(self.train.tokens),
            "validation_tokens": len(self.validation.tokens),
            "validation_bytes": self.validation.nbytes,
        }


@dataclass(frozen=True)
class Text:
    """Documents before they are tokenised.

    Arguments:
        name: what they are, for people.
        documents: each with the place it came from.
        left_out: files that were not read.
    """

    name: str
    documents: list[tuple[str, bytes]]
    left_out: int = 0


@dataclass(frozen=True)
class Piece:
    """A document, or one side of the cut between training and validation.

    Arguments:
        place: where it came from.
        content: its bytes.
        begins: whether the document begins with it.
        ends: whether the document ends with it.
    """

    place: str
    content: bytes
    begins: bool = True
    ends: bool = True


def read_corpus(recipe: DataRecipe, tokenizer: Any, context: int) -> Corpus:
    """Read, tokenise and divide.

    Arguments:
        recipe: where the text is.
        tokenizer: of transformers, or a `ByteTokenizer`, which takes any bytes.
        context: both parts must have so many tokens.

    Errors:
        ArgumentError: a file cannot be read, or is no UTF-8 where the tokenizer wants characters; there is too little
            text; the dataset does not load.
        MissingExtraError: a dataset is asked for and `datasets` is not installed.
    """
    text = _dataset(recipe) if recipe.dataset is not None else _files(recipe.data) if recipe.data else library_source()
    documents = _limited([entry for entry in text.documents if entry[1]], recipe.max_bytes)
    if not documents:
        raise ArgumentError(_argument(recipe), "a text", f"none in {text.name}")
    digest = hashlib.sha256()
    for _, content in documents:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    as_text = not _takes_bytes(tokenizer)
    train, validation = (_tokenised(part, tokenizer, as_text) for part in _divided(documents, as_text))
    for part, of in ((train, "training"), (validation, "validation")):
        if len(part.tokens) < context:
            expected = f"at most the {len(part.tokens)} tokens of {text.name} that are for {of}"
            raise ArgumentError("--context", expected, context)
    return Corpus(text.name, train, validation, len(documents), text.left_out, digest.hexdigest())


def library_source() -> Text:
    """The source of the standard library of the Python that runs, without tests, tables and optional modules.

    It differs from version to version of Python.
    """
    root = Path(sysconfig.get_path("stdlib"))
    modules = sys.stdlib_module_names - NO_SOURCE - OPTIONAL
    paths = [path for name in modules for path in (root / f"{name}.py", *(root / name).rglob("*.py"))]
    documents = []
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        if path.is_file() and not TESTS & set(parts):
            documents.append(("/".join(parts), path.read_bytes()))
    return Text(f"the standard library of Python {platform.python_version()}", documents)


def _files(paths: Iterable[Path]) -> Text:
    """Files that are named, and those of folders that are named."""
    documents, left_out, names = [], 0, []
    for path in paths:
        names.append(path.name or str(path))
        try:
            if path.is_dir():
                inside = list(_inside(path))
                readable = [entry for entry in inside if entry[1] is not None]
                left_out += len(inside) - len(readable)
                documents += [(place, content) for place, content in readable if content is not None]
            else:
                documents.append((str(path), path.read_bytes()))
        except OSError as error:
            raise ArgumentError("--data", "a text file or a folder", f"{path} ({error.strerror})") from error
    return Text(", ".join(names), documents, left_out)


def _inside(folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """Files of a folder in order, with `None` for what is no text or hidden, as `grep` and `git` tell binary files."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if not path.is_file():
            continue
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        content = None if hidden else path.read_bytes()
        yield str(path), None if content is None or b"\0" in content[:8192] else content


def _dataset(recipe: DataRecipe) -> Text:
    """The texts of a dataset, read one after the other until there are enough bytes."""
    datasets = require("datasets", "hf")
    name, wanted = recipe.dataset, recipe.max_bytes
    try:
        rows = datasets.load_dataset(name, recipe.dataset_name, split=recipe.dataset_split, streaming=True)
        documents: list[tuple[str, bytes]] = []
        size = 0
        for number, row in enumerate(rows):
            if wanted is not None and size >= wanted:
                break
            documents.append((f"{name}, row {number}", str(row[recipe.dataset_column]).encode()))
            size += len(documents[-1][1])
    except KeyError as error:
        columns = ", ".join(row)
        raise ArgumentError(
            "--dataset-column", f"a column of the dataset ({columns})", recipe.dataset_column
        ) from error
    except Exception as error:  # whatever a loader or the network raises
        first = next(iter(str(error).splitlines()), "")
        raise ArgumentError("--dataset", "a dataset that loads", f"{name} ({type(error).__name__}: {first})") from error
    return Text(f"the dataset {name}", documents)


def _argument(recipe: DataRecipe) -> str:
    return "--dataset" if recipe.dataset is not None else "--data"


def _limited(documents: list[tuple[str, bytes]], most: int | None) -> list[tuple[str, bytes]]:
    """The first documents, the last of them cut where the bytes are used up."""
    if most is None:
        return documents
    kept, left = [], most
    for place, content in documents:
        if left <= 0:
            break
        kept.append((place, content[:left]))
        left -= len(content)
    return kept


def _divided(documents: list[tuple[str, bytes]], as_text: bool) -> tuple[list[Piece], list[Piece]]:
    """What is for training and what for validation."""
    left = round(sum(len(content) for _, content in documents) * (1 - VALIDATION_SHARE))
    train: list[Piece] = []
    validation: list[Piece] = []
    for place, content in documents:
        cut = max(0, min(left, len(content)))
        while as_text and 0 < cut < len(content) and content[cut] & 0xC0 == 0x80:  # inside a character
            cut += 1
        if cut:
            train.append(Piece(place, content[:cut], ends=cut == len(content)))
        if cut < len(content):
            validation.append(Piece(place, content[cut:], begins=cut == 0))
        left -= len(content)
    return train, validation


def _takes_bytes(tokenizer: Any) -> bool:
    """Whether a tokenizer's first 256 tokens are the bytes."""
    from holdfast.models.language.tokenizer import ByteTokenizer

    return isinstance(tokenizer, ByteTokenizer)


def _tokenised(pieces: list[Piece], tokenizer: Any, as_text: bool) -> Part:
    """Pieces as one row of tokens."""
    kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32
    begin, end = (
        np.asarray([] if number is None else [number], dtype=kind)
        for number in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    )
    if np.array_equal(begin, end):  # one token stands between documents
        begin = begin[:0]
    rows = [np.zeros(0, kind)]
    for piece in pieces:
        rows.append(begin[: piece.begins])
        rows.append(_characters(piece, tokenizer) if as_text else np.frombuffer(piece.content, np.uint8))
        rows.append(end[: piece.ends])
    return Part(np.concatenate(rows, dtype=kind, casting="unsafe"), sum(len(piece.content) for piece in pieces))


def _characters(piece: Piece, tokenizer: Any) -> Integer[np.ndarray, " tokens"]:
    """The tokens of a piece, for a tokenizer of characters."""
    try:
        characters = piece.content.decode("utf-8")
    except UnicodeDecodeError as error:
        expected = "UTF-8, which a tokenizer of characters needs (bytes as tokens take anything)"
        raise ArgumentError("--data", expected, f"{piece.place} (byte {error.start})") from error
    return np.asarray(tokenizer.encode(characters, add_special_tokens=False), dtype=np.int64)


class Windows(Dataset[dict[str, Tensor]]):
    """Windows of a row of tokens, each the same whenever it is asked for.

    Arguments:
        tokens: the row.
        context: tokens a window.
        count: number of windows.
        seed: window i begins at a place that is drawn from `seed` and i; `None`: they are spread evenly.
    """

    def __init__(
        self, tokens: Integer[np.ndarray, " tokens"], context: int, count: int, seed: int | None = None
    ) -> None:
        self.tokens, self.context, self.count, self.seed = tokens, context, count, seed

    @classmethod
    def covering(cls, tokens: Integer[np.ndarray, " tokens"], context: int, most: int | None = None) -> Windows:
        """Windows that do not overlap: all there are, or `most` of them, spread evenly."""
        whole = len(tokens) // context
        return cls(tokens[: whole * context], context, whole if most is None else min(most, whole))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Input and labels of a window, which are equal: models of transformers shift the labels.

        Errors:
            IndexError: there is no window of this number.
        """
        if not 0 <= index < self.count:
            raise IndexError(index)
        places = len(self.tokens) - self.context + 1
        if self.seed is not None:
            start = int(np.random.default_rng((self.seed, index)).integers(places))
        else:
            whole = len(self.tokens) // self.context
            start = index * whole // self.count * self.context
        window = torch.from_numpy(self.tokens[start : start + self.context].astype(np.int64))
        return {"input_ids": window, "labels": window.clone()}
