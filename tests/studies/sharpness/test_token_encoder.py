"""The small encoder whose attention can be looked at."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.studies.sharpness.token_encoder import SelfAttention, TokenEncoder


def encoder(*, causal: bool, layers: int = 2) -> TokenEncoder:
    made = TokenEncoder(
        vocabulary=5, dim=12, heads=3, layers=layers, causal=causal, generator=torch.Generator().manual_seed(0)
    )
    return made.double()


TOKENS = torch.tensor([[0, 3, 1, 4, 4, 2, 0], [1, 1, 2, 0, 3, 3, 4]])


@pytest.mark.parametrize("causal", [False, True])
def test_logits_are_those_of_the_forward_pass(causal: bool) -> None:
    attention = encoder(causal=causal).attention[0]
    assert isinstance(attention, SelfAttention)
    x = torch.randn(2, 7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = attention.head_logits(x, queries=7)
    value = attention.value(x).view(2, 7, 3, 4).transpose(1, 2)
    mixed = (seen.logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.output(mixed), attention(x), rtol=0, atol=1e-12)
    last = attention.head_logits(x, queries=2)
    torch.testing.assert_close(last.logits, seen.logits[:, :, 5:])
    torch.testing.assert_close(last.bound, seen.bound[:, :, 5:])
    assert torch.equal(last.visible, seen.visible[5:])


def test_bound_by_hand() -> None:
    attention = SelfAttention(2, 1, causal=False).double()
    with torch.no_grad():
        attention.query.weight.copy_(torch.diag(torch.tensor([3.0, 1.0])))
        attention.key.weight.copy_(torch.diag(torch.tensor([1.0, 5.0])))
    x = torch.tensor([[[1.0, 0.0], [-2.0, 0.0]]], dtype=torch.float64)
    seen = attention.head_logits(x, queries=1)
    # Query (-6, 0) and keys (1, 0), (-2, 0); sigma 3 and 5, |y| = 2, the longest input 2, width 2.
    expected = torch.tensor([[[[-6.0, 12.0]]]], dtype=torch.float64) / math.sqrt(2)
    torch.testing.assert_close(seen.logits, expected)
    assert seen.spread.item() == pytest.approx(18 / math.sqrt(2))
    assert seen.bound.item() == pytest.approx(2 * 3 * 5 * 2 * 2 / math.sqrt(2))


@pytest.mark.parametrize("causal", [False, True])
def test_spread_keeps_the_bound_and_ignores_hidden_keys(causal: bool) -> None:
    for layer in encoder(causal=causal, layers=3).head_logits(TOKENS, queries=7):
        assert (layer.spread <= layer.bound).all()
        assert layer.spread.isfinite().all()
        if causal:
            assert (layer.spread[:, :, 0] == 0).all()
            assert layer.visible.sum(dim=1).tolist() == [1, 2, 3, 4, 5, 6, 7]
            assert (layer.logits.isneginf() == ~layer.visible).all()


def test_the_future_is_visible_to_bert_only() -> None:
    changed = TOKENS.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 5
    for causal in (False, True):
        model = encoder(causal=causal)
        difference = (model(TOKENS) - model(changed)).abs().amax(dim=(0, 2))
        assert (difference[4:] > 1e-6).all()
        assert (difference[:4] < 1e-12).all() == causal


def test_weights_come_from_the_generator() -> None:
    for ours, theirs in zip(encoder(causal=False).parameters(), encoder(causal=False).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_mistakes() -> None:
    with pytest.raises(ArgumentError, match="heads: expected a divisor of dim = 12, got 5"):
        SelfAttention(12, 5, causal=False)
    for queries in (0, 8):
        with pytest.raises(ArgumentError, match="queries"):
            encoder(causal=True).head_logits(TOKENS, queries=queries)
