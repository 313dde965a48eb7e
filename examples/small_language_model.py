"""A small language model from training to its card: RAT with adaptive temperature, watched, pruned, checked.

    python examples/small_language_model.py [STEPS]

It learns source of Python's standard library, byte by byte: once by AdamW, once by AdamW with power-propagation. Both
are watched while they train, and lose four fifths of their weights when they are done. The card of the pruned one
says what to expect of it outside of what it was trained for.
"""

import sys
import warnings

import torch

import holdfast
from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM
from holdfast.models.language.corpus import library_source
from holdfast.optim import EffectiveLR, apply_masks_, magnitude_masks, power_adamw

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 600
BATCH, CONTEXT, RATE, KEPT = 8, 64, 4e-3, 0.2

SHAPE = HoldfastConfig(
    vocab_size=256,
    hidden_size=64,
    mixers=["rat", "window"],
    num_attention_heads=4,
    chunk_size=16,
    sliding_window=32,
    normaliser="adaptive",
    max_position_embeddings=CONTEXT,
)


def corpus():
    """Bytes to learn from, and the next ones, to judge by."""
    data = torch.frombuffer(bytearray(b"".join(text for _, text in library_source().documents)), dtype=torch.uint8)
    return data[:2_000_000], data[2_000_000:2_100_000]


def train(make_optimizer, data):
    """A model, trained, and its effective learning rate after a tenth, a half and all of its steps."""
    torch.manual_seed(0)
    model = HoldfastForCausalLM(SHAPE)
    optimizer = make_optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    every = STEPS // 10
    watch, rates = EffectiveLR(model, optimizer, every=every), []
    for step in range(1, STEPS + 1):
        first = torch.randint(len(data) - CONTEXT, (BATCH, 1))
        tokens = data[first + torch.arange(CONTEXT)].long()
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in (every, 5 * every, 10 * every):
            rates.append(watch.last["elr/global"])
    watch.remove()
    return model.eval(), rates


@torch.no_grad()
def bits(model, data):
    """Bits per byte on text that it was not trained on."""
    tokens = data[: len(data) // CONTEXT * CONTEXT].view(-1, CONTEXT)[:256].long()
    return model(input_ids=tokens, labels=tokens).loss.item() / torch.log(torch.tensor(2.0)).item()


if __name__ == "__main__":
    torch.set_num_threads(1)  # more only wait for each other on tensors as small as these
    warnings.filterwarnings("ignore", "the nominal effective learning rate")  # only measured ones are shown
    learnt, judged = corpus()
    optimizers = {
        "AdamW": lambda model: torch.optim.AdamW(model.parameters(), RATE),
        "with power-propagation": lambda model: power_adamw(model, lr=RATE),
    }
    print(f"{'bits per byte:':<23} dense  pruned  effective learning rate: early, half-way, at the end")
    for name, make in optimizers.items():
        model, rates = train(make, learnt)
        dense = bits(model, judged)
        apply_masks_(model, magnitude_masks(model, KEPT))
        print(f"{name:<23} {dense:5.2f} {bits(model, judged):7.2f} ", *(f"{rate:.1e}" for rate in rates))
    print(holdfast.check(model, settings=holdfast.CheckSettings(budget_s=10)))
