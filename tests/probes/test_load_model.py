"""Models and texts that a command line names."""

from __future__ import annotations

from holdfast.models.language.generate import SHIPPED
from holdfast.probes.load_model import load_model_and_texts


def test_the_model_that_comes_with_the_package():
    model, tokens, line = load_model_and_texts(str(SHIPPED), None, 64, 2)
    assert type(model).__name__ == "HoldfastForCausalLM"
    assert tokens.shape == (2, 64)
    assert line == "tokens of the standard library's source"
    # It has learnt this very text: far better than the eight bits of a random byte.
    assert model(input_ids=tokens, labels=tokens).loss.item() < 2.0
