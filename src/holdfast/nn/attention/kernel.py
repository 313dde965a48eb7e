"""PyTorch's fused attention of a CPU, forward and backward, with what its public function keeps to itself.

It is the operator behind `scaled_dot_product_attention`, which does not hand on the logarithm of a row's sum. With that
keys can be taken in two parts: a causal call with keys before the first query is one of those keys and one of the rest,
and so is its gradient. The operator looks at no argument: what it cannot do is kept from it by who calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"


def available() -> bool:
    """Whether this PyTorch has the operator, which is none of its public ones."""
    return hasattr(torch.ops.aten, FORWARD) and hasattr(torch.ops.aten, BACKWARD)


@dataclass(frozen=True)
class Fused:
    """A softmax attention of finite numbers whose logits are query . key + bias.

    Arguments:
        query: already scaled; queries stand at the end of the keys.
        key: `kv_heads` divides `heads`, and no key is repeated for the queries that share it.
        value: as wide as the keys.
        bias: 0 or -inf; no row is -inf throughout.
        causal: a query sees no key after it; without bias, and with no more queries than keys.
    """

    query: Float[Tensor, "batch heads queries dim"]
    key: Float[Tensor, "batch kv_heads keys dim"]
    value: Float[Tensor, "batch kv_heads keys dim"]
    bias: Float[Tensor, "#batch #heads queries keys"] | None = None
    causal: bool = False

    @property
    def _groups(self) -> int:
        return self.query.shape[1] // self.key.shape[1]

    @property
    def _parts(self) -> list[tuple[slice, bool]]:
        """Keys of each call of the operator, and whether it is causal, which it is from its first key on."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        before = keys - queries
        if not self.causal or queries == 1:
            return [(slice(0, keys), False)]
        last = [(slice(before, keys), True)]
        return [(slice(0, before), False), *last] if before else last

    def _of_group(self, tensor: Tensor, group: int) -> Tensor:
        """One query head of each key head."""
        return tensor if tensor.shape[1] == 1 < self._groups else tensor[:, group :: self._groups]

    def _options(self, group: int, causal: bool) -> dict[str, Any]:
        bias = None if self.bias is None else self._of_group(self.bias, group)
        return {"dropout_p": 0.0, "is_causal": causal, "attn_mask": bias, "scale": 1.0}

    def forward(self) -> tuple[Float[Tensor, "batch heads queries dim"], Float[Tensor, "batch heads queries"]]:
        """The output, and the logarithm of each row's sum of exponentials."""
        operator = getattr(torch.ops.aten, FORWARD)
        key, value = _dense(self.key), _dense(self.value)
        by_group = []
        for group in range(self._groups):
            query = _dense(self._of_group(self.query, group))
            parts = [
                operator(query, key[:, :, keys], value[:, :, keys], **self._options(group, causal))
                for keys, causal in self._parts
            ]
            by_group.append(parts[0] if len(parts) == 1 else _merged(*parts))
        if self._groups == 1:
            return by_group[0]
        output, total = (torch.stack(parts, 2).flatten(1, 2) for parts in zip(*by_group, strict=True))
        return output, total

    def backward(
        self,
        output: Float[Tensor, "batch heads queries dim"],
        total: Float[Tensor, "batch heads queries"],
        gradient: Float[Tensor, "batch heads queries dim"],
    ) -> tuple[
        Float[Tensor, "batch heads queries dim"],
        Float[Tensor, "batch kv_heads keys dim"],
        Float[Tensor, "batch kv_heads keys dim"],
    ]:
        """Gradients of query, key and value, from what `forward` returned and the gradient of its output."""
        operator = getattr(torch.ops.aten, BACKWARD)
        key, value = _dense(self.key), _dense(self.value)
        of_query: list[Tensor] = []
        of_key: list[list[Tensor]] = [[] for _ in self._parts]
        of_value: list[list[Tensor]] = [[] for _ in self._parts]
        for group in range(self._groups):
            by_row = (_dense(self._of_group(tensor, group)) for tensor in (gradient, self.query, output))
            asked, query, answer = by_row
            sums = self._of_group(total, group)
            shares = []
            for place, (keys, causal) in enumerate(self._parts):
                # With output and sum of whole rows each part has its share of the whole gradient.
                options = self._options(group, causal)
                dq, dk, dv = operator(asked, query, key[:, :, keys], value[:, :, keys], answer, sums, **options)
                shares.append(dq)
                of_key[place].append(dk)
                of_value[place].append(dv)
            of_query.append(_sum(shares))
        stacked = of_query[0] if self._groups == 1 else torch.stack(of_query, 2).flatten(1, 2)
        dk, dv = (_joined([_sum(groups) for groups in parts]) for parts in (of_key, of_value))
        return stacked, dk, dv


def _dense(tensor: Tensor) -> Tensor:
    """The operator takes the last dimension to be dense, and would read on elsewhere."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _merged(past: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Output and sum over both parts of the keys."""
    total = torch.logaddexp(past[1], last[1])
    shares = [(part[1] - total).exp().unsqueeze(-1) for part in (past, last)]
    return shares[0] * past[0] + shares[1] * last[0], total


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)
