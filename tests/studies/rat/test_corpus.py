"""Text: what is read where, and that nothing of what is kept back is learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.studies.rat.corpus import (
    Corpus,
    Text,
    corpus_of,
    standard_library,
    training_windows,
    validation_windows,
    windows_at,
)
from holdfast.studies.rat.training import IGNORED

COUNTED = Corpus(np.arange(1000, dtype=np.int64), np.arange(1000, 1300, dtype=np.int64), "counted")


def test_the_standard_library() -> None:
    corpus = corpus_of(Text())
    assert len(corpus.train) > 3_000_000
    assert len(corpus.validation) == pytest.approx(len(corpus.train) / 19, rel=1e-3)
    assert bytes(corpus.train[:5000]) + b"" == standard_library()[:5000]
    assert b"import " in bytes(corpus.validation)
    assert corpus_of(Text()).digest == corpus.digest


def test_targets_are_the_next_tokens() -> None:
    inputs, targets = training_windows(COUNTED, Text(), 3, 5, 7, 20)
    assert inputs.shape == targets.shape == (7, 20)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(training_windows(COUNTED, Text(), 3, 5, 7, 20)[0], inputs)
    assert not torch.equal(training_windows(COUNTED, Text(), 3, 6, 7, 20)[0], inputs)
    assert not torch.equal(training_windows(COUNTED, Text(), 4, 5, 7, 20)[0], inputs)


def test_no_place_is_left_out() -> None:
    inputs, targets = training_windows(COUNTED, Text(), 0, 0, 40_000, 20)
    assert inputs.min() == 0
    assert targets.max() == 999


def test_an_epoch_reads_every_window_once() -> None:
    text = Text(once=True)
    starts = torch.cat([training_windows(COUNTED, text, 1, step, 10, 19)[0][:, 0] for step in range(5)])
    assert sorted(starts.tolist()) == list(range(0, 1000, 20))
    assert starts.tolist() != sorted(starts.tolist())


def test_windows_of_all_lengths_end_at_the_same_places() -> None:
    text = Text(windows=5)
    short, long = (validation_windows(COUNTED, text, time, reach=128)[1] for time in (16, 128))
    assert short.shape == (5, 16)
    assert torch.equal(short, long[:, -16:])
    assert long[-1, -1] == 1299
    assert validation_windows(COUNTED, text, 16)[0][0, 0] == 1000


def test_what_follows_the_end_of_a_document_is_not_asked_for() -> None:
    inputs, targets = windows_at(np.array([5, 2, 7, 8, 2, 9]), np.array([0, 1]), 4, end=2)
    assert inputs.tolist() == [[5, 2, 7, 8], [2, 7, 8, 2]]
    assert targets.tolist() == [[2, IGNORED, 8, 2], [IGNORED, 8, 2, IGNORED]]


def test_tokens_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.arange(40_000, 41_000).astype("<u2").tofile(path)
    corpus = corpus_of(Text(tokens=str(path), validation=0.1))
    assert (len(corpus.train), len(corpus.validation)) == (900, 100)
    assert corpus.validation[-1] == 40_999
    inputs, targets = training_windows(corpus, Text(), 0, 0, 2, 8)
    assert torch.equal(targets, inputs + 1)


def test_too_little_text(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="tokens to learn from"):
        training_windows(COUNTED, Text(), 0, 0, 1, 1000)
    with pytest.raises(ArgumentError, match="kept back"):
        validation_windows(COUNTED, Text(), 300)
    with pytest.raises(ArgumentError, match="a file of tokens"):
        corpus_of(Text(tokens=str(tmp_path / "none.bin")))
