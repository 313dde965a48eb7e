"""A causal language model of sequence mixers, for transformers: generation, Trainer, save and load come with it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel, initialization
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from holdfast.errors import ArgumentError
from holdfast.models.language.cache import HoldfastCache
from holdfast.models.language.config import HoldfastConfig
from holdfast.nn import RAT, Backbone, GatedRNN, Layout


class HoldfastForCausalLM(PreTrainedModel, GenerationMixin):
    """Token embedding, a backbone, and a head that is the embedding unless `config.tie_word_embeddings` is off.

    Padding may stand on the left, on the right or in between; documents may be packed, see `forward`.

    Arguments:
        config: the shape.
    """

    config_class = HoldfastConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ("Block",)
    _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: HoldfastConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.backbone = Backbone(config.backbone())
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RAT | GatedRNN):
            memory = module.chunk_size if isinstance(module, RAT) else module.memory
            bias = torch.empty_like(module.gate_bias).uniform_(1.0, max(1.0, memory - 1.0)).log_()
            initialization.copy_(module.gate_bias, bias)  # leaves one alone that was loaded

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Exchange the embedding."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Exchange the head."""
        self.head = new_embeddings

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, **__: Any) -> None:
        self.gradient_checkpointing = self.backbone.checkpointing = enable

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "batch time"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "batch time dim"] | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cu_seqlens: Tensor | None = None,
        cu_seq_lens_q: Tensor | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the token after each token, and the loss where labels are given.

        Arguments:
            input_ids: token numbers.
            attention_mask: True or 1 where a token is live; with a cache its last columns are those of the new tokens.
            position_ids: a document begins where they do not go on by one; they say nothing else, and nothing where
                there is a cache or padding.
            past_key_values: a `HoldfastCache`, which the new tokens continue.
            inputs_embeds: vectors in place of token numbers.
            labels: token numbers, -100 where nothing is to be learned; they are shifted here.
            use_cache: whether to return a cache; `None`: as the configuration says, but not while training.
            logits_to_keep: of the last so many tokens only, or of these columns; 0: all.
            cu_seqlens: where packed documents begin in the flattened batch, and its end; see `Layout.of_documents`.
            cu_seq_lens_q: the same, as transformers' collator calls it.
            options: for the loss.

        Errors:
            ArgumentError: shapes that do not fit, another kind of cache, or one of another model or batch.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ArgumentError("input_ids", "either input_ids or inputs_embeds", "both or none")
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        batch, time = x.shape[:2]
        cache = past_key_values
        if cache is not None and not isinstance(cache, HoldfastCache):
            raise ArgumentError("past_key_values", "a HoldfastCache or None", type(cache).__name__)
        if cache is None and (not self.training and self.config.use_cache if use_cache is None else use_cache):
            cache = HoldfastCache()
        begun = cache is not None and cache.columns > 0
        bounds = cu_seq_lens_q if cu_seqlens is None else cu_seqlens
        layout = None
        if attention_mask is not None or bounds is not None or (position_ids is not None and not begun):
            layout = layout_of(batch, time, attention_mask, None if begun else position_ids, bounds)
        hidden, state = self.backbone(x, None if cache is None else cache.begun(self.backbone, batch), layout)
        if cache is not None:
            cache.advance(state, time)
        if isinstance(logits_to_keep, Tensor):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **options)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)


@torch.compiler.disable
def layout_of(
    batch: int, time: int, mask: Tensor | None, positions: Tensor | None, bounds: Tensor | None
) -> Layout | None:
    """Where padding and documents of new tokens are; `None`: nowhere.

    It reads values, once a call of the model, and so is no part of a compiled graph.

    Arguments:
        batch: number of rows.
        time: new tokens a row.
        mask: of all tokens or of the new ones; `None`: all are live.
        positions: which go on by one inside a document; `None`: a row is one.
        bounds: as of `Layout.of_documents`.

    Errors:
        ArgumentError: shapes that do not fit, or documents together with padding.
    """
    padded = None
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != batch or mask.shape[1] < time:
            got = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ArgumentError("attention_mask", f"a tensor of shape ({batch}, at least {time})", got)
        padded = Layout.of_mask(mask[:, mask.shape[1] - time :])
    if bounds is None and positions is not None and time:
        bounds = bounds_of(batch, time, positions, padded)
    if bounds is None:
        return padded
    if padded is not None:
        raise ArgumentError("attention_mask", "ones only, where documents are packed", "padding")
    return Layout.of_documents(bounds, batch, time)


def bounds_of(batch: int, time: int, positions: Tensor, padded: Layout | None) -> Int[Tensor, " bounds"] | None:
    """Where documents begin in the flattened batch, and its end; `None` where a row is one."""
    if positions.ndim != 2 or positions.shape[0] not in (1, batch) or positions.shape[1] != time:
        raise ArgumentError("position_ids", f"shape ({batch}, {time})", f"shape {tuple(positions.shape)}")
    positions = positions.expand(batch, time)
    if padded is not None:
        # Padding has any position. Those of live tokens rise inside a document.
        live = positions.masked_fill(~padded.live, -1)
        before = live.cummax(1).values[:, :-1]
        falls = padded.live[:, 1:] & (live[:, 1:] <= before)
        return torch.zeros(0) if bool(falls.any()) else None
    first = torch.ones(batch, time, dtype=torch.bool, device=positions.device)
    first[:, 1:] = positions.diff(dim=1) != 1
    if int(first.sum()) == batch:
        return None
    starts = first.flatten().nonzero().squeeze(1)
    return torch.cat([starts, starts.new_full((1,), batch * time)])


AutoModelForCausalLM.register(HoldfastConfig, HoldfastForCausalLM)
