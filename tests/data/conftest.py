"""A folder of small videos for the tests of this package."""

from pathlib import Path

import pytest
from discs import moving_disc

from data.writer import write_video


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 videos of 16 to 27 frames, 64x64, 8 fps, in folders `left/` and `right/`, and videos.csv."""
    root = tmp_path_factory.mktemp("videos")
    rows = ["path,label,shape"]
    for i in range(12):
        name = f"{('left', 'right')[i % 2]}/{i:02d}.mp4"
        write_video(root / name, moving_disc(i, 16 + i), fps=8)
        rows.append(f"{name},{('left', 'right')[i % 2]},{('round', 'square', 'flat')[i % 3]}")
    (root / "videos.csv").write_text("\n".join(rows) + "\n")
    return root
