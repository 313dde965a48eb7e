"""The mLSTM token by token, as its equations stand: the reference of every other form.

    m_t = max(log f_t + m_{t-1}, log i_t)        f = sigmoid(forget_gate), i = exp(input_gate)
    C_t = f' C_{t-1} + i' k_t v_t^T              f' = exp(log f_t + m_{t-1} - m_t), i' = exp(log i_t - m_t)
    n_t = f' n_{t-1} + i' k_t
    h_t = C_t^T q_t / (max(|n_t^T q_t|, exp(-m_t)) + eps)

Source: arXiv 2405.04517, equations 19 to 27, with the stabiliser of its appendix.
"""

from __future__ import annotations

import torch

from holdfast.nn.xlstm.call import Memory, MLSTMAnswer, MLSTMCall, in_dtype


def refusal(call: MLSTMCall) -> str | None:
    """It takes every call."""
    return None


def compute(call: MLSTMCall) -> MLSTMAnswer:
    """Output and memory of a call of at least one token."""
    tokens = call.tokens()
    cell, normaliser, unit = call.memory.cell, call.memory.normaliser, call.memory.stabiliser
    outputs = []
    for t in range(call.time):
        query, key, value = call.scale * tokens.query[:, t], tokens.key[:, t], tokens.value[:, t]
        kept, taken = tokens.log_forget[:, t] + unit, tokens.log_input[:, t]
        unit = torch.maximum(kept, taken).detach()
        forget, take = (kept - unit).exp()[:, None], (taken - unit).exp()[:, None]
        cell = forget[:, None] * cell + (take * key)[:, :, None] * value[:, None]
        normaliser = forget * normaliser + take * key
        numerator = (cell * query[:, :, None]).sum(1)
        denominator = (normaliser * query).sum(1).abs()
        outputs.append(numerator / (torch.maximum(denominator, (-unit).exp()) + call.eps)[:, None])
    memory = Memory(cell=cell, normaliser=normaliser, stabiliser=unit)
    return MLSTMAnswer(in_dtype(torch.stack(outputs, 1), call.value.dtype), memory)
