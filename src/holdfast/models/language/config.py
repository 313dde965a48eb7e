"""The shape of a language model, as transformers keeps it in `config.json`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from holdfast.errors import ArgumentError, count_of
from holdfast.nn import MIXERS, BackboneConfig, normaliser_of

NAMES = {
    "dim": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "window": "sliding_window",
}
"""How this configuration calls what a backbone calls otherwise."""


class HoldfastConfig(PreTrainedConfig):
    """Shape of a `HoldfastForCausalLM`; the default is the hybrid of RAT's paper, of 1.3 billion parameters.

    Arguments:
        vocab_size: number of tokens.
        hidden_size: width of the residual stream.
        mixers: name of each layer's mixer: rat, attention, window, rnn, mlstm or slstm.
        num_attention_heads: query heads of attention and RAT.
        num_key_value_heads: key heads of attention; `None`: as many.
        expansion: hidden width of the feed-forward layers, in multiples of `hidden_size`.
        chunk_size: tokens a chunk of RAT.
        qk_groups: queries and keys that RAT's heads share; `None`: one a head.
        sliding_window: tokens that a token sees in a `window` layer, itself included.
        memory: of the gated recurrence: its gates remember for 1 to `memory - 1` tokens at first.
        rope_theta: base of rotary positions; `None`: no layer has positions.
        output_gate: whether attention has an output gate, as RAT and the recurrence do.
        normaliser: what turns logits into weights: a name from `holdfast.nn.NORMALISERS`, or a dict of the name and
            its arguments, such as `{"name": "log-n", "train_length": 4096}`, or
            `{"name": "ssmax", "scale": 0.43, "learned": True}` for a scale that each head learns; `None`: the softmax.
        max_position_embeddings: tokens that the model was trained on at a time; it says so, and limits nothing.
        initializer_range: standard deviation of new weights.
        tie_word_embeddings: whether the head is the embedding.
        use_cache: whether a state is returned, from which a sequence can go on.
        pad_token_id: number of the token that fills up a batch.
        bos_token_id: number of the token that begins a text.
        eos_token_id: number of the token that ends one.

    Errors:
        ArgumentError: values that do not fit each other, or none of those that there are.
    """

    model_type = "holdfast"
    keys_to_ignore_at_inference = ("past_key_values",)
    base_model_fsdp_plan = {}  # noqa: RUF012
    __no_type_check__ = True  # it takes any keyword, which its signature does not tell a run-time type checker

    vocab_size: int = 32_000
    hidden_size: int = 2048
    mixers: list[str] | tuple[str, ...] = ("rat", "window") * 12
    num_attention_heads: int = 16
    num_key_value_heads: int | None = None
    expansion: int = 4
    chunk_size: int = 16
    qk_groups: int | None = 2
    sliding_window: int = 1024
    memory: int = 4096
    rope_theta: float | int | None = 10_000.0
    output_gate: bool = False
    normaliser: str | dict[str, Any] | None = None
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Check all values, and give the rest to transformers."""
        if isinstance(self.mixers, str) or not all(isinstance(name, str) for name in self.mixers):
            raise ArgumentError("mixers", f"a list of {', '.join(MIXERS)}", repr(self.mixers))
        self.mixers = list(self.mixers)
        count_of("vocab_size", self.vocab_size, least=1)
        try:
            shape = self.backbone()
            with torch.device("meta"):  # a mixer checks what it reads
                for name in sorted(set(self.mixers)):
                    MIXERS[name](shape, 0)
        except ArgumentError as error:
            raise ArgumentError(NAMES.get(error.argument, error.argument), error.expected, error.got) from None
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks."""
        return len(self.mixers)

    def backbone(self) -> BackboneConfig:
        """The part of it that a backbone is made of."""
        return BackboneConfig(
            mixers=tuple(self.mixers),
            dim=self.hidden_size,
            heads=self.num_attention_heads,
            expansion=self.expansion,
            chunk_size=self.chunk_size,
            qk_groups=self.qk_groups,
            kv_heads=self.num_key_value_heads,
            window=self.sliding_window,
            memory=self.memory,
            rope_theta=self.rope_theta,
            output_gate=self.output_gate,
            normaliser=normaliser_of(self.normaliser),
        )


AutoConfig.register(HoldfastConfig.model_type, HoldfastConfig)
