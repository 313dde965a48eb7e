"""Normalisers that layers of a transformers model carry come back with its weights, bit for bit."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Adaptive, AdaptiveTemperature, ByHead, Plain, SSMax

transformers = pytest.importorskip("transformers")

from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM  # noqa: E402
from holdfast.nn.attention.by_layer import attention_layers  # noqa: E402
from holdfast.nn.huggingface import learn_scales, register, register_by_layer, set_normalisers  # noqa: E402
from tests.nn.attention import test_huggingface as whole  # noqa: E402
from tests.nn.attention.test_huggingface import every_model, tokens  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers"),
]

START = SSMax(1 / math.log(8))
LAW = AdaptiveTemperature((0.1, 0.7, 1 / 3), entropy_range=(0.1, 3.0), beta_max=7.0)


def model(kind):
    """In float32: of float64, transformers loads tables of positions that are less precise than those of `double`."""
    return whole.model(kind, "eager").float()


def scales(network):
    return {name: weight for name, weight in network.named_parameters() if name.endswith("log_scale")}


def moved(network):
    """With other scales than at the beginning."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in scales(network).values():
            weight += torch.randn(weight.shape, generator=generator).to(weight)
    return network


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@every_model
def test_a_learned_scale_a_head_survives_saving_bit_for_bit(kind, tmp_path):
    network, ids = model(kind), tokens()
    learn_scales(network, START)
    assert [weight.shape for weight in scales(network).values()] == [(4,)] * 3
    answer = moved(network)(ids).logits
    network.save_pretrained(tmp_path)
    auto = transformers.AutoModelForCausalLM
    for read in (auto.from_pretrained(tmp_path, attn_implementation=register_by_layer()),
                 auto.from_pretrained(tmp_path)):  # fmt: skip
        assert read.config._attn_implementation == register_by_layer()
        assert same_weights(network, read)
        assert torch.equal(read(ids).logits, answer)
    body = transformers.AutoModel.from_pretrained(tmp_path)  # its paths begin further in
    assert torch.equal(body(ids)[0], network.base_model(ids)[0])
    plain = auto.from_pretrained(tmp_path, attn_implementation="eager")  # keeps what it does not use
    assert same_weights(network, plain)
    assert not torch.allclose(plain(ids).logits, answer)


@every_model
def test_gradients_reach_every_scale(kind):
    network, ids = model(kind).train(), tokens()
    learn_scales(network, START)
    network(ids, labels=ids).loss.backward()
    for weight in scales(network).values():
        assert weight.grad.abs().min() > 0
    for name, weight in network.named_parameters():
        weight.requires_grad_(name.endswith("log_scale"))  # alone too
    network.zero_grad()
    loss = network(ids, labels=ids).loss
    loss.backward()
    optimizer = torch.optim.SGD(scales(network).values(), lr=0.01)
    optimizer.step()
    with torch.no_grad():
        assert network(ids, labels=ids).loss < loss


def test_it_is_ssmax_with_these_scales_and_changes_nothing_at_the_first_length():
    network, ids = model("llama"), tokens(time=8)
    own = network(ids).logits
    learn_scales(network, START)
    # The last token sees eight keys; those before it are less sharp, which it sees too, but not in a single layer.
    torch.testing.assert_close(network.model.layers[0].self_attn.holdfast_normaliser().scale.mean().item(), START.scale)
    network.config.num_hidden_layers = 1
    network.model.layers = network.model.layers[:1]
    new = network(ids).logits[:, -1]
    network.set_attn_implementation("eager")
    torch.testing.assert_close(new, network(ids).logits[:, -1], rtol=0, atol=1e-4)
    network.set_attn_implementation(register("holdfast_ssmax", START))
    with_all = network(ids).logits
    network.set_attn_implementation(register_by_layer())
    torch.testing.assert_close(network(ids).logits, with_all, rtol=0, atol=1e-4)
    assert not torch.allclose(own[:, 2], with_all[:, 2])


