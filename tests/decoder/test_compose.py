"""Claims:

1. Panels come out aligned: even size, one row or several, every panel's pixels where the layout says, enlarged by whole
pixels. 2. Borders mark what was predicted; titles and counters are drawn and fit.
3. `composite` keeps visible pixels exactly and takes the drawing where hidden; the context view shows no hidden pixel.
4. Panels of different shapes are refused.
"""

import numpy as np
import pytest
import torch

from decoder.compose import (
    BORDER,
    DRAWN,
    GAP,
    LINE,
    REFERENCE,
    VISIBLE,
    Panel,
    compose_panels,
    composite,
    context_only,
    hidden_pixels,
    to_frames,
)
from jepa import Grid, task_mask


def panels(count: int, length: int = 4, height: int = 24, width: int = 32) -> list[Panel]:
    frames = np.random.default_rng(0).integers(0, 256, (count, length, height, width, 3), dtype=np.uint8)
    return [Panel(f"panel {i}", frames[i], np.arange(length) >= 2 if i == 0 else None) for i in range(count)]


@pytest.mark.parametrize(("columns", "rows"), [(None, 1), (2, 2), (3, 1), (1, 3)])
def test_layout(columns: int | None, rows: int) -> None:
    given = panels(3)
    picture = compose_panels(given, columns=columns, scale=3)
    per_row = columns or 3
    cell_height, cell_width = LINE + 2 + 24 * 3 + 2 * BORDER + LINE, 32 * 3 + 2 * BORDER
    assert picture.dtype == np.uint8 and picture.shape[0] == 4 and picture.shape[3] == 3
    assert picture.shape[1] in (n := rows * (cell_height + GAP) + GAP, n + 1) and picture.shape[1] % 2 == 0
    assert picture.shape[2] in (n := per_row * (cell_width + GAP) + GAP, n + 1) and picture.shape[2] % 2 == 0
    for i, panel in enumerate(given):
        top = GAP + i // per_row * (cell_height + GAP) + LINE + 2 + BORDER
        left = GAP + i % per_row * (cell_width + GAP) + BORDER
        inside = picture[:, top : top + 24 * 3, left : left + 32 * 3]
        np.testing.assert_array_equal(inside[:, 1::3, 1::3], panel.frames)


def test_borders_and_labels() -> None:
    first, second = panels(2)
    picture = compose_panels([first, second], scale=2)
    top, left = GAP + LINE + 2, GAP
    assert [tuple(picture[t, top, left + 20]) for t in range(4)] == [VISIBLE, VISIBLE, DRAWN, DRAWN]
    assert tuple(picture[0, top, left + 64 + 2 * BORDER + 8 + GAP + 20]) == REFERENCE
    title = picture[0, GAP : GAP + LINE, left : left + 70]
    assert len(np.unique(title.reshape(-1, 3), axis=0)) > 2
    assert not np.array_equal(title, picture[0, GAP : GAP + LINE, -left - 70 : -left])
    foot = top + 24 * 2 + 2 * BORDER
    assert not np.array_equal(picture[0, foot : foot + LINE], picture[1, foot : foot + LINE])


def test_the_default_scale_gives_about_128_pixels() -> None:
    for side, scale in ((32, 4), (64, 2), (160, 1)):
        picture = compose_panels(panels(1, height=side, width=side), counter=False)
        assert picture.shape[2] - side * scale in (2 * BORDER + 2 * GAP, 2 * BORDER + 2 * GAP + 1)


def test_composite_and_context() -> None:
    truth, drawing = torch.rand(1, 3, 8, 32, 32), torch.rand(1, 3, 8, 32, 32)
    hidden = hidden_pixels(task_mask("infill", Grid(4, 4, 4), 1), Grid(4, 4, 4), 2, 8)
    mixed = composite(truth, drawing, hidden)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:24, 8:24] = True
    assert torch.equal(hidden[0, 0, 3], inside)
    assert torch.equal(mixed[..., inside], drawing[..., inside]) and torch.equal(
        mixed[..., ~inside], truth[..., ~inside]
    )
    seen = context_only(truth, hidden)
    assert torch.equal(seen[..., ~inside], truth[..., ~inside])
    assert torch.equal(seen, context_only(composite(truth, drawing, hidden), hidden))


def test_frames_are_rounded_and_clamped() -> None:
    frames = to_frames(torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1, 1).expand(3, 2, 4, 5))
    assert frames.shape == (2, 4, 5, 3) and frames[0, 0, 0].tolist() == [0, 128, 255]


def test_mismatched_panels_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        compose_panels([*panels(1), *panels(1, length=5)])
    with pytest.raises(ValueError, match="at least one"):
        compose_panels([])
