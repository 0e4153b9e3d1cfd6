"""The arms of the comparison: everything that can be shown part of a clip and asked for the rest.

| arm             | is shown          | answers                                                                   |
|-----------------|-------------------|---------------------------------------------------------------------------|
| `LatentArm`     | visible pixels    | predicted latents, drawn by a decoder that is blind to pixels             |
| with `futures`  | the same          | the same, but samples of the latents instead of one prediction            |
| `PixelArm`      | visible pixels    | pixels, by the same denoiser                                              |
| `CopyArm`       | visible pixels    | the nearest visible frame                                                 |
| `ExtrapolateArm`| visible pixels    | the last two visible frames, carried on pixel by pixel                    |
| `TargetArm`     | *the whole clip*  | decode(target latents): not an arm but the upper bound of the first       |
| `MeanArm`       | nothing           | decode(mean latent): the lower bound                                      |

Notable: an arm draws whole clips; `draw` puts the visible pixels back, for all alike. What an arm is surprised by is
the distance between its prediction and what came, in its own space: latents, pixels, normalised patches. Networks run
in the precision they were trained with.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from decoder.compose import composite, hidden_pixels
from decoder.decoder import KIND, Decoder
from decoder.futures import FUTURES, Futures
from decoder.latents import LatentSource
from decoder.metrics import nearest_visible
from decoder.pixels import PIXELS, PixelModel
from jepa.grid import Grid, gather_tokens, token_grid
from jepa.jepa import JEPA
from jepa.masks import Mask, task_mask
from jepa.training import autocast
from jepa.weights import CheckpointError, kind_of

APART = 500_000_003  # between the seeds of futures and those of their drawing: one noise must not shape both


class Arm(ABC):
    """Part of a clip in, the rest out. Videos (B, C, T, H, W) are normalised as in training, drawings in [0, 1]."""

    samples_differ = True  # whether two seeds may give two drawings
    surprise_samples = 4  # of which the nearest counts, where samples differ

    def __init__(self, name: str, tubelet_size: int, patch_size: int, steps: int = 8, method: str = "euler") -> None:
        self.name, self.tubelet_size, self.patch_size = name, tubelet_size, patch_size
        self.steps, self.method = steps, method

    def grid(self, video: Tensor) -> Grid:
        """Token grid of a video (..., T, H, W)."""
        return token_grid(video.shape, self.tubelet_size, self.patch_size)

    def task_mask(self, task: str, video: Tensor, context: int | None = None) -> Mask:
        """The mask of a task for a batch, on its device; `context` counts visible tubelets."""
        mask = task_mask(task, self.grid(video), len(video), context)
        return Mask(*(ids.to(video.device) for ids in mask))

    def hidden(self, video: Tensor, mask: Mask) -> Tensor:
        """(B, 1, T, H, W) bool: the pixels that are to be drawn."""
        return hidden_pixels(mask, self.grid(video), self.tubelet_size, self.patch_size)

    @torch.no_grad()
    def draw(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        """The clips with their hidden pixels drawn, (B, C, T, H, W) in [0, 1]; one seed for each clip."""
        with autocast(video.device):
            drawn = self.answer(video, mask, seeds)
        return composite(self.to_unit(video).clamp(0, 1), drawn.float(), self.hidden(video, mask))

    @abstractmethod
    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        """The drawing (B, C, T, H, W) in [0, 1]; visible pixels may be anything."""

    @abstractmethod
    def to_unit(self, video: Tensor) -> Tensor:
        """Normalised pixels -> pixels in [0, 1]."""

    @abstractmethod
    def from_unit(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> normalised as this arm was trained."""

    @torch.no_grad()
    def surprise(self, video: Tensor, mask: Mask) -> Tensor:
        """(B,) mean absolute error over the hidden pixels of the nearest of `surprise_samples` drawings."""
        truth, hidden = self.to_unit(video).clamp(0, 1), self.hidden(video, mask)
        count = self.surprise_samples if self.samples_differ else 1
        errors = []
        for i in range(count):
            with autocast(video.device):
                answer = self.answer(video, mask, [i] * len(video))
            gap = (answer.float() - truth).abs().mean(1, keepdim=True)
            errors.append((gap * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1))
        return torch.stack(errors).amin(0)


