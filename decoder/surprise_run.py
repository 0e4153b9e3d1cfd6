"""`jepa surprise`: pairs of possible and impossible videos in, how often a model is more surprised by the latter out.

    jepa surprise checkpoint=runs/pretrain/best.ckpt videos=runs/pairs/pairs.csv

Notable: every model is judged by its own predictions in its own space. Two baselines that know nothing of objects are
judged on the same windows: the last visible frame, and the change between the last two carried on. Where a row is not
above theirs, nothing was understood. A composition root.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.clips import clip_step
from data.config import DataConfig
from data.dataset import table_paths
from data.errors import DataError, printable
from data.reader import open_video
from data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipTransform, frame_size
from decoder.arms import Arm, CopyArm, ExtrapolateArm, load_arm
from decoder.train import data_settings
from jepa.config import ConfigError, choose
from jepa.files import write_text
from jepa.masks import Mask
from jepa.surprise import (
    SCORES,
    Accuracy,
    Scores,
    Surprised,
    accuracy_table,
    context_tubelets,
    outcome_table,
    surprise_curves,
    video_scores,
    window_frames,
)
from jepa.training import pick_device

Table = dict[str, dict[str, dict[str, Accuracy | None]]]


@dataclass
class SurpriseConfig:
    """Everything `jepa surprise` reads; what is left out of the clip is as the model was trained.

    videos      a table with columns path, pair, possible, concept, and perhaps condition, evidence (the first frame in
                which the two videos of a pair differ) and twin (a pair of the same scenes with exchanged roles), such
                as `jepa pairs` writes.
    root        folder that the paths of the table may not leave; empty: the table's own folder; "/": anywhere.
    out         where surprise.json and surprise.csv go; empty: surprise/ beside the checkpoint.
    jepa        the JEPA whose latents the checkpoint samples, where it is of that kind.
    context     tubelets of a window that the model sees; null: half.
    step        clip frames from one window to the next; null: one tubelet.
    samples     drawings, of which the nearest counts, where a model draws at random.
    steps       sampling steps of a drawing.
    score       which one is printed: mean, max or event; all three are written.
    baselines   judge copying and extrapolating pixels too.
    """

    checkpoint: str = "???"
    videos: str = "???"
    root: str = ""
    out: str = ""
    jepa: str = ""
    context: int | None = None
    step: int | None = None
    samples: int = 4
    steps: int = 8
    num_frames: int | None = None
    stride: int | None = None
    fps: float | None = None
    size: list[int] = field(default_factory=list)
    score: str = "mean"
    baselines: bool = True
    batch_size: int = 32
    device: str = "auto"
    progress: bool = True


class VideoRow(NamedTuple):
    """One line of the table of videos."""

    path: Path
    pair: str
    possible: bool
    concept: str
    condition: str
    evidence: int | None
    twin: str = ""


class PixelsOnly(Arm):
    """The tokens of a model and the scale of training pixels, for baselines that need no more of it."""

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def to_unit(self, video: Tensor) -> Tensor:
        mean, std = (video.new_tensor(values).view(-1, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return video * std + mean

    def from_unit(self, pixels: Tensor) -> Tensor:
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (pixels - mean) / std


def surprise(config: SurpriseConfig) -> dict[str, Table]:
    """results[model][score][concept][condition]; also printed and written to `out`. See `jepa.surprise` for scores.

    Raises ConfigError, DataError (a table or video that cannot be used) and CheckpointError.
    """
    choose("score", config.score, SCORES)
    for key in ("batch_size", "step", "samples", "steps"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise ConfigError(f"{key} is {getattr(config, key)}: give at least 1")
    pairs = read_pairs(config.videos, config.root)
    clip = _clip_settings(config)
    device = pick_device(config.device)
    arm = load_arm(config.checkpoint, jepa=config.jepa, steps=config.steps, device=device)
    arm.surprise_samples = config.samples
    models: list[Surprised] = [arm]
    if config.baselines:
        pixels = PixelsOnly("pixels", arm.tubelet_size, arm.patch_size)
        models += [CopyArm("copy", pixels), ExtrapolateArm("extrapolate", pixels)]
    scores = judge_pairs(models, pairs, clip, config, device)
    results = {name: accuracy_table(found) for name, found in outcome_tables(pairs, scores).items()}
    out = Path(config.out) if config.out else Path(config.checkpoint).parent / "surprise"
    _write(out, config, clip, pairs, scores, results)
    print(accuracy_lines(results, config.score))
    return results


def judge_pairs(
    models: Sequence[Surprised], pairs: Sequence[tuple[VideoRow, VideoRow]], clip: DataConfig, config: SurpriseConfig,
    device: torch.device,
) -> dict[str, list[tuple[Scores, Scores]]]:  # fmt: skip
    """{model: [(possible, impossible), ...]}, pair by pair, in windows as `clip`, context and step as `config` say."""
    transform = ClipTransform(list(frame_size(clip.size)))
    tubelet = models[0].tubelet_size
    context = context_tubelets(clip.num_frames, tubelet, config.context)
    found: dict[str, list[Scores]] = {model.name: [] for model in models}
    rows = [row for pair in pairs for row in pair]
    together: list[tuple[VideoRow, Tensor, np.ndarray]] = []  # videos that fill a batch: windows of one may be few
    for row in tqdm(rows, desc="surprise", unit="video", disable=not config.progress):
        together.append((row, *_read(row, transform, clip, config.step or tubelet, device)))
        if row is not rows[-1] and sum(len(windows) for _, _, windows in together) < config.batch_size:
            continue
        _, videos, windows = zip(*together, strict=True)
        for model in models:
            curves = surprise_curves(model, videos, windows, context, config.batch_size)
            found[model.name] += [video_scores(curve, places, context * tubelet, judged.evidence)
                                  for curve, (judged, _, places) in zip(curves, together, strict=True)]  # fmt: skip
        together = []
    return {name: list(zip(scores[::2], scores[1::2], strict=True)) for name, scores in found.items()}


def _read(
    row: VideoRow, transform: ClipTransform, clip: DataConfig, step: int, device: torch.device
) -> tuple[Tensor, np.ndarray]:
    """A video (C, T, H, W), and its windows (windows, num_frames), `step` clip frames apart."""
    source = open_video(row.path)
    stride = clip_step(None if clip.fps else clip.stride, clip.fps, source.fps)
    windows = window_frames(len(source), clip.num_frames, stride, max(1, round(step * stride)))
    return transform(source.frames(range(len(source)))).to(device), windows


def outcome_tables(
    pairs: Sequence[tuple[VideoRow, VideoRow]], scores: Mapping[str, Sequence[tuple[Scores, Scores]]]
) -> dict[str, dict[str, dict[str, dict[str, np.ndarray]]]]:
    """outcomes[model][score][concept][condition], pair by pair; the pairs are the same for every model."""
    groups, twins = [(possible.concept, possible.condition) for possible, _ in pairs], twin_places(pairs)
    return {
        name: outcome_table(groups, [possible for possible, _ in both], [impossible for _, impossible in both], twins)
        for name, both in scores.items()
    }


def read_pairs(table: str | Path, root: str = "") -> list[tuple[VideoRow, VideoRow]]:
    """(possible, impossible) of every pair of a table, in its order. DataError, naming the row, where it cannot be.

    `root`: see `data.dataset.table_paths`.
    """
    table = Path(table)
    if not table.is_file():
        raise DataError(f"{table} does not exist: give the table of pairs, such as `jepa pairs` writes")
    try:
        lines = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    except UnicodeDecodeError:
        raise DataError(f"{table} is not a text table: give the table of pairs, not a video") from None
    except csv.Error as error:
        raise DataError(f"{table} is not a readable CSV table: {error}") from None
    needed = ("path", "pair", "possible", "concept")
    missing = [key for key in needed if not lines or key not in lines[0]]
    if missing:
        raise DataError(
            f"{table} has no column {', '.join(missing)}; a table of pairs has path, pair, possible, concept"
        )
    found: dict[str, dict[bool, VideoRow]] = {}
    paths = table_paths(table, [line["path"] or "" for line in lines], root)
    for number, (line, path) in enumerate(zip(lines, paths, strict=True), 2):
        row = _row(table, number, line, Path(path))
        if row.possible in found.setdefault(row.pair, {}):
            word = "possible" if row.possible else "impossible"
            raise DataError(f"{table}, line {number}: pair {row.pair!r} has two {word} videos; name every pair apart")
        found[row.pair][row.possible] = row
    for name, pair in found.items():
        if len(pair) < 2:
            word = "impossible" if True in pair else "possible"
            raise DataError(f"{table}: pair {name!r} has no {word} video; every pair needs one of either")
    return [(pair[True], pair[False]) for pair in found.values()]


def _row(table: Path, number: int, line: dict[str, str], path: Path) -> VideoRow:
    if any(value is None for value in line.values()):
        raise DataError(f"{table}, line {number}: it has fewer fields than the header")
    words = {"true": True, "1": True, "false": False, "0": False}
    possible = words.get(line["possible"].strip().lower())
    if possible is None:
        raise DataError(f"{table}, line {number}: possible is {line['possible']!r}; write True or False")
    evidence = line.get("evidence", "").strip()
    if evidence and not (evidence.isdecimal() and len(evidence) < 10):
        raise DataError(f"{table}, line {number}: evidence is {evidence!r}; write the number of a frame, or nothing")
    if not path.is_file():
        raise DataError(f"{table}, line {number}: {path} does not exist")
    moment = int(evidence) if evidence else None
    condition, twin = line.get("condition") or "any", line.get("twin") or ""
    return VideoRow(path, line["pair"], possible, line["concept"], condition, moment, twin)


def twin_places(pairs: Sequence[tuple[VideoRow, VideoRow]]) -> list[tuple[int, int]]:
    """Places (earlier, later) of pairs that name each other as twins, for `outcome_table`."""
    place = {possible.pair: i for i, (possible, _) in enumerate(pairs)}
    found = [(i, place.get(possible.twin, -1)) for i, (possible, _) in enumerate(pairs)]
    return [(i, j) for i, j in found if i < j and found[j] == (j, i)]


def _clip_settings(config: SurpriseConfig) -> DataConfig:
    """The clips that the model was trained on, but for what the command says."""
    chosen = {key: getattr(config, key) for key in ("num_frames", "stride", "fps", "size") if getattr(config, key)}
    if "stride" in chosen and "fps" not in chosen:
        chosen["fps"] = None
    folders = (Path(config.checkpoint), Path(config.checkpoint).parent)
    timed = "stride" in chosen or "fps" in chosen
    if not any((folder / "config.yaml").is_file() for folder in folders) and not (len(chosen) >= 3 and timed):
        raise ConfigError(
            f"{config.checkpoint} has no config.yaml beside it that says what clips it was trained on: "
            "give num_frames, size and stride (or fps)"
        )
    return data_settings(config.checkpoint, chosen)


def accuracy_lines(results: dict[str, Table], score: str = "mean") -> str:
    """A table of text: concepts by condition down, models across, and the totals by every score."""
    names = list(results)

    def line(left: str, found: list[Accuracy | None]) -> str:
        cells = [f"{a.accuracy:.3f} [{a.ci95[0]:.3f}, {a.ci95[1]:.3f}]" if a else "-" for a in found]
        count = next((a.pairs for a in found if a), 0)
        return f"{left:<40} {count:>5}  " + "  ".join(f"{cell:^20}" for cell in cells)

    lines = [f"{f'relative accuracy ({score})':<40} pairs  " + "  ".join(f"{name:^20}" for name in names)]
    for concept, by_condition in results[names[0]][score].items():
        for condition in by_condition:
            if "all" not in (concept, condition) or (concept == "all" != condition):
                found = [results[name][score][concept][condition] for name in names]
                lines.append(line(printable(f"{concept[:32]:<32} {condition}"), found))
    for each in SCORES:
        lines.append(line(f"{'all':<32} {each}", [results[name][each]["all"]["all"] for name in names]))
    return "\n".join(lines)


def _write(
    out: Path, config: SurpriseConfig, clip: DataConfig, pairs: list[tuple[VideoRow, VideoRow]],
    scores: dict[str, list[tuple[Scores, Scores]]], results: dict[str, Table],
) -> None:  # fmt: skip
    keys = ("num_frames", "stride", "fps", "size")
    settings = {**asdict(config), **{key: getattr(clip, key) for key in keys}}
    everything = {"settings": settings, "relative_accuracy": results}
    write_text(out / "surprise.json", json.dumps(everything, indent=2, default=asdict) + "\n")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["model", "path", "pair", "possible", "concept", "condition", "evidence", *SCORES])
    for name, found in scores.items():
        for pair, both in zip(pairs, found, strict=True):
            for row, values in zip(pair, both, strict=True):
                moment = "" if row.evidence is None else row.evidence
                left = [name, row.path.name, row.pair, row.possible, row.concept, row.condition, moment]
                table.writerow([*left, *(f"{value:.8g}" for value in values)])
    write_text(out / "surprise.csv", text.getvalue())
