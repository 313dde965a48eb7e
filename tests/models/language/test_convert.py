"""Published checkpoints: what their authors' code computes from the same weights, and what a file may hold."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, rms_norm

pytest.importorskip("transformers")

from holdfast.errors import ArgumentError
from holdfast.models.language.convert import SCHEDULES, convert, published, read
from tests.models.language.tiny import CHUNK, config, rows

D, HEADS, GROUPS, VOCABULARY, WINDOW = 32, 4, 2, 40, 5
HEAD = D // HEADS
MIXERS = ("rat", "window", "attention", "rnn")
EXACT = 1e-10
"""Of float64 logits of size 10, with sums of a hundred terms in another order."""


def checkpoint(groups: int = GROUPS) -> dict[str, Tensor]:
    """Weights under the names that compiled modules of the published code have."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.3

    weights = {"embedding.wte.weight": normal(VOCABULARY, D)}
    rows = {"rat": 3 * D + 2 * groups * HEAD, "window": 3 * D, "attention": 3 * D, "rnn": 3 * D}
    for layer, mixer in enumerate(MIXERS):
        block = f"backbone.layers.{layer}"
        weights[f"{block}.seq_layer.in_proj.weight"] = normal(rows[mixer], D)
        weights[f"{block}.seq_layer.out_proj.weight"] = normal(D, D)
        weights[f"{block}.seq_layer.input_norm.weight"] = 1 + normal(D)
        if mixer in ("rat", "rnn"):
            weights[f"{block}.seq_layer.gate_bias"] = normal(D)
        weights[f"{block}.hidden_layer.fc1.weight"] = normal(4 * D, D)
        weights[f"{block}.hidden_layer.fc2.weight"] = normal(D, 4 * D)
        weights[f"{block}.hidden_layer.ln.weight"] = 1 + normal(D)
    weights["backbone.ln.weight"] = 1 + normal(D)
    weights["head.lm_head.weight"] = weights["embedding.wte.weight"]
    return {f"_orig_mod.{name}": weight for name, weight in weights.items()}


EASYDICT = """
class EasyDict(dict):
    def __init__(self, values):
        for name, value in values.items():
            setattr(self, name, value)
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        super().__setitem__(name, value)
    __setitem__ = __setattr__
"""
"""What the published code keeps settings in."""


