"""A causal language model of sequence mixers, for transformers: generation, Trainer, save and load come with it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    initialization,
)
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from holdfast.errors import ArgumentError
from holdfast.models.language.cache import HoldfastCache
from holdfast.models.language.config import HoldfastConfig
from holdfast.models.language.layouts import layout_of
from holdfast.nn import MLSTM, RAT, SLSTM, Backbone, GatedRNN, LearnedScale


class HoldfastForCausalLM(PreTrainedModel, GenerationMixin):
    """Token embedding, a backbone, and a head that is the embedding unless `config.tie_word_embeddings` is off.

    Padding may stand on the left, on the right or in between; documents may be packed, see `forward`. Weight decay of
    transformers' Trainer leaves out norms and gate biases.

    Arguments:
        config: the shape.
    """

    config_class = HoldfastConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012
    _fsdp_plan = {  # noqa: RUF012
        "embedding": "free_full_weight",
        "backbone.blocks.*": "free_full_weight",
        "backbone.norm": "keep_full_weight",
        "head": "keep_full_weight",
    }

    def __init__(self, config: HoldfastConfig) -> None:
        super().__init__(config)
        self._is_stateful = set(config.mixers) != {"attention"}  # what transformers calls a model that cannot go back
        self.embedding: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size)
        self.backbone = Backbone(config.backbone())
        self.head: nn.Module = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, RAT | GatedRNN):
            memory = module.chunk_size if isinstance(module, RAT) else module.memory
            bias = torch.empty_like(module.gate_bias).uniform_(1.0, max(1.0, memory - 1.0)).log_()
            initialization.copy_(module.gate_bias, bias)  # leaves alone what was loaded
        if isinstance(module, LearnedScale):
            initialization.copy_(module.log_scale, module.beginning())
        if isinstance(module, MLSTM | SLSTM):
            fresh = copy.deepcopy(module)
            fresh.reset_parameters()
            for parameter, value in zip(module.parameters(), fresh.parameters(), strict=True):
                initialization.copy_(parameter, value)

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

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Int[Tensor, "batch time"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "batch time dim"] | None = None,
        labels: Int[Tensor, "batch time"] | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cu_seqlens: Tensor | None = None,
        cu_seq_lens_q: Tensor | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the token after each token, and the loss where labels are given.

        Arguments:
            input_ids: token numbers.
            attention_mask: True or 1 where a token is live; with a cache its last columns are those of the new tokens.
            position_ids: a document begins where they do not go on by one. They say nothing else, and nothing at all
                where there is a cache.
            past_key_values: a `HoldfastCache`, which the new tokens continue.
            inputs_embeds: vectors in place of token numbers.
            labels: token numbers, -100 where nothing is to be learned, such as at the first token of a packed
                document; they are shifted here.
            use_cache: whether to return a cache; `None`: as the configuration says, but not while training.
            output_hidden_states: whether to return what each block read, and the last norm's output.
            logits_to_keep: of the last so many tokens only, or of these columns; 0: all.
            cu_seqlens: where packed documents begin in the flattened batch, and its end; see `Layout.of_documents`.
            cu_seq_lens_q: the same, as transformers' collator calls it.
            options: for the loss, such as `num_items_in_batch`.

        Errors:
            ArgumentError: shapes that do not fit, another kind of cache, or one of another model or batch.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ArgumentError(
                "input_ids", "input_ids or inputs_embeds", "both" if inputs_embeds is not None else "none"
            )
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values
        if cache is not None and not isinstance(cache, HoldfastCache):
            raise ArgumentError("past_key_values", "a HoldfastCache or None", type(cache).__name__)
        if cache is None and (not self.training and self.config.use_cache if use_cache is None else use_cache):
            cache = HoldfastCache()
        positions = None if cache is not None and cache.columns else position_ids
        bounds = cu_seq_lens_q if cu_seqlens is None else cu_seqlens
        layout = None
        if not (attention_mask is None and positions is None and bounds is None):
            layout = layout_of(x, attention_mask, positions, bounds)
        read: list[Tensor] = []
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        blocks = list(self.backbone.blocks) if wanted else []
        hooks = [block.register_forward_pre_hook(lambda _, given: read.append(given[0])) for block in blocks]
        try:
            hidden, state = self.backbone(x, None if cache is None else cache.begun(self.backbone, len(x)), layout)
        finally:
            for hook in hooks:
                hook.remove()
        if cache is not None:
            cache.advance(state, x.shape[1])
        kept = hidden
        if isinstance(logits_to_keep, Tensor):
            kept = hidden[:, logits_to_keep]
        elif logits_to_keep:
            kept = hidden[:, -logits_to_keep:]
        logits = self.head(kept)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **options)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=cache, hidden_states=(*read, hidden) if wanted else None
        )

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> bool:
        """Put a `HoldfastCache` into the arguments of the model, unless there is one or none is wanted."""
        if self._is_stateful and (
            generation_mode == GenerationMode.ASSISTED_GENERATION or generation_config.is_assistant
        ):
            schedule = f"{', '.join(dict.fromkeys(self.config.mixers))}, which cannot go back"
            raise ArgumentError("assistant_model", "attention layers only, for assisted decoding", schedule)
        given = model_kwargs.get("past_key_values")
        if given is not None and not isinstance(given, HoldfastCache):
            raise ArgumentError("past_key_values", "a HoldfastCache or None", type(given).__name__)
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic", "dynamic_full", "static"):
            raise ArgumentError("cache_implementation", "dynamic or static", kind)
        if given is not None:
            if kind is not None:
                raise ArgumentError("cache_implementation", "None where past_key_values are given", kind)
            given._is_user_defined = True
        elif generation_config.use_cache is not False:
            room = max(max_cache_length, getattr(generation_config, "max_cache_len", None) or 0)
            model_kwargs["past_key_values"] = HoldfastCache(room if kind == "static" else None)
        return "past_key_values" in model_kwargs


AutoModelForCausalLM.register(HoldfastConfig, HoldfastForCausalLM)
