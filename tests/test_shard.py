"""The `jepa shard` command and training on what it makes. Claims:

- it packs a folder, says what it wrote and what it left out, and names a folder that is already packed.
- a training on the shards, held-out videos and all, ends with the very weights of the training on the folder.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.writer import write_video
from jepa import cli

TINY = [
    "data={num_frames: 4, size: [16, 16], batch_size: 2, workers: 0, val_fraction: 0.34, labels: folder}",
    "model.encoder={embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}",
    "model.predictor={embed_dim: 12, depth: 1, num_heads: 2}",
    "masks=[{kind: tube, ratio: 0.5}]",
    "trainer={max_steps: 2, val_every: 2, accelerator: cpu, precision: 32-true, progress: false}",
]


def pretrain(source: Path, out: Path, *more: str) -> dict[str, torch.Tensor]:
    cli.run(["pretrain", *TINY, f"data.train={source}", f"out={out}", *more])
    return dict(torch.load(out / "last.ckpt", weights_only=True)["state_dict"])


def test_shards_train_as_the_folder_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, shards = tmp_path / "videos", tmp_path / "shards"
    rng = np.random.default_rng(0)
    for i in range(9):
        write_video(folder / "ab"[i % 2] / f"{i}.mp4", rng.integers(0, 255, (8, 24, 24, 3), dtype=np.uint8), fps=8)
    (folder / "a" / "broken.mp4").write_text("no video")
    cli.run(["shard", str(folder), f"out={shards}", "shard_mb=0.03", "progress=false"])
    said = capsys.readouterr().out
    assert f"wrote {shards}: 9 videos" in said and "left out 1 of 10" in said and "broken.mp4" in said
    assert len(list(shards.glob("*.tar"))) > 2
    with pytest.raises(ValueError, match=f"{shards} already holds shards"):
        cli.run(["shard", str(folder), f"out={shards}"])
    (folder / "a" / "broken.mp4").unlink()

    weights = pretrain(folder, tmp_path / "loose")
    packed = pretrain(shards, tmp_path / "packed", "data.workers=1")
    assert weights.keys() == packed.keys() and all(torch.equal(weights[key], packed[key]) for key in weights)
    other = pretrain(shards, tmp_path / "other", "data.seed=1")
    assert not all(torch.equal(weights[key], other[key]) for key in weights)  # two steps show a difference
