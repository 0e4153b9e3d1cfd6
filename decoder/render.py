"""`jepa render`: a JEPA, its decoder and a video in; what was predicted, beside everything it must be compared with,
out.

    context | prediction (several seeds) | decode(target latent) | decode(mean latent) | truth

Notable:
- A diffusion decoder paints something plausible for any latent. The columns say how much of it is prediction:
  decode(target) is the best it could look, decode(mean) what it looks like when nothing is known of the clip.
- Visible pixels are shown as they are; the drawing appears only where the mask hid the clip. The decoder is blind to
  both.
- A composition root: `draw_task` and `panels` are for notebooks and reports, `render` is the command.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from data.clips import clip_step, frame_indices
from data.errors import DataError
from data.reader import open_video
from data.transforms import ClipTransform
from data.writer import write_gif, write_video
from decoder.compose import Panel, compose_panels, composite, context_only, hidden_pixels, to_frames
from decoder.decoder import Decoder
from decoder.latents import LatentSource
from decoder.sampler import METHODS
from jepa.config import ConfigError, choose
from jepa.jepa import JEPA
from jepa.training import pick_device


@dataclass
class RenderConfig:
    """Everything `jepa render` reads; what is left out is as the decoder was trained.

    context     visible tubelets of the task; null: the task's own default.
    at          where in the video the clip lies: 0 at the beginning, 1 at the end.
    seeds       how many samples of the prediction; the first has seed `seed`.
    play_fps    frames a second of the result; 0: the clip's own rate, at most 6, so that the eye can follow.
    repeat      how often the clip plays in the mp4 (a GIF loops by itself).
    scale       whole-number enlargement; 0: to about 128 pixels a panel.
    """

    jepa: str = "???"
    decoder: str = "???"
    video: str = "???"
    task: str = "forward"
    out: str = "prediction.mp4"
    context: int | None = None
    seeds: int = 3
    seed: int = 0
    steps: int = 8
    method: str = "euler"
    guidance: float = 1.0
    num_frames: int | None = None
    size: list[int] = field(default_factory=list)
    stride: int | None = None
    fps: float | None = None
    at: float = 0.5
    short: str = "pad"
    play_fps: float = 0.0
    repeat: int = 3
    scale: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Drawing:
    """One clip and what was drawn of it, all (C, T, H, W) in [0, 1] on the CPU; `hidden` (1, T, H, W) is what was
    predicted."""

    task: str
    truth: Tensor
    hidden: Tensor
    predictions: list[Tensor]
    target: Tensor
    mean: Tensor

    def panels(self) -> list[Panel]:
        """The columns of a rendering, visible pixels kept in all but the two references."""
        drawn = self.hidden.flatten(2).any(2)[0].numpy()
        columns = [Panel(f"context\n{self.task}", to_frames(context_only(self.truth, self.hidden)), drawn)]
        for i, prediction in enumerate(self.predictions):
            title = f"predicted\nsample {i + 1}" if len(self.predictions) > 1 else "predicted"
            columns.append(Panel(title, to_frames(composite(self.truth, prediction, self.hidden)), drawn))
        for title, video in (
            ("decode(target)\nupper bound", self.target),
            ("decode(mean)\nknows nothing", self.mean),
            ("truth", self.truth),
        ):
            columns.append(Panel(title, to_frames(video)))
        return columns


def draw_task(
    source: LatentSource,
    decoder: Decoder,
    video: Tensor,
    task: str = "forward",
    *,
    context: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 8,
    method: str = "euler",
    guidance: float = 1.0,
) -> Drawing:
    """Predict and draw one task on a normalised clip (C, T, H, W); ConfigError where it does not divide into tokens."""
    clip = video[None]
    grid = source.grid(clip)
    mask = source.task_mask(task, clip, context)
    hidden = hidden_pixels(mask, grid, decoder.config.dit.tubelet_size, decoder.config.dit.patch_size)[0]

    def decode(latents: Tensor, seed: int) -> Tensor:
        return decoder.decode(latents, grid, seed, steps, method, guidance)[0].cpu()

    predicted = source.predicted(clip, mask)
    return Drawing(
        task=task,
        truth=decoder.to_unit(clip)[0].clamp(0, 1).cpu(),
        hidden=hidden.cpu(),
        predictions=[decode(predicted, seed) for seed in seeds],
        target=decode(source.target(clip), seeds[0]),
        mean=decode(decoder.mean_latents(1, grid), seeds[0]),
    )


def render_frames(
    source: LatentSource,
    decoder: Decoder,
    video: Tensor,
    tasks: Sequence[str] = ("forward",),
    scale: int = 0,
    **drawing: object,
) -> np.ndarray:
    """Composed frames (T, H', W', 3) uint8 of a clip (C, T, H, W), a row for each task; `drawing` as in `draw_task`."""
    panels: list[Panel] = []
    for task in tasks:
        panels += draw_task(source, decoder, video, task, **drawing).panels()  # type: ignore[arg-type]
    return compose_panels(panels, columns=len(panels) // len(tasks), scale=scale or None)


def render(config: RenderConfig) -> list[Path]:
    """Write `out` (mp4) and a GIF of the same name, and return both paths."""
    out = Path(config.out)
    if out.suffix.lower() != ".mp4":
        raise ConfigError(
            f"out is {config.out}: give a name that ends in .mp4; a GIF of that name is written beside it"
        )
    choose("method", config.method, METHODS)
    for key in ("seeds", "steps", "repeat"):
        if getattr(config, key) < 1:
            raise ConfigError(f"{key} is {getattr(config, key)}: give at least 1")
    device = pick_device(config.device)
    source = LatentSource(JEPA.load(config.jepa)).to(device)
    decoder = Decoder.load(config.decoder).to(device)
    decoder.check_source(source)
    video, rate = read_clip(config, decoder)
    frames = render_frames(
        source,
        decoder,
        video.to(device),
        [config.task],
        config.scale,
        context=config.context,
        seeds=range(config.seed, config.seed + config.seeds),
        steps=config.steps,
        method=config.method,
        guidance=config.guidance,
    )
    play = config.play_fps or min(rate, 6.0)
    written = [
        write_video(out, np.concatenate([frames] * config.repeat), play),
        write_gif(out.with_suffix(".gif"), frames, play),
    ]
    print("\n".join(f"wrote {path}" for path in written))
    return written


def read_clip(config: RenderConfig, decoder: Decoder) -> tuple[Tensor, float]:
    """One clip (C, T, H, W) of the video, normalised, and its frames a second."""
    clip = decoder.config.clip
    video = open_video(config.video)
    stride, fps = (config.stride, config.fps) if config.stride or config.fps else (clip.stride, clip.fps)
    step = clip_step(None if fps else stride, fps, video.fps)
    length = config.num_frames or clip.num_frames
    frames = video.frames(frame_indices(len(video), length, step, config.at, config.short))
    if not len(frames):
        raise DataError(f"{config.video} is shorter than a clip of {length} frames: give short=pad or short=loop")
    transform = ClipTransform(config.size or clip.size, mean=decoder.config.pixel_mean, std=decoder.config.pixel_std)
    return transform(frames), video.fps / step if video.fps > 0 else 6.0
