"""Models from the checkpoints that RAT's authors published.

    model = convert("rat-xl.pth", published("rat"))

Such a file holds the weights under "task", perhaps beside the state of a training run, and compiled modules have a
prefix in their names. Weights keep their order: ours are laid out likewise.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.models.language.config import HoldfastConfig
from holdfast.models.language.model import HoldfastForCausalLM

SCHEDULES = {
    "attention": ("attention",) * 24,
    "rat": ("rat",) * 24,
    "rnn": ("rnn",) * 24,
    "attention_localattention": ("attention", "window") * 12,
    "rat_localattention": ("rat", "window") * 12,
}
"""Mixers of the published models, by the names that their authors have for them."""

NAMES = {
    r"embedding\.wte\.weight": "embedding.weight",
    r"head\.lm_head\.weight": "head.weight",
    r"backbone\.ln\.weight": "backbone.norm.weight",
    r"backbone\.layers\.(\d+)\.seq_layer\.input_norm\.weight": r"backbone.blocks.\1.mixer_norm.weight",
    r"backbone\.layers\.(\d+)\.seq_layer\.(in_proj\.weight|out_proj\.weight|gate_bias)": r"backbone.blocks.\1.mixer.\2",
    r"backbone\.layers\.(\d+)\.hidden_layer\.ln\.weight": r"backbone.blocks.\1.feed_norm.weight",
    r"backbone\.layers\.(\d+)\.hidden_layer\.fc1\.weight": r"backbone.blocks.\1.feed_forward.in_proj.weight",
    r"backbone\.layers\.(\d+)\.hidden_layer\.fc2\.weight": r"backbone.blocks.\1.feed_forward.out_proj.weight",
}
"""Their names of weights and ours."""


def published(name: str, *, legacy_window: bool = True) -> HoldfastConfig:
    """The shape of a published model of 1.3 billion parameters.

    Arguments:
        name: one of `SCHEDULES`.
        legacy_window: whether local attention sees 1025 tokens, as their code computes it, and not the 1024 that the
            paper says.

    Errors:
        ArgumentError: there is no such model.
    """
    if name not in SCHEDULES:
        raise ArgumentError("name", f"one of {', '.join(SCHEDULES)}", name)
    return HoldfastConfig(
        mixers=SCHEDULES[name],
        vocab_size=32_000,
        hidden_size=2048,
        num_attention_heads=16,
        chunk_size=16,
        qk_groups=2,
        sliding_window=1024 + legacy_window,
        memory=4096,
        max_position_embeddings=4096,
    )


def convert(checkpoint: str | Path | Mapping[str, Any], config: HoldfastConfig) -> HoldfastForCausalLM:
    """A model with the weights of a checkpoint, in the dtype that they have.

    Arguments:
        checkpoint: a file of theirs, or what it holds.
        config: the shape, for example `published("rat")`; local attention counts the token itself in
            `sliding_window`, theirs does not.

    Errors:
        ArgumentError: the file cannot be read without running code, or weights are missing, unknown or of other
            shapes.
    """
    whole = checkpoint if isinstance(checkpoint, Mapping) else read(Path(checkpoint))
    weights = renamed(whole.get("task", whole))
    tied = "head.weight" not in weights or torch.equal(weights["head.weight"], weights["embedding.weight"])
    if config.tie_word_embeddings and not tied:
        expected = "the head to be the embedding; with tie_word_embeddings=False in the configuration it may differ"
        raise ArgumentError("checkpoint", expected, "another one")
    with torch.device("meta"):
        model = HoldfastForCausalLM(config)
    wanted = model.state_dict()
    if tied and "embedding.weight" in weights:
        weights["head.weight"] = weights["embedding.weight"]
    check(weights, {name: tuple(tensor.shape) for name, tensor in wanted.items()}, config)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.eval()  # type: ignore[no-untyped-call]
    return model


def read(path: Path) -> Mapping[str, Any]:
    """What a file holds. No code of it or of another package is ever run: settings of a training run, of the class
    `EasyDict`, are read as what they are, names and values.

    Errors:
        ArgumentError: it cannot be read, or holds other objects.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([(OrderedDict, "easydict.EasyDict")]):
            whole: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ArgumentError(
            "checkpoint",
            "a file of tensors and numbers. If you trust whoever made it, save its weights alone, once: "
            'torch.save(torch.load(PATH, weights_only=False)["task"], NEW_PATH)',
            f"{path} with {named[1] if named else 'other objects'}",
        ) from error
    except Exception as error:  # a damaged file comes as errors of many libraries
        raise ArgumentError("checkpoint", "a file that torch.save wrote", f"{path} ({error})") from error
    if not isinstance(whole, Mapping):
        raise ArgumentError("checkpoint", "weights by name", f"{path} with a {type(whole).__name__}")
    return whole


def renamed(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under our names.

    Errors:
        ArgumentError: there are others.
    """
    result: dict[str, Tensor] = {}
    for official, tensor in weights.items():
        plain = official.replace("_orig_mod.", "")
        pattern = next((pattern for pattern in NAMES if re.fullmatch(pattern, plain)), None)
        if pattern is None or not isinstance(tensor, Tensor):
            raise ArgumentError("checkpoint", "weights of a language model by RAT's authors", official)
        result[re.sub(pattern, NAMES[pattern], plain)] = tensor
    return result


def check(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], config: HoldfastConfig) -> None:
    """Compare the weights that there are with those that a model has.

    Errors:
        ArgumentError: they differ; it says in what, and in projections by which option.
    """
    for name, shape in shapes.items():
        if name not in weights:
            kind = ", so that its layer is no RAT and no RNN" if name.endswith("gate_bias") else ""
            raise ArgumentError("checkpoint", f"{name} of shape {shape}", f"none{kind}")
        got = tuple(weights[name].shape)
        if got == shape:
            continue
        layer = re.fullmatch(r"backbone\.blocks\.(\d+)\.mixer\.in_proj\.weight", name)
        if layer is not None and config.mixers[int(layer[1])] == "rat" and got[1:] == shape[1:]:
            raise ArgumentError("checkpoint", *groups(name, shape[0], got[0], config))
        raise ArgumentError("checkpoint", f"{name} of shape {shape}", f"shape {got}")
    for name in weights:
        if name not in shapes:
            raise ArgumentError("checkpoint", f"no {name} in a schedule of {len(config.mixers)} layers", "one")


def groups(name: str, expected: int, got: int, config: HoldfastConfig) -> tuple[str, str]:
    """What was expected of a projection of RAT, and what came: another number of groups, if that explains it."""
    width = config.hidden_size // config.num_attention_heads
    number = config.num_attention_heads if config.qk_groups is None else config.qk_groups
    rows = f"{name} with 3 hidden_size + 2 qk_groups head_dim = 3 x {config.hidden_size} + 2 x {number} x {width}"
    rest = got - 3 * config.hidden_size
    explained = f", as qk_groups={rest // (2 * width)} has" if rest > 0 and rest % (2 * width) == 0 else ""
    return f"{rows} = {expected} rows", f"{got}{explained}"