def test_laws_of_heads_survive_saving_and_other_layers_have_the_softmax(tmp_path):
    network, ids = model("llama"), tokens()
    by_head = ByHead((Adaptive(LAW), Plain(), Adaptive(), SSMax(0.3)))
    set_normalisers(network, {"model.layers.1.self_attn": by_head})
    seen = network.model.layers[0](*_read_by(network, ids, 0))
    answer = network(ids).logits
    network.save_pretrained(tmp_path)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.model.layers[1].self_attn.holdfast_normaliser == by_head
    assert torch.equal(read(ids).logits, answer)
    network.set_attn_implementation("eager")
    assert not torch.allclose(network(ids).logits, answer)
    torch.testing.assert_close(network.model.layers[0](*_read_by(network, ids, 0)), seen)
    set_normalisers(network, {})
    torch.testing.assert_close(network(ids).logits, model("llama")(ids).logits)


def _read_by(network, ids, layer):
    """What a layer is given, as far as it needs it."""
    given = []

    def note(module, arguments, options):
        given.append((arguments[0], options["attention_mask"], options["position_ids"]))

    handle = network.model.layers[layer].register_forward_pre_hook(note, with_kwargs=True)
    try:
        network(ids)
    finally:
        handle.remove()
    hidden, mask, position = given[0]
    return hidden, mask, position, None, False, network.model.rotary_emb(hidden, position)


def test_random_states_are_left_alone_and_scales_that_are_missing_begin_anew(tmp_path):
    network = model("llama")
    network.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    learn_scales(network, SSMax((0.1, 0.2, 0.3, 0.4)))
    assert torch.equal(torch.random.get_rng_state(), state)
    network.config.save_pretrained(tmp_path)  # a configuration that asks for scales, beside weights without
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert scales(read).keys() == scales(network).keys()
    for weight in scales(read).values():
        torch.testing.assert_close(weight.exp(), weight.new_tensor([0.1, 0.2, 0.3, 0.4]))


def test_two_sequences_have_layers_of_their_own(tmp_path):
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    network, ids = transformers.BartForConditionalGeneration(config).eval(), tokens()
    learn_scales(network, START)
    assert sorted(weight.shape[0] for weight in scales(network).values()) == [2, 2, 4]
    answer = moved(network)(input_ids=ids).logits
    network.save_pretrained(tmp_path)
    read = transformers.BartForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(read(input_ids=ids).logits, answer)
    set_normalisers(network, {"model.decoder.layers.0.self_attn": SSMax((0.5, 0.6))})
    network.save_pretrained(tmp_path / "one")
    read = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "one")
    assert [name for name, part in read.named_modules() if hasattr(part, "holdfast_normaliser")] == [
        "model.decoder.layers.0.self_attn"
    ]


def test_a_model_that_does_not_ask_is_refused():
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=4))
    own = HoldfastForCausalLM(HoldfastConfig(mixers=["attention"], vocab_size=9, hidden_size=8, num_attention_heads=2))
    for network in (bloom, own, torch.nn.Linear(2, 2)):
        with pytest.raises(ArgumentError, match="calls ALL_ATTENTION_FUNCTIONS"):
            learn_scales(network, START)
        with pytest.raises(ArgumentError, match="calls ALL_ATTENTION_FUNCTIONS"):
            set_normalisers(network, {})
        assert not hasattr(getattr(network, "config", None), "holdfast_normalisers")


def test_what_does_not_fit_is_refused():
    network = model("llama")
    for normalisers, match in (
        ({"model.layers.9.self_attn": Plain()}, r"paths of attention layers \(model.layers.0.self_attn"),
        ({"model.layers.0.self_attn": SSMax((0.1, 0.2))}, "one for the 4 heads"),
        ({"model.layers.0.self_attn": SSMax(torch.ones(4))}, "whose arguments are numbers"),
        ({"model.layers.0.self_attn": SSMax(0.4, learned=True)}, "one number a head"),
    ):
        with pytest.raises(ArgumentError, match=match):
            set_normalisers(network, normalisers)
        assert network.config._attn_implementation == "eager"
    with pytest.raises(ArgumentError, match="SSMax with a number"):
        learn_scales(network, SSMax(torch.ones(4)))
    with pytest.raises(ArgumentError, match="learn_scales makes them learnable"):
        register("holdfast_learned", SSMax(learned=True))
    assert list(attention_layers(network)) == [f"model.layers.{layer}.self_attn" for layer in range(3)]
