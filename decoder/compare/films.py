"""The wall of films: what every arm draws of the same clips, chosen by rule and not by hand. A composition root.

Notable: the first clips of the test set as they come; then, by how much closer A's drawing is to the truth than B's,
the clip where A wins most, the median and the one where B wins most. The first clips are also one GIF, `wall.gif`, for
places that cannot play films in step.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data.writer import write_gif, write_video
from decoder.compare.labels import ARMS
from decoder.compose import Panel, compose_panels, composite, context_only, to_frames
from decoder.evaluate import clip_seeds, measured
from decoder.films import side_by_side

if TYPE_CHECKING:
    from decoder.compare.bench import Bench

SHOWN = ("jepa", "pixels", "pixels_plus", "futures", "copy", "mean", "target")
FPS = 4


def films(bench: "Bench") -> dict[str, Any]:
    """Writes mp4 files below `measured/films` and says what each shows."""
    config, folder = bench.config, bench.trained.folder / "measured" / "films"
    folder.mkdir(parents=True, exist_ok=True)
    videos = bench.clips(config.clips)
    errors = {n: measured(bench.drawing[n], videos)[0].squared_error.mean(1)
              for n in ("jepa", "pixels")}  # fmt: skip
    ahead = 10 * np.log10(np.maximum(errors["pixels"], 1e-10) / np.maximum(errors["jepa"], 1e-10))  # dB, A over B
    order = np.argsort(ahead)
    chosen = [(f"clip {i + 1} of the test set", i) for i in range(min(config.films, len(ahead)))]
    chosen += [("A furthest ahead of B", int(order[-1])), ("median", int(order[len(order) // 2])),
               ("B furthest ahead of A", int(order[0]))]  # fmt: skip
    with (Path(config.out) / "worlds" / "test.csv").open(newline="") as lines:
        captions = [row["caption"] for row in csv.DictReader(lines)]
    whole = torch.cat(videos)
    shown, wall = [], []
    for number, (rule, place) in enumerate(chosen):
        panels = clip_panels(bench, whole[place : place + 1], place)
        wall += [replace(panel, title=_title(panel.title)) for panel in panels] if number < config.films else []
        film = write_video(folder / f"{number}.mp4", side_by_side(panels, 96), FPS, crf=12)
        shown.append({"file": f"films/{film.name}", "rule": rule, "clip": place, "caption": captions[place],
                      "ahead_db": float(ahead[place]), "frames": len(panels[0].frames)})  # fmt: skip
    if wall:
        write_gif(folder / "wall.gif", compose_panels(wall, len(panels), counter=False, scale=2), FPS)
    return {"columns": [panel.title for panel in panels], "fps": FPS, "task": "forward", "films": shown}


def _title(arm: str) -> str:
    label = ARMS.get(arm)
    if label is None:
        return arm
    return label.name if label.control else f"{label.letter}\n{label.name}".replace(", ", ",\n")


def clip_panels(bench: "Bench", video: Tensor, place: int) -> list[Panel]:
    """Truth, what was shown, and one drawing of every arm, of a clip (1, C, T, H, W)."""
    first = bench.drawing["jepa"]
    mask = first.task_mask("forward", video)
    hidden = first.hidden(video, mask)[0].cpu()
    truth = first.to_unit(video).clamp(0, 1)[0].cpu()
    drawn = hidden.flatten(2).any(2)[0].numpy()
    panels = [Panel("truth", to_frames(truth)), Panel("shown", to_frames(context_only(truth, hidden)), drawn)]
    for name in SHOWN:
        if name in bench.drawing:
            picture = bench.drawing[name].draw(video, mask, clip_seeds(place, 1))[0].cpu()
            panels.append(Panel(name, to_frames(composite(truth, picture, hidden)), drawn))
    return panels
