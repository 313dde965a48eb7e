"""The decoder: nothing leaks, a cache changes nothing, and every normaliser runs in it."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.decoder import Decoder, DecoderConfig, KeyValueCache
from holdfast.nn import Adaptive, Entmax, Plain, ScaleInvariant, SSMax

ARMS = [Plain(), Adaptive(), Adaptive(detach=False), SSMax(), Entmax(1.5), ScaleInvariant()]
arms = pytest.mark.parametrize("normaliser", ARMS, ids=lambda arm: f"{type(arm).__name__}-{getattr(arm, 'detach', '')}")


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small only wait for one another's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decoder(normaliser=None, **settings) -> Decoder:
    torch.manual_seed(3)
    shape = {"vocabulary": 11, "width": 16, "layers": 2, "heads": 2, **settings}
    model = Decoder(DecoderConfig(**shape), normaliser).double()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(12)  # far from uniform attention
    return model


def tokens(batch=3, time=13) -> torch.Tensor:
    return torch.randint(11, (batch, time), generator=torch.Generator().manual_seed(5))


@arms
def test_no_token_sees_a_later_one(normaliser):
    model, before = decoder(normaliser), tokens()
    after = before.clone()
    after[:, 7:] = (after[:, 7:] + 1) % 11
    a, b = model(before), model(after)
    torch.testing.assert_close(a[:, :7], b[:, :7], rtol=0, atol=1e-12)
    assert not torch.allclose(a[:, 7], b[:, 7])


@arms
def test_a_cache_changes_nothing(normaliser):
    model, text = decoder(normaliser), tokens()
    with torch.no_grad():
        whole = model(text)
        for cuts in ([13], [1] * 13, [4, 1, 6, 1, 1]):
            cache = KeyValueCache(15)
            parts = [model(part, cache=cache) for part in text.split(cuts, dim=1)]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-10)
            assert cache.length == 13
    with pytest.raises(ArgumentError, match="room"), torch.no_grad():
        model(text, cache=cache)


@arms
def test_generation_equals_the_loop_without_a_cache(normaliser):
    model, text = decoder(normaliser), tokens(2, 4)
    new = model.generate(text, steps=9)
    for _ in range(9):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(new, text[:, 4:])


def test_generation_stops():
    model, text = decoder(), tokens(4, 4)
    free = model.generate(text, steps=12)
    stop = int(free[0, 2])
    held = model.generate(text, steps=12, stop=stop, pad=0)
    for row, whole in zip(held.tolist(), free.tolist(), strict=True):
        end = whole.index(stop) + 1 if stop in whole else 12
        assert row[:end] == whole[: min(end, len(row))]
        assert set(row[end:]) <= {0}
    one = model.generate(text[:1], steps=12, stop=stop)
    assert one.shape[1] == free[0].tolist().index(stop) + 1


def test_padding_does_not_leak():
    model, text = decoder(Adaptive()), tokens()
    padded = torch.cat([text, tokens(3, 4)], dim=1)
    torch.testing.assert_close(model(padded)[:, :13], model(text), rtol=0, atol=1e-12)
    found = model.head_entropies(padded, torch.tensor([13, 13, 5]))
    alone = model.head_entropies(text)
    torch.testing.assert_close(found.weights[:, :2, :, :13], alone.weights[:, :2])
    assert found.logits[:, 2, :, 5:].isnan().all()
    assert found.logits[:, :2, :, 13:].isnan().all()
    assert not found.logits[:, 2, :, :5].isnan().any()


@arms
def test_gradient_flows_everywhere(normaliser):
    model = decoder(normaliser)
    model(tokens()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_goes_through_the_temperature_unless_detached(detach):
    model = decoder(Adaptive(detach=detach))
    weight = model.blocks[0].to_query_key_value.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=weight.dtype)

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten())

    (slope,) = torch.autograd.grad(loss(), weight)
    step = 1e-5
    with torch.no_grad():
        weight += step * direction
        above = loss()
        weight -= 2 * step * direction
        measured = (above - loss()) / (2 * step)
    error = abs((slope * direction).sum() / measured - 1)
    assert error > 1e-3 if detach else error < 1e-6


def test_the_fused_plain_form_is_the_plain_normaliser():
    class Same(Plain):
        pass

    model, other = decoder(Plain()), decoder(Same())
    torch.testing.assert_close(model(tokens()), other(tokens()), rtol=0, atol=1e-10)


def test_entropies():
    model = decoder(Plain())
    found = model.head_entropies(tokens())
    assert found.logits.shape == (2, 3, 2, 13)
    torch.testing.assert_close(found.logits, found.weights)
    assert (found.logits[..., 0].abs() < 1e-12).all()
    assert (found.logits <= torch.arange(1, 14).log() + 1e-9).all()
    model.normaliser = Adaptive()
    sharp = model.head_entropies(tokens())
    torch.testing.assert_close(sharp.logits[0], found.logits[0])
    assert (sharp.weights[0] <= found.weights[0] + 1e-9).all()
    assert (sharp.weights[0] < found.weights[0] - 1e-3).any()


@arms
def test_half_precision(normaliser):
    torch.manual_seed(3)
    model = Decoder(DecoderConfig(vocabulary=11, width=16, layers=2, heads=2), normaliser)
    exact, entropy = model(tokens()), model.head_entropies(tokens())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, found = model(tokens()), model.head_entropies(tokens())
        assert model.generate(tokens(), steps=2).shape == (3, 2)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.003)
    assert found.logits.dtype == found.weights.dtype == torch.float32
    torch.testing.assert_close(found.weights, entropy.weights, rtol=0, atol=2e-3)
    half.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rotary_share(share):
    model, text = decoder(rotary_share=share), tokens()
    swapped = text.clone()
    swapped[:, [2, 5]] = text[:, [5, 2]]
    last, other = (model.head_entropies(each).logits[0, ..., -1] for each in (text, swapped))
    assert torch.allclose(last, other) == (share == 0), "without rotation the first layer sees a set"


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="width"):
        DecoderConfig(vocabulary=4, width=18, heads=2)
    with pytest.raises(ArgumentError, match="rotary_share"):
        DecoderConfig(vocabulary=4, rotary_share=math.nan)
    with pytest.raises(ArgumentError, match="layers"):
        DecoderConfig(vocabulary=4, layers=0)
    with pytest.raises(ArgumentError, match="steps"):
        decoder().generate(tokens(), steps=0)
    with pytest.raises(ArgumentError, match="prompt"):
        decoder().generate(tokens()[:, :0], steps=1)
