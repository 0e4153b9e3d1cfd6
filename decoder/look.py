"""What the demo measures and draws of a trained pair, on test clips of its worlds. A composition root.

The skill, the health and the PSNR of `metrics.json`, and the films and stills of the report.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from data.dataset import list_videos
from data.module import make_dataset
from data.reader import open_video
from data.writer import write_video
from decoder.decoder import Decoder
from decoder.films import frame_by_frame, moments, png, side_by_side
from decoder.latents import LatentSource
from decoder.metrics import decode_metrics
from decoder.render import RenderConfig, draw_task, read_clip
from decoder.train import data_settings
from jepa import JEPA
from jepa.diagnostics import PredictionErrors, assess, observe
from jepa.files import write_text
from jepa.training import pick_device

FPS = 4  # of the films


@dataclass
class LookConfig:
    """What is measured and drawn of the trained pair, on test clips of `worlds`."""

    jepa: str
    decoder: str
    worlds: str
    clips: int
    samples: int
    steps: int
    method: str
    tasks: list[str]
    progress: bool

    def pair(self) -> tuple[LatentSource, Decoder, torch.device]:
        device = pick_device()
        source, decoder = LatentSource(JEPA.load(self.jepa)).to(device), Decoder.load(self.decoder).to(device)
        decoder.check_source(source)
        return source, decoder, device


@torch.no_grad()
def measure(look: LookConfig) -> dict[str, Any]:
    """`predictability` and, under "decode", `decode_metrics` of the first test clips, forward task."""
    source, decoder, device = look.pair()
    data = data_settings(look.jepa, {})
    dataset = make_dataset(data, list_videos(f"{look.worlds}/test.csv", data.labels, data.label_column))
    first = Subset(dataset, range(min(look.clips, len(dataset))))
    loader = DataLoader(first, data.batch_size, num_workers=data.workers)
    videos = [batch["video"].to(device) for batch in tqdm(loader, desc="reading", disable=not look.progress)]
    shown = tqdm(videos, desc="drawing", disable=not look.progress)
    decode = decode_metrics(
        decoder, source, shown, "forward", clips=look.clips, seeds=look.samples, steps=look.steps, method=look.method
    )
    return {**predictability(source.jepa, videos), "decode": decode}


def predictability(jepa: JEPA, videos: list[Tensor]) -> dict[str, Any]:
    """{"skill", "health"} of a JEPA on batches (B, C, T, H, W): the forward task, and the spread of target latents."""
    tokens, errors, clips = [], [], sum(map(len, videos))
    for video in videos:
        seen = observe(jepa, video)
        tokens.append(seen.tokens.cpu())
        errors.append({key: len(video) / clips * value.cpu() for key, value in vars(seen.errors).items()})
    error = {key: sum(part[key] for part in errors) for key in errors[0]}
    found = assess(torch.cat(tokens), PredictionErrors(**error))
    skill = {"vs_copy": found.skill_vs_copy, "vs_mean": found.skill_vs_mean, "task": "forward", "clips": clips}
    health = {"verdict": found.verdict, "sentence": found.sentence, "rank": found.rank, "std": found.std}
    return {"skill": skill | {"error": {key: float(value) for key, value in error.items()}}, "health": health}


def draw_pictures(look: LookConfig, index: Path) -> None:
    """Films of test clips, one of them frame by frame, and moments of training clips; `index` is written last."""
    source, decoder, device = look.pair()
    worlds, folder = Path(look.worlds), index.parent
    chosen = list(zip(look.tasks, one_of_each(worlds / "test.csv"), strict=False))
    strip_of = next((i for i, (_, row) in enumerate(chosen) if row["label"] != "still"), 0)
    films: list[dict[str, Any]] = []
    titles: list[list[str]] = []
    for number, (task, row) in enumerate(tqdm(chosen, desc="drawing", disable=not look.progress)):
        video = str(worlds / row["path"])
        clip = read_clip(RenderConfig(look.jepa, look.decoder, video, task), decoder)[0].to(device)
        seeds = range(look.samples)
        drawing = draw_task(source, decoder, clip, task, seeds=seeds, steps=look.steps, method=look.method)
        panels = drawing.panels()
        titles.append([panel.title for panel in panels])
        film = write_video(folder / f"{number}_{task}_{row['label']}.mp4", side_by_side(panels), FPS, crf=10)
        films.append({"task": task, "caption": row["caption"], "file": film.name, "frames": len(panels[0].frames)})
        if number == strip_of:
            (folder / "strip.png").write_bytes(png(frame_by_frame(panels)))
    samples = []
    for row in one_of_each(worlds / "train.csv"):
        scene = open_video(worlds / row["path"])
        name = f"sample_{row['label']}.png"
        (folder / name).write_bytes(png(moments(scene.frames(range(len(scene))))))
        samples.append({"caption": row["caption"], "file": name})
    # One heading for all films: a remark in which they differ (the task, under the context) is left to the captions.
    columns = [column[0] if len(set(column)) == 1 else column[0].split("\n")[0] for column in zip(*titles, strict=True)]
    found = {"columns": columns, "films": films, "strip_of": strip_of, "samples": samples}
    write_text(index, json.dumps(found, indent=2) + "\n")


def one_of_each(table: Path) -> list[dict[str, str]]:
    """The first row of every label of a table, in the order of the table."""
    seen: dict[str, dict[str, str]] = {}
    for row in read_rows(table):
        seen.setdefault(row["label"], row)
    return list(seen.values())


def read_rows(table: Path) -> list[dict[str, str]]:
    """The rows of a table with a header, under the names of their columns."""
    with table.open(newline="") as lines:
        return list(csv.DictReader(lines))