class LatentArm(Arm):
    """A JEPA and, to draw, its decoder; with `futures`, latents are sampled instead of predicted once.

    Without a decoder it can be surprised, and cannot draw (ValueError). So can a JEPA whose targets are pixels.
    """

    def __init__(
        self,
        name: str,
        source: LatentSource,
        decoder: Decoder | None = None,
        futures: Futures | None = None,
        steps: int = 8,
        method: str = "euler",
    ) -> None:
        encoder = source.jepa.config.encoder
        super().__init__(name, encoder.tubelet_size, encoder.patch_size, steps, method)
        self.source, self.decoder, self.futures = source, decoder, futures
        for part in (decoder, futures):
            if part is not None:
                part.check_source(source)

    def latents(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        """(B, N, D): visible latents as they are, hidden ones predicted or sampled."""
        predicted = self.source.predicted(video, mask)
        if self.futures is None:
            return predicted
        apart = [seed + APART for seed in seeds]
        return self.futures.sample(predicted, mask, self.grid(video), apart, self.steps, self.method)

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        return self._decode(self.latents(video, mask, seeds), video, seeds)

    def _decode(self, latents: Tensor, video: Tensor, seeds: Sequence[int]) -> Tensor:
        return self._drawer().decode(latents, self.grid(video), seeds, self.steps, self.method)

    def _drawer(self) -> Decoder:
        if self.decoder is None:
            raise ValueError(f"{self.name} has no decoder to draw with")
        return self.decoder

    def to_unit(self, video: Tensor) -> Tensor:
        return self._drawer().to_unit(video)

    def from_unit(self, pixels: Tensor) -> Tensor:
        return self._drawer().from_unit(pixels)

    @torch.no_grad()
    def surprise(self, video: Tensor, mask: Mask) -> Tensor:
        """(B,) mean absolute error of the hidden latents; with `futures`, of the nearest of `surprise_samples`
        futures."""
        count = self.surprise_samples if self.futures is not None else 1
        with autocast(video.device):
            target = self.source.target(video)
            found = [self.latents(video, mask, [i] * len(video)) for i in range(count)]
        gap = lambda z: gather_tokens(z.float() - target.float(), mask.target_ids).abs().mean((1, 2))
        return torch.stack([gap(z) for z in found]).amin(0)


class TargetArm(LatentArm):
    """decode(target latents). It has seen what it draws: the best that the decoder can do, and not a prediction."""

    samples_differ = False  # as good as: one drawing tells

    def latents(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        return self.source.target(video)


class MeanArm(LatentArm):
    """decode(mean latent) everywhere: what the decoder draws when nothing is known."""

    samples_differ = False

    def latents(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        return self._drawer().mean_latents(len(video), self.grid(video))


class PixelArm(Arm):
    """A pixel model."""

    def __init__(self, name: str, model: PixelModel, steps: int = 8, method: str = "euler") -> None:
        super().__init__(name, model.config.dit.tubelet_size, model.config.dit.patch_size, steps, method)
        self.model = model

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        return self.model.draw(video, mask, seeds, self.steps, self.method)

    def to_unit(self, video: Tensor) -> Tensor:
        return self.model.to_unit(video)

    def from_unit(self, pixels: Tensor) -> Tensor:
        return self.model.from_unit(pixels)


class CopyArm(Arm):
    """The nearest visible frame. Tokens and pixel scale are those of the arm `like`."""

    samples_differ = False

    def __init__(self, name: str, like: Arm) -> None:
        super().__init__(name, like.tubelet_size, like.patch_size)
        self.like = like

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        return nearest_visible(self.to_unit(video).clamp(0, 1), self.hidden(video, mask)[0, 0])

    def to_unit(self, video: Tensor) -> Tensor:
        return self.like.to_unit(video)

    def from_unit(self, pixels: Tensor) -> Tensor:
        return self.like.from_unit(pixels)


class ExtrapolateArm(CopyArm):
    """Carries the change between the two nearest visible frames on, pixel by pixel, and clips to [0, 1].

    Where a pixel has only one visible frame on that side, it is copied.
    """

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        pixels, hidden = self.to_unit(video).clamp(0, 1), self.hidden(video, mask)[0, 0]
        drawn = super().answer(video, mask, seeds)
        whole = hidden.flatten(1).all(1)  # (T,) frames of which nothing is visible
        seen = (~hidden.flatten(1).any(1)).nonzero().flatten().tolist()
        for frame in whole.nonzero().flatten().tolist():
            near = min(seen, key=lambda s: abs(s - frame), default=None)
            step = 0 if near is None else (1 if near > frame else -1)  # away from the hidden frame
            if near is None or near + step not in seen:
                continue
            change = pixels[:, :, near] - pixels[:, :, near + step]
            drawn[:, :, frame] = (pixels[:, :, near] + abs(frame - near) * change).clamp(0, 1)
        return drawn


def load_arm(
    path: str | Path,
    name: str = "",
    decoder: str | Path = "",
    jepa: str | Path = "",
    steps: int = 8,
    device: torch.device | str = "cpu",
) -> Arm:
    """The arm of a checkpoint or shared folder, whatever kind it is of.

    A JEPA draws if its `decoder` is given too; a head of futures needs its `jepa`. CheckpointError where something is
    missing or does not fit.
    """
    kind = kind_of(path)
    if kind == PIXELS:
        return PixelArm(name or "pixels", PixelModel.load(path).to(device), steps)
    if kind == KIND:
        raise CheckpointError(f"{path} is a decoder, which predicts nothing: give the JEPA that it draws for")
    trained = jepa if kind == FUTURES else path
    if not trained:
        raise CheckpointError(f"{path} samples latents of a JEPA: give that too, as jepa=...")
    source = LatentSource(JEPA.load(trained)).to(device)
    drawer = Decoder.load(decoder).to(device) if decoder else None
    futures = Futures.load(path).to(device) if kind == FUTURES else None
    return LatentArm(name or ("futures" if futures else "jepa"), source, drawer, futures, steps)
