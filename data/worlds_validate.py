"""Is the detector right? It is run on true pictures of the procedural worlds, where everything is known.

    print(validate("runs/worlds", clips=200, size=32, stride=2))       # the mp4 files, as models see them
    print(validate(WorldConfig(), clips=200, size=32, stride=2))       # without the losses of H.264

Notable: pictures take the way that clips take into a model (`resize_and_crop`), so what is measured is what scores of
generated clips can be trusted to.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .reader import open_video
from .transforms import resize_and_crop
from .worlds import load_truth, render, simulate
from .worlds_claims import SIGHT
from .worlds_detect import detect
from .worlds_scene import EXTENT, REFERENCE, WorldConfig
from .worlds_tracks import Scene, Tracks, at_frames, follow, stack_truth

WHOLE = 0.95  # share of a sprite that shows, from which it counts as visible
ALONE = 1.5  # px between outlines, from which sprites of one colour count as apart


@dataclass(frozen=True)
class Accuracy:
    """How well sprites of one kind are found. Errors in px of the picture, over those that are found."""

    sprites: int  # how many there were, in all frames
    found: float  # share of them
    mean: float  # position error
    p95: float  # 95th percentile of it
    colour: float  # share found and of the right colour
    shape: float  # share found and of the right shape; NaN for distractors, whose shape is not told


@dataclass(frozen=True)
class Validation:
    """Accuracy on true pictures, of sprites that touch none of their own colour."""

    main: Accuracy  # main sprites, nothing of which is hidden
    partial: Accuracy  # main sprites of which between half and WHOLE shows
    distractors: Accuracy  # nothing of which is hidden
    extra: float  # sprites found that do not exist, per frame


def validate(source: WorldConfig | str | Path, clips: int, size: int, stride: int = 1) -> Validation:
    """Accuracy of `detect` on true clips, simulated or from the videos in a folder, at pictures of side `size`."""
    truth, videos, side = _simulated(source, clips) if isinstance(source, WorldConfig) else _read(Path(source), clips)
    frames = np.arange(0, truth["positions"].shape[1], stride)
    scene = at_frames(truth, frames, size, np.arange(len(videos)), from_size=side)
    found = detect(np.concatenate([shrink(video[frames], size) for video in videos]))
    return accuracy(follow(found, scene), scene)


def shrink(frames: np.ndarray, size: int) -> np.ndarray:
    """Pictures (T, H, W, 3) uint8 at the size (T, size, size, 3) that a model sees."""
    return resize_and_crop(torch.from_numpy(frames).movedim(-1, 1), (size, size)).movedim(1, -1).numpy()


def accuracy(tracks: Tracks, scene: Scene) -> Validation:
    """Accuracy of what was found in true pictures."""
    apart = ~_touching(scene)
    whole, half = apart & (scene.visible > WHOLE), apart & (scene.visible >= SIGHT) & (scene.visible <= WHOLE)
    main = np.broadcast_to(np.arange(scene.visible.shape[2]) == 0, whole.shape)
    return Validation(
        _accuracy(tracks, scene, whole & main),
        _accuracy(tracks, scene, half & main),
        replace(_accuracy(tracks, scene, whole & ~main), shape=float("nan")),
        float(tracks.extra.mean()),
    )


def _accuracy(tracks: Tracks, scene: Scene, which: np.ndarray) -> Accuracy:
    error = np.linalg.norm(tracks.positions - scene.positions, axis=-1)[which]
    found = ~np.isnan(error)
    if not found.any():
        return Accuracy(len(error), 0.0, float("nan"), float("nan"), 0.0, 0.0)
    right = [
        (a == b[:, None])[which].mean() for a, b in ((tracks.colours, scene.colours), (tracks.shapes, scene.shapes))
    ]
    return Accuracy(len(error), float(found.mean()), float(error[found].mean()),
                    float(np.percentile(error[found], 95)), float(right[0]), float(right[1]))  # fmt: skip


def _touching(scene: Scene) -> np.ndarray:
    """Objects (N, T, K) that reach another of their own colour."""
    reach = (scene.radii * np.take(EXTENT, scene.shapes))[:, None]  # (N, 1, K)
    gap = np.linalg.norm(scene.positions[:, :, :, None] - scene.positions[:, :, None], axis=-1)
    gap -= reach[..., :, None] + reach[..., None, :]
    same = scene.colours[:, :, None] == scene.colours[:, None]
    same &= ~np.eye(same.shape[-1], dtype=bool)
    return ((gap < ALONE) & same[:, None]).any(-1)


def _simulated(config: WorldConfig, clips: int) -> tuple[dict[str, np.ndarray], list[np.ndarray], int]:
    episodes = [simulate(config, index) for index in range(clips)]
    return stack_truth(episodes), [render(e) for e in episodes], config.size


def _read(folder: Path, clips: int) -> tuple[dict[str, np.ndarray], list[np.ndarray], int]:
    truth = load_truth(folder)
    clips, length = min(clips, len(truth["shapes"])), truth["positions"].shape[1]
    files = [folder / "videos" / f"{index:06d}.mp4" for index in range(clips)]
    videos = [open_video(file).frames(np.arange(length)) for file in files]
    return truth, videos, videos[0].shape[1] if videos else REFERENCE
