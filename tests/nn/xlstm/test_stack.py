"""mLSTM and sLSTM blocks as one network of the published shape."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import XLSTM, XLSTM_SIZES, Backbone, BackboneConfig, BackboneState, Layout, XLSTMConfig
from tests.nn.test_mixer_contract import in_pieces, numbers

COUNTS = {
    "16M": 12_939_840,
    "48M": 43_269_984,
    "108M": 102_089_856,
    "206M": 198_836_640,
    "16M-slstm": 12_934_200,
    "48M-slstm": 43_154_768,
    "108M-slstm": 101_805_168,
    "206M-slstm": 198_057_096,
}
"""Parameters of the published networks, last norm included, as NX-AI's package counts them."""


def network(**changes) -> XLSTM:
    torch.manual_seed(0)
    module = XLSTM(XLSTMConfig(**({"dim": 16, "layers": 3, "heads": 2, "slstm_at": (1,)} | changes))).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


@pytest.mark.parametrize("name", XLSTM_SIZES)
def test_published_sizes_have_the_published_numbers_of_parameters(name):
    with torch.device("meta"):
        module = XLSTM(XLSTM_SIZES[name])
    assert sum(parameter.numel() for parameter in module.parameters()) == COUNTS[name]


def test_a_block_is_what_the_paper_says():
    module, x = network(layers=2), numbers(2, 5, 16)
    first, second = module.blocks
    with torch.no_grad():
        mixed = x + first.mixer(first.mixer_norm(x))[0]
        mixed = mixed + second.mixer(second.mixer_norm(mixed))[0]
        gate, value = (second.feed_norm(mixed) @ second.feed_forward.in_proj.weight.mT).split(64, -1)
        gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
        mixed = mixed + (gelu * value) @ second.feed_forward.out_proj.weight.mT
        torch.testing.assert_close(module(x)[0], module.norm(mixed), rtol=1e-12, atol=1e-12)
    assert first.feed_forward is None
    for norm in (first.mixer_norm, second.feed_norm, module.norm):
        assert norm.bias is None


def test_states_of_all_layers_go_on_together():
    module, x = network(), numbers(3, 14, 16)
    with torch.no_grad():
        whole, state = module(x)
        output, after = in_pieces(module, x, [1, 2, 9])
        torch.testing.assert_close(output, whole, rtol=1e-10, atol=1e-10)
        assert after.nbytes == state.nbytes == module.init_state(3).nbytes
        index = torch.tensor([2, 0])
        more = numbers(2, 3, 16, seed=4)
        chosen, _ = module(more, state.reorder(index))
        torch.testing.assert_close(chosen, module(torch.cat([x[index], more], 1))[0][:, 14:], rtol=1e-10, atol=1e-10)
        live = Layout.of_mask(torch.arange(14)[None] >= torch.tensor([[0], [4], [13]]))
        padded, _ = module(x, None, live)
        torch.testing.assert_close(padded[1, 4:], module(x[1:2, 4:])[0][0], rtol=1e-10, atol=1e-10)
    with pytest.raises(ArgumentError, match="state: expected 3 layers, got 2"):
        module(x, BackboneState(layers=state.layers[:2]))


def test_blocks_computed_again_have_the_same_gradients():
    module, x = network(), numbers(2, 11, 16)
    layout = Layout.of_mask(torch.arange(11)[None] >= torch.tensor([[0], [4]]))
    gradients = []
    for checkpointing in (False, True):
        module.checkpointing = checkpointing
        module.zero_grad()
        module(x, None, layout)[0].square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for once, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(once, twice)


def test_blocks_know_their_place_when_they_begin():
    """Forget gates of later sLSTM blocks remember longer, and what is added to the residual stream shrinks with it."""
    config = XLSTMConfig(dim=128, layers=4, heads=2, slstm_at=(1, 3))
    torch.manual_seed(0)
    module = XLSTM(config)
    for layer in config.slstm_at:
        middle = module.blocks[layer].mixer.bias[0, 1, 32].item()
        assert math.isclose(middle, 5 - 12 * (32 / 63) ** (0.3 + 1.3 * layer / 3), rel_tol=1e-5)
        down = module.blocks[layer].feed_forward.out_proj.weight
        assert math.isclose(down.std().item(), 2 / (4 * math.sqrt(128)), rel_tol=5 / math.sqrt(2 * down.numel()))
    down = module.blocks[0].mixer.out_proj.weight
    assert math.isclose(down.std().item(), 2 / (4 * math.sqrt(128)), rel_tol=5 / math.sqrt(2 * down.numel()))
    backbone = Backbone(BackboneConfig(mixers=("slstm", "rnn", "slstm"), dim=8, heads=2))
    assert [(block.mixer.block, block.mixer.blocks) for block in (backbone.blocks[0], backbone.blocks[2])] == [
        (0, 3),
        (2, 3),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slstm_at": (3,)}, r"slstm_at: expected different numbers below the 3 layers, got \(3,\)"),
        ({"slstm_at": (1, 1)}, "slstm_at: expected different numbers"),
        ({"slstm_at": (-1,)}, "slstm_at: expected different numbers"),
        ({"layers": 0, "slstm_at": ()}, "layers: expected a whole number of at least 1, got 0"),
        ({"heads": 3}, "heads: expected a divisor of the inner width 64, got 3"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        network(**changes)
