"""Pictures side by side: labelled panels that play in step, with every drawn frame marked as such.

Notable:
- A border tells what is real: grey frames were visible to the model, orange ones were drawn by it, plain ones are
  references.
- `composite` keeps visible pixels as they are and takes the drawing only where the mask hid them.
- Pillow alone; frames in and out are (T, H, W, 3) uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jepa.grid import Grid, unpatchify
from jepa.masks import Mask

VISIBLE, DRAWN, REFERENCE = (120, 132, 148), (240, 140, 30), (58, 62, 70)
PAPER, INK = (24, 26, 30), (232, 234, 238)
BORDER, GAP, LINE = 3, 6, 16  # pixels


@dataclass(frozen=True)
class Panel:
    """One picture that plays: a title (line breaks allowed), frames (T, H, W, 3) uint8, and what each frame is.

    `drawn` (T,) says which frames hold predicted pixels; None marks a reference, which is neither seen nor predicted.
    """

    title: str
    frames: np.ndarray
    drawn: np.ndarray | None = None


def to_frames(video: Tensor) -> np.ndarray:
    """(C, T, H, W) in [0, 1] -> (T, H, W, C) uint8."""
    return video.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 3, 0).cpu().numpy()


def hidden_pixels(mask: Mask, grid: Grid, tubelet_size: int, patch_size: int) -> Tensor:
    """(B, 1, T, H, W) bool: the pixels under the mask's targets."""
    tokens = torch.zeros(len(mask.target_ids), grid[0] * grid[1] * grid[2], device=mask.target_ids.device)
    tokens = tokens.scatter(1, mask.target_ids, 1.0)[..., None].expand(-1, -1, tubelet_size * patch_size**2)
    return unpatchify(tokens, grid, tubelet_size, patch_size) > 0.5


def composite(truth: Tensor, drawing: Tensor, hidden: Tensor) -> Tensor:
    """Truth where it was visible, the drawing where it was hidden; all (..., T, H, W)."""
    return torch.where(hidden, drawing, truth)


def context_only(truth: Tensor, hidden: Tensor) -> Tensor:
    """What the model saw: hidden pixels become dark diagonal stripes, which no scene is mistaken for."""
    rows, columns = (torch.arange(n, device=truth.device) for n in truth.shape[-2:])
    stripes = ((rows[:, None] + columns[None, :]) // 3 % 2) * 0.08 + 0.10  # (H, W)
    return torch.where(hidden, stripes.to(truth.dtype), truth)


def compose_panels(
    panels: Sequence[Panel], columns: int | None = None, scale: int | None = None, counter: bool = True
) -> np.ndarray:
    """Panels of equal length and size -> one video (T, H', W', 3) uint8 with even H' and W'.

    `columns` panels to a row (default: all in one). `scale` enlarges by whole pixels, so that nothing is invented
    (default: to about 128 pixels). `counter` writes the frame number, and whether it is visible or predicted, under
    each panel.
    """
    if not panels:
        raise ValueError("nothing to compose: give at least one panel")
    shapes = {panel.frames.shape for panel in panels}
    if len(shapes) > 1:
        raise ValueError(f"panels must have one shape (T, H, W, 3), not {sorted(shapes)}")
    length, height, width, _ = panels[0].frames.shape
    scale = scale or max(1, 128 // max(height, width))
    columns = min(columns or len(panels), len(panels))
    rows = -(-len(panels) // columns)

    lines = max(panel.title.count("\n") + 1 for panel in panels)
    head, foot = lines * LINE + 2, LINE if counter else 0
    cell_height, cell_width = head + height * scale + 2 * BORDER + foot, max(width * scale + 2 * BORDER, 72)
    canvas_height, canvas_width = rows * (cell_height + GAP) + GAP, columns * (cell_width + GAP) + GAP
    canvas = np.empty((length, canvas_height + canvas_height % 2, canvas_width + canvas_width % 2, 3), np.uint8)
    canvas[:] = PAPER
    for index, panel in enumerate(panels):
        top, left = GAP + index // columns * (cell_height + GAP), GAP + index % columns * (cell_width + GAP)
        place = canvas[:, top : top + cell_height, left : left + cell_width]
        place[:, :head] = _text(panel.title, cell_width, head)
        _draw_cell(place[:, head:], panel, scale, counter)
    return canvas


def _draw_cell(place: np.ndarray, panel: Panel, scale: int, counter: bool) -> None:
    """Bordered picture and counter of one panel, written into `place` (T, height, width, 3)."""
    length, height, width, _ = panel.frames.shape
    picture = panel.frames.repeat(scale, 1).repeat(scale, 2)
    left = (place.shape[2] - width * scale - 2 * BORDER) // 2
    bottom, right = height * scale + 2 * BORDER, left + width * scale + 2 * BORDER
    for i in range(length):
        kind, colour = "", REFERENCE
        if panel.drawn is not None:
            kind, colour = ("predicted", DRAWN) if panel.drawn[i] else ("visible", VISIBLE)
        place[i, :bottom, left:right] = colour
        place[i, BORDER : bottom - BORDER, left + BORDER : right - BORDER] = picture[i]
        if counter:
            number = f"{i + 1}/{length}"
            place[i, bottom:] = _text(f"{number} {kind}".strip(), place.shape[2], LINE, colour if kind else INK)


@lru_cache(maxsize=512)
def _text(text: str, width: int, height: int, colour: tuple[int, int, int] = INK) -> np.ndarray:
    """(height, width, 3) strip with centred lines, in the largest size from 12 to 7 points that fits the width."""
    strip = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(strip)
    for size in range(12, 6, -1):
        font = ImageFont.load_default(size)
        if max(draw.textlength(line, font=font) for line in text.split("\n")) <= width:
            break
    draw.multiline_text((width / 2, height / 2), text, fill=colour, font=font, anchor="mm", align="center", spacing=2)
    return np.asarray(strip)
