"""Digits drawn from the fonts that come with Matplotlib: as many images as are wanted, without a download."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from holdfast.lab.seeds import generator_for
from holdfast.studies.digits import CLASSES, Labelled
from holdfast.studies.solutions.streams import GLYPHS

SIDE = 28
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmtt10",
)


@cache
def templates() -> Float[Tensor, "fonts classes side side"]:
    """Each digit in each font, from 0 to 1, centred."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images = torch.zeros(len(FONTS), CLASSES, SIDE, SIDE)
    for number, name in enumerate(FONTS):
        for digit in range(CLASSES):
            font = FT2Font(str(folder / f"{name}.ttf"))
            font.set_size(20, 72)
            font.set_text(str(digit))
            font.draw_glyphs_to_bitmap()
            glyph = torch.tensor(font.get_image().tolist(), dtype=torch.float32) / 255
            glyph = glyph[glyph.any(1)][:, glyph.any(0)]
            rows, columns = glyph.shape
            top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
            images[number, digit, top : top + rows, left : left + columns] = glyph
    return images


def glyphs(count: int, noise: float, seed: int) -> Labelled:
    """Digits in random fonts, turned by up to 30°, scaled, sheared and moved, with normal noise on all pixels.

    Arguments:
        count: of images, of 28 × 28 pixels.
        noise: standard deviation.
        seed: of everything.
    """
    generator = generator_for(seed, GLYPHS)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    fonts = torch.randint(len(FONTS), (count,), generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle, scale, shear = uniform(-math.pi / 6, math.pi / 6), uniform(0.8, 1.3), uniform(-0.3, 0.3)
    across, down = uniform(-0.2, 0.2), uniform(-0.2, 0.2)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    maps = torch.stack(
        [
            torch.stack([cosine, shear * cosine - sine, across], 1),
            torch.stack([sine, shear * sine + cosine, down], 1),
        ],
        1,
    )
    images = torch.empty(count, SIDE * SIDE)
    for places in torch.arange(count).split(4096):
        drawn = templates()[fonts[places], labels[places]].unsqueeze(1)
        grid = functional.affine_grid(maps[places], list(drawn.shape), align_corners=False)
        images[places] = functional.grid_sample(drawn, grid, align_corners=False).flatten(1)
    images += noise * torch.randn(images.shape, generator=generator)
    return Labelled(images, labels)
