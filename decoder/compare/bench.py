"""The trained arms of one seed of a comparison, and the clips they are measured on. A composition root.

Test clips meet nothing that learns or chooses. All arms meet the same clips, masks and seeds. Encoders are read as they
are at their last step, A's as C's: the checkpoint that was best by an online probe is a choice, noisy early on.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from data.clips import clip_indices
from data.dataset import list_videos
from data.module import build_cache, make_dataset
from data.reader import open_video
from data.transforms import ClipTransform, frame_size
from data.worlds import clean_clips, load_truth, load_world
from decoder.arms import Arm, CopyArm, ExtrapolateArm, LatentArm, MeanArm, PixelArm, TargetArm
from decoder.compare.plan import CompareConfig, Trained
from decoder.decoder import Decoder
from decoder.evaluate import clip_seeds, rollout
from decoder.futures import Futures
from decoder.latents import LatentSource
from decoder.metric_weights import missing_weights
from decoder.perceptual import load_lpips
from decoder.pixels import PixelModel
from jepa import JEPA
from jepa.training import pick_device

BATCH = 64


class Bench:
    """The trained arms of one seed, and the clips they are measured on; everything is loaded when first used."""

    def __init__(self, config: CompareConfig, trained: Trained) -> None:
        self.config, self.trained, self.data = config, trained, trained.jepa.data
        self.out, self.size = Path(config.out), frame_size(trained.jepa.data.size)
        self._rolled: dict[str, Tensor] = {}

    @cached_property
    def device(self) -> torch.device:
        return pick_device()

    @property
    def steps(self) -> int:
        """Sampling steps of every arm: the decoder's own."""
        return self.trained.decoder.sampling.steps

    @cached_property
    def source(self) -> LatentSource:
        return LatentSource(JEPA.load(self.trained.folder / "jepa" / "last.ckpt")).to(self.device)

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder.load(self.trained.folder / "decoder" / "decoder").to(self.device)

    @cached_property
    def drawing(self) -> dict[str, Arm]:
        """Every arm and control that draws, by name: A jepa, D futures, B pixels, B+ pixels_plus, and the controls."""
        steps = self.steps
        futures = Futures.load(self.trained.folder / "futures" / "futures").to(self.device)
        arms: list[Arm] = [
            LatentArm("jepa", self.source, self.decoder, steps=steps),
            LatentArm("futures", self.source, self.decoder, futures, steps),
        ]
        for name in ("pixels", "pixels_plus") if self.config.plus else ("pixels",):
            model = PixelModel.load(self.trained.folder / name / "pixels").to(self.device)
            arms.append(PixelArm(name, model, steps))
        arms += [CopyArm("copy", arms[0]), ExtrapolateArm("extrapolate", arms[0])]
        arms += [
            MeanArm("mean", self.source, self.decoder, steps=steps),
            TargetArm("target", self.source, self.decoder, steps=steps),
        ]
        return {arm.name: arm for arm in arms}

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms that predict, without bounds."""
        return [arm for name, arm in self.drawing.items() if name not in ("mean", "target")]

    @cached_property
    def lpips(self) -> nn.Module | None:
        """LPIPS, where its weights are installed."""
        return None if missing_weights() else load_lpips(self.device)

    @cached_property
    def long(self) -> Tensor:
        """(B, C, T, H, W): the long clips, of `rollout_lengths` clip lengths each."""
        rows = list_videos(str(self.out / "long" / "train.csv"), "none").paths[: self.config.rollout_clips]
        frames, transform = self.frames(0, self.config.rollout_lengths), ClipTransform(list(self.size))
        return torch.stack([transform(open_video(path).frames(frames)) for path in rows]).to(self.device)

    def rolled(self, arm: Arm, sample: int = 0) -> Tensor:
        """(B, C, T, H, W) in [0, 1], not on the GPU: what an arm makes of the long clips, predictions fed back. Of the
        first sample several stages want to know; it is drawn once."""
        if sample == 0 and arm.name in self._rolled:
            return self._rolled[arm.name]
        length, lengths = self.data.num_frames, self.config.rollout_lengths
        parts = [rollout(arm, part[:, :, :length], lengths, clip_seeds(i * BATCH, len(part), sample)).cpu()
                 for i, part in enumerate(self.long.split(BATCH))]  # fmt: skip
        video = torch.cat(parts)
        if sample == 0:
            self._rolled[arm.name] = video
        return video

    def forget_long(self) -> None:
        """Free the long clips and what was made of them, half a gigabyte an arm in a larger setting."""
        self._rolled.clear()
        self.__dict__.pop("long", None)

    def clips(self, count: int, rows: np.ndarray | None = None, world: str = "worlds") -> list[Tensor]:
        """Batches (B, C, T, H, W) of the clips of a world: the first `count`, or those of `rows`.

        Of `worlds`, which arms train on, those are the test clips; a world made to be measured on is one whole split.
        """
        data, main = self.data, world == "worlds"
        table = self.out / world / f"{'test' if main else 'train'}.csv"
        videos = list_videos(str(table), data.labels, data.label_column)
        cache = build_cache(data, videos, self.config.progress) if main else None
        dataset = make_dataset(data, videos, cache=cache)
        chosen = Subset(dataset, list(range(min(count, len(dataset)))) if rows is None else rows.tolist())
        return [batch["video"].to(self.device) for batch in DataLoader(chosen, BATCH)]

    @cached_property
    def detail(self) -> float:
        """The worlds' setting of unpredictable detail."""
        return load_world(self.out / "worlds").detail

    def clean(self, count: int) -> list[Tensor]:
        """Batches (B, C, T, H, W) in [0, 1] of the first `count` test clips, without their unpredictable detail."""
        truth = load_truth(self.out / "worlds")
        rows = np.flatnonzero(truth["splits"] == 2)[:count]
        frames = self.frames(truth["positions"].shape[1])
        transform = ClipTransform(list(self.size), shorter_side=self.data.shorter_side)
        drawn = [transform(video[frames]) for video in clean_clips(self.out / "worlds", rows)]
        return [self.decoder.to_unit(part).clamp(0, 1) for part in torch.stack(drawn).to(self.device).split(BATCH)]

    def truth(self, world: str = "worlds") -> dict[str, np.ndarray]:
        """Ground truth of the clips that `clips` gives, in their order."""
        everything = load_truth(self.out / world)
        rows = np.flatnonzero(everything["splits"] == (2 if world == "worlds" else 0))
        place = np.full(len(everything["splits"]), -1)
        place[rows] = np.arange(len(rows))
        kept = {k: v[rows] for k, v in everything.items() if k != "collisions"}
        found = everything["collisions"][place[everything["collisions"][:, 0]] >= 0].copy()
        found[:, 0] = place[found[:, 0]]
        return kept | {"collisions": found}

    def frames(self, length: int, count: int | None = None) -> np.ndarray:
        """(T,) frames of a world video of `length` frames that a clip holds, or that `count` clips in a row would."""
        data = self.data
        if count is not None:
            return np.arange(count * data.num_frames) * (data.stride or 1)
        return clip_indices(length, data.num_frames, stride=data.stride, position="uniform")[0]