def rotated(x: Tensor, position: Tensor) -> Tensor:
    """As `apply_rotary_pos_emb` of the published code."""
    frequency = 1.0 / (10_000 ** (torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD))
    angle = torch.cat([position[:, None] * frequency] * 2, -1)
    half = torch.cat([-x[..., HEAD // 2 :], x[..., : HEAD // 2]], -1)
    return x * angle.cos() + half * angle.sin()


def by_head(x: Tensor) -> Tensor:
    return x.view(len(x), HEADS, HEAD).transpose(0, 1)


def attended(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    logits = (query @ keys.mT / HEAD**0.5).masked_fill(~visible, -torch.inf)
    return (logits.softmax(-1) @ values).transpose(0, 1).flatten(1)


def recurrence(gate: Tensor, x: Tensor, length: int) -> Tensor:
    states, state = [], torch.zeros(D, dtype=torch.float64)
    for place, (g, entry) in enumerate(zip(gate, x, strict=True)):
        state = (1 - g) * entry if place % length == 0 else g * state + (1 - g) * entry
        states.append(state)
    return torch.stack(states)


def of_rat(x: Tensor, weights: dict[str, Tensor], tiled: Any) -> Tensor:
    z, value, g, query, key = (x @ weights["in_proj.weight"].T).split([D] * 3 + [GROUPS * HEAD] * 2, -1)
    gate = torch.sigmoid(g + weights["gate_bias"])
    query, key = tiled(query), tiled(key)
    values, keys = by_head(recurrence(gate, value, CHUNK)), recurrence(gate, key, CHUNK)
    place = torch.arange(len(x))
    query, keys = (rotated(by_head(part), place // CHUNK) for part in (query, keys))
    # every key there is: the end of each chunk before, and the running one of the query itself
    visible = (place % CHUNK == CHUNK - 1) & (place // CHUNK < (place // CHUNK)[:, None])
    mixed = attended(query, keys, values, visible | torch.eye(len(x), dtype=torch.bool))
    return (torch.sigmoid(z) * mixed) @ weights["out_proj.weight"].T


def of_attention(x: Tensor, weights: dict[str, Tensor], window: int | None) -> Tensor:
    value, query, key = (x @ weights["in_proj.weight"].T).split(D, -1)
    place = torch.arange(len(x))
    distance = place[:, None] - place
    visible = (distance >= 0) & (distance <= (len(x) if window is None else window))
    query, key = (rotated(by_head(part), place) for part in (query, key))
    return attended(query, key, by_head(value), visible) @ weights["out_proj.weight"].T


def of_rnn(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    z, value, g = (x @ weights["in_proj.weight"].T).split(D, -1)
    gate = torch.sigmoid(g + weights["gate_bias"])
    return (torch.sigmoid(z) * recurrence(gate, value, len(x))) @ weights["out_proj.weight"].T


def by_repeat(x: Tensor) -> Tensor:
    """Groups as the published code hands them to heads: one after the other, again and again."""
    return x.repeat(1, HEADS // GROUPS)


def by_block(x: Tensor) -> Tensor:
    """Groups as grouped-query attention hands them to heads: each to its neighbours."""
    return x.view(len(x), GROUPS, 1, HEAD).expand(-1, -1, HEADS // GROUPS, -1).reshape(len(x), -1)


def official(ids: Tensor, weights: dict[str, Tensor], tiled: Any = by_repeat) -> Tensor:
    """Logits, as the published code computes them from a row of tokens."""
    weights = {name.replace("_orig_mod.", ""): weight for name, weight in weights.items()}
    x = weights["embedding.wte.weight"][ids]
    for layer, mixer in enumerate(MIXERS):
        block = f"backbone.layers.{layer}."
        of_block = {name.removeprefix(block): weight for name, weight in weights.items() if name.startswith(block)}
        of_mixer = {
            name.removeprefix("seq_layer."): weight for name, weight in of_block.items() if name.startswith("seq")
        }
        normed = rms_norm(x, (D,), of_mixer["input_norm.weight"], eps=1e-6)
        if mixer == "rat":
            x = x + of_rat(normed, of_mixer, tiled)
        elif mixer == "rnn":
            x = x + of_rnn(normed, of_mixer)
        else:
            x = x + of_attention(normed, of_mixer, WINDOW if mixer == "window" else None)
        normed = rms_norm(x, (D,), of_block["hidden_layer.ln.weight"], eps=1e-6)
        x = x + gelu(normed @ of_block["hidden_layer.fc1.weight"].T) @ of_block["hidden_layer.fc2.weight"].T
    return rms_norm(x, (D,), weights["backbone.ln.weight"], eps=1e-6) @ weights["head.lm_head.weight"].T


SHAPE = config(MIXERS, sliding_window=WINDOW + 1, tie_word_embeddings=True)
"""Theirs sees one token more than the window says."""


def test_a_converted_model_computes_what_the_published_code_computes() -> None:
    weights, ids = checkpoint(), rows(3 * CHUNK + 2)[0]
    network = convert({"task": weights}, SHAPE)
    assert network.dtype == torch.float64
    assert network.head.weight is network.embedding.weight
    logits = network(ids[None]).logits[0]
    torch.testing.assert_close(logits, official(ids, weights), rtol=0, atol=EXACT)
    # Another grouping of heads, and another window, would be another model.
    assert (logits - official(ids, weights, by_block)).abs().max() > 0.01
    narrower = convert(weights, config(MIXERS, sliding_window=WINDOW, tie_word_embeddings=True))
    assert (narrower(ids[None]).logits[0] - logits).abs().max() > 0.01


def test_heads_of_a_group_can_change_places() -> None:
    weights, ids = checkpoint(), rows(3 * CHUNK + 2)[0][None]
    expected = convert(weights, SHAPE)(ids).logits
    for order, same in [((2, 1, 0, 3), True), ((0, 3, 2, 1), True), ((1, 0, 2, 3), False)]:
        channel = (torch.tensor(order)[:, None] * HEAD + torch.arange(HEAD)).flatten()
        place = torch.cat([channel, channel + D, channel + 2 * D, torch.arange(3 * D, 3 * D + 2 * GROUPS * HEAD)])
        moved = dict(weights)
        layer = "_orig_mod.backbone.layers.0.seq_layer"
        moved[f"{layer}.in_proj.weight"] = weights[f"{layer}.in_proj.weight"][place]
        moved[f"{layer}.gate_bias"] = weights[f"{layer}.gate_bias"][channel]
        moved[f"{layer}.out_proj.weight"] = weights[f"{layer}.out_proj.weight"][:, channel]
        difference = (convert(moved, SHAPE)(ids).logits - expected).abs().max()
        assert (difference < EXACT) == same, order


def test_a_converted_model_is_saved_and_trained(tmp_path: Path) -> None:
    network = convert(checkpoint(), SHAPE)
    network.save_pretrained(tmp_path)
    ids = rows(9)[0][None]
    loaded = type(network).from_pretrained(tmp_path)
    assert all(weight.equal(loaded.state_dict()[name]) for name, weight in network.state_dict().items())
    network(ids, labels=ids).loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_the_head_may_differ_from_the_embedding() -> None:
    weights = checkpoint()
    weights["_orig_mod.head.lm_head.weight"] = weights["_orig_mod.head.lm_head.weight"] * 2
    with pytest.raises(ArgumentError, match="tie_word_embeddings=False"):
        convert(weights, SHAPE)
    network = convert(weights, config(MIXERS, sliding_window=WINDOW + 1, tie_word_embeddings=False))
    ids = rows(9)[0]
    torch.testing.assert_close(network(ids[None]).logits[0], official(ids, weights), rtol=0, atol=EXACT)


def test_a_file_is_read(tmp_path: Path) -> None:
    torch.save({"task": checkpoint(), "step": 7, "optimizer": {"state": {}}}, tmp_path / "small.pth")
    ids = rows(9)[0][None]
    assert convert(tmp_path / "small.pth", SHAPE)(ids).logits.equal(convert(checkpoint(), SHAPE)(ids).logits)
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    for name in ("broken.pth", "missing.pth"):
        with pytest.raises(ArgumentError, match=r"checkpoint: expected a file .* got .*pth"):
            convert(tmp_path / name, SHAPE)


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("easydict")
    exec(EASYDICT, module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "easydict", module)
        settings = module.EasyDict({"lr": 1e-3, "model": module.EasyDict({"layers": [1, 2], "name": "rat"})})
        torch.save({"task": checkpoint(), "config": settings}, tmp_path / "settings.pth")
        torch.save({"task": checkpoint(), "config": Path("x")}, tmp_path / "objects.pth")
    whole = read(tmp_path / "settings.pth")
    assert whole["config"] == {"lr": 1e-3, "model": {"layers": [1, 2], "name": "rat"}}
    assert convert(tmp_path / "settings.pth", SHAPE).config.mixers == list(MIXERS)
    with pytest.raises(ArgumentError, match=r"tensors and numbers\. If you trust.*weights_only=False.*Path") as caught:
        convert(tmp_path / "objects.pth", SHAPE)
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_said() -> None:
    weights = checkpoint()
    in_proj, bias = (f"_orig_mod.backbone.layers.0.seq_layer.{name}" for name in ("in_proj.weight", "gate_bias"))
    without = {name: weight for name, weight in weights.items() if name != bias}
    attempts: dict[str, tuple[dict[str, Any], Any]] = {
        r"backbone.blocks.0.mixer.gate_bias of shape \(32,\), got none, so that its layer is no RAT": (without, SHAPE),
        r"3 hidden_size \+ 2 qk_groups head_dim = 3 x 32 \+ 2 x 2 x 8 = 128 rows, got 160, as qk_groups=4 has": (
            checkpoint(groups=4),
            SHAPE,
        ),
        "= 128 rows, got 127$": ({**weights, in_proj: weights[in_proj][1:]}, SHAPE),
        r"embedding.weight of shape \(50, 32\), got shape \(40, 32\)": (weights, config(MIXERS, vocab_size=50)),
        "no backbone.blocks.3.* in a schedule of 3 layers": (weights, config(MIXERS[:3])),
        "weights of a language model by RAT's authors, got lm_head.weight": ({"lm_head.weight": torch.ones(2)}, SHAPE),
    }
    for message, (given, shape) in attempts.items():
        if shape is not SHAPE:
            shape.tie_word_embeddings = True
        with pytest.raises(ArgumentError, match=message):
            convert(given, shape)


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_shapes(name: str) -> None:
    assert len(published(name).mixers) == 24
    assert published(name).sliding_window == 1025
    assert published(name, legacy_window=False).sliding_window == 1024


def test_other_names_are_refused() -> None:
    with pytest.raises(ArgumentError, match="name: expected one of attention, rat, rnn"):
        published("gpt2")
