"""Shares of attention by distance are those of the weights that the model itself returns."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.probes.rat import locality_profile
from tests.probes.rat import models

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SPANS = (1, 4, 16, 64)


@pytest.mark.parametrize(
    ("make", "implementation"),
    [
        (models.llama, "sdpa"),
        (models.llama, "eager"),
        (models.mistral, "sdpa"),
        (models.mistral, "eager"),
        (models.gemma2, "eager"),
        (models.gpt_oss, "eager"),
    ],
)
@pytest.mark.parametrize("rows", [128, 7])
def test_shares_are_those_of_the_eager_weights(make, implementation, rows):
    ids = models.tokens(96)
    profile = locality_profile(make(implementation), ids, rows=rows)
    with torch.no_grad():
        attentions = make("eager")(ids, output_attentions=True).attentions
    queries = torch.arange(48, 96)
    if rows == 7:
        queries = torch.tensor([48, 56, 64, 71, 79, 87, 95])
    assert (profile.rows, profile.first, profile.without) == (2 * len(queries), 48, ())
    assert len(profile.heads) == 8
    distance = queries[:, None] - torch.arange(96)
    for head in profile.heads:
        weights = attentions[head.layer][:, head.head, queries].double()
        for span, share in zip(SPANS, head.shares, strict=True):
            # Each of the sums of at most 2 x 48 x 96 weights in float32 is off by less than 1e-5.
            assert share == pytest.approx(weights[:, distance < span].sum().item() / profile.rows, abs=1e-5)
        assert head.rest == pytest.approx(weights[:, distance >= 64].sum().item() / profile.rows, abs=1e-5)
        assert head.sink == pytest.approx(1 - weights.sum().item() / profile.rows, abs=1e-5)
        windowed = make is models.mistral or (make in (models.gemma2, models.gpt_oss) and head.layer == 0)
        assert head.keys == (16 if windowed else (queries + 1).double().mean().item())
    assert profile.mean_share(4) == pytest.approx(sum(head.shares[1] for head in profile.heads) / 8)
    if make is models.gpt_oss:
        assert max(head.sink for head in profile.heads) > 0.001


def test_the_model_computes_what_it_computes_without():
    model, ids, outputs = models.llama(), models.tokens(96), []
    handle = model.model.norm.register_forward_hook(lambda module, given, made: outputs.append(made))
    with torch.no_grad():
        model(ids)
    locality_profile(model, ids)
    handle.remove()
    assert torch.equal(*outputs)


def test_recurrent_layers_have_no_attention():
    profile = locality_profile(models.jamba(), models.tokens(40))
    assert profile.layers == (1, 3)
    assert profile.without == (0, 2)


def test_long_texts_are_read_in_pieces(monkeypatch):
    model, ids = models.llama(trained=4096), models.tokens(300, texts=3)
    whole = locality_profile(model, ids)
    monkeypatch.setattr("holdfast.probes.rat.locality.CHUNK", 4 * 300 * 5)
    monkeypatch.setattr("holdfast.probes.rat.locality.TOGETHER", 300)
    seen = []
    pieces = locality_profile(model, ids, progress=lambda part, done, total: seen.append((part, done, total)))
    for one, other in zip(whole.heads, pieces.heads, strict=True):
        assert other.shares == pytest.approx(one.shares, abs=1e-5)
        assert (other.keys, other.layer, other.head) == (one.keys, one.layer, one.head)
    assert seen == [("locality", done, 3) for done in range(4)]


def test_what_does_not_fit_is_refused():
    for model in (models.bloom(), models.mamba()):
        with pytest.raises(ArgumentError, match=r"^model: expected .*registry"):
            locality_profile(model, models.tokens(20))
    with pytest.raises(ArgumentError, match="spans: expected ascending"):
        locality_profile(models.llama(), models.tokens(20), spans=(4, 1))
    with pytest.raises(ArgumentError, match="tokens: expected shape"):
        locality_profile(models.llama(), models.tokens(1))
    with pytest.raises(ArgumentError, match="tokens: expected numbers from 0 to 96, got 0 to 97"):
        locality_profile(models.llama(), torch.tensor([[0, 97]]))
