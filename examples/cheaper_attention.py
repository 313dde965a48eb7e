"""RAT: what a layer of attention keeps of a long text, beside RAT in its place, which is called in the same way.

RAT attends to chunks of tokens, with a recurrence inside of each, so that it keeps as many times fewer keys and values.
"""

import torch

from holdfast.nn import RAT, CausalAttention

DIM, HEADS, CHUNK = 64, 4, 16


@torch.no_grad()
def kept(layer, tokens):
    """KiB that the layer keeps of a text of so many tokens, from which it goes on."""
    _, state = layer(torch.randn(1, tokens, DIM))
    return state.nbytes / 1024


if __name__ == "__main__":
    torch.manual_seed(0)
    layers = {
        "attention": CausalAttention(DIM, HEADS),
        f"RAT, chunks of {CHUNK}": RAT(DIM, HEADS, chunk_size=CHUNK),
    }
    print(f"{'KiB kept after tokens':<22}", *(f"{tokens:>8,}" for tokens in (256, 1024, 4096)))
    for name, layer in layers.items():
        print(f"{name:<22}", *(f"{kept(layer, tokens):8.1f}" for tokens in (256, 1024, 4096)))

    # Any split of a text gives the output of the whole.
    layer, x = layers[f"RAT, chunks of {CHUNK}"], torch.randn(1, 300, DIM)
    whole, _ = layer(x)
    first, state = layer(x[:, :123])
    rest, _ = layer(x[:, 123:], state)
    difference = (torch.cat([first, rest], dim=1) - whole).abs().max().item()
    print(f"whole text and two parts of it differ by {difference:.0e} at most")
