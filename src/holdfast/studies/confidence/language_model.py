"""A small language model of transformers that is trained here from nothing, on prompts and what is to follow them.

Words are tokens (of the tokenizers library), and the architecture is Llama's, so that the model is asked as any other:
by `holdfast.confidence.responders.HuggingFaceResponder`, through its chat template. It is trained to give a whole
distribution over the labels of a prompt's options, which is the same as many transcripts of that prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.lab import progress
from holdfast.lab.seeds import rng_for

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int
    from torch import Tensor

    from holdfast.lab import Record
    from holdfast.llm import Message

ORDER, AUTHORS = range(2)
"""Purposes of random numbers; see `holdfast.lab.seeds`."""

LABELS = ("A", "B")

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Of conversations."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, and how it is trained.

    Arguments:
        device: where, such as "cpu" or "cuda"; in float32 everywhere.
        layers: number of blocks.
        dim: width of the residual stream.
        heads: of attention.
        steps: optimiser steps (AdamW).
        batch: prompts a step.
        learning_rate: greatest learning rate; it rises, then falls to 0 along a cosine.
        warmup: steps in which it rises.
        weight_decay: decoupled weight decay of matrices.
        clip: largest norm of the gradient.
        curve_every: steps between two points of the learning curve.
    """

    device: str = "cpu"
    layers: int = 2
    dim: int = 96
    heads: int = 8
    steps: int = 1600
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    curve_every: int = 20

    @property
    def gpu(self) -> float:
        """Share of a GPU that a trial asks for."""
        return 1.0 if self.device.startswith("cuda") else 0.0

    @property
    def cost(self) -> float:
        """Relative length of a training."""
        return self.steps * self.batch * self.layers * (self.dim / 96) / 10_000

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))


Targets = Callable[["Int[np.ndarray, ' batch']", int], "Float[np.ndarray, 'batch labels']"]
"""Maps numbers of prompts and the step to the share of transcripts of each in which each label follows."""


def word_tokenizer(conversations: Sequence[Sequence[Message]]) -> Any:
    """A tokenizer whose tokens are the words and signs of some conversations, with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    words = {word for messages in conversations for message in messages for word in _words(split, message["content"])}
    words |= {*_words(split, "[user] [assistant] [system]"), *LABELS}
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["?", *sorted(words - {"?"})])}, "?"))
    core.pre_tokenizer = split
    made = PreTrainedTokenizerFast(tokenizer_object=core)
    made.chat_template = TEMPLATE
    return made


def _words(split: Any, text: str) -> list[str]:
    return [word for word, _ in split.pre_tokenize_str(text)]


def untrained(recipe: Recipe, tokenizer: Any, seed: int) -> Any:
    """A model with random weights.

    Arguments:
        recipe: its shape.
        tokenizer: whose tokens it reads.
        seed: of the weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.dim,
        intermediate_size=2 * recipe.dim,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        # The default, 0.02, suits widths of thousands: a small model spends half of its training near zero with it.
        initializer_range=recipe.dim**-0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    return model.to(recipe.device)


def train(
    model: Any, tokenizer: Any, conversations: Sequence[Sequence[Message]], targets: Targets, recipe: Recipe, seed: int
) -> list[Record]:
    """Train a model to answer conversations.

    Arguments:
        model: with its initial weights.
        tokenizer: of the model.
        conversations: all that may be asked; each is read equally often.
        targets: what follows.
        recipe: how.
        seed: of the order in which conversations are read.

    Returns:
        The learning curve: `loss` by `step`, the divergence of the model's next token from the targets, in nats, a mean
        over the steps since the point before.
    """
    import numpy as np
    import torch

    texts = [tokenizer.apply_chat_template(list(m), tokenize=False, add_generation_prompt=True) for m in conversations]
    rows = [torch.tensor(tokens) for tokens in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    labels = torch.tensor(tokenizer.convert_tokens_to_ids(list(LABELS)), device=recipe.device)
    optimizer = _optimizer(model, recipe)
    order: list[int] = []
    rng = rng_for(seed, ORDER)
    curve: list[Record] = []
    losses: list[float] = []
    model.train()
    for step in range(recipe.steps):
        while len(order) < recipe.batch:
            order += rng.permutation(len(rows)).tolist()
        batch, order = np.array(order[: recipe.batch]), order[recipe.batch :]
        wanted = torch.from_numpy(targets(batch, step)).float().to(recipe.device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        log_probs = _next_token(model, [rows[row] for row in batch], recipe.device).log_softmax(dim=-1)
        entropy = -torch.xlogy(wanted, wanted).sum(dim=1)
        loss = (-(wanted * log_probs[:, labels]).sum(dim=1) - entropy).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % recipe.curve_every == 0 or step + 1 == recipe.steps:
            curve.append({"step": step + 1, "loss": math.fsum(losses) / len(losses)})
            losses = []
            progress.report(0.9 * (step + 1) / recipe.steps, loss=float(curve[-1]["loss"] or 0.0))
    model.eval()
    return curve


def _next_token(model: Any, rows: Sequence[Tensor], device: str) -> Float[Tensor, "batch vocabulary"]:
    """Logits behind each row. Padding stands at the right, where a causal model does not see it."""
    import torch

    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(device)
    hidden = model.model(padded, use_cache=False).last_hidden_state
    ends = torch.tensor([len(row) - 1 for row in rows], device=device)
    logits: Tensor = model.lm_head(hidden[torch.arange(len(rows), device=device), ends])
    return logits.float()


def _optimizer(model: Any, recipe: Recipe) -> Any:
    import torch

    matrices = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    others = [tensor for tensor in model.parameters() if tensor.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
