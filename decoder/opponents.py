"""Lightning glue for what stands beside the decoder: the pixel model, and the head that samples futures.

Both meet the same tasks, optimizer and schedule as the decoder (`decoder.module.FlowModule`).
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio

from decoder.compose import hidden_pixels
from decoder.flow import FlowConfig
from decoder.futures import FUTURES, Futures
from decoder.latents import LatentSource
from decoder.module import DecoderOptimConfig, FlowModule, SamplingConfig, TaskMixConfig
from decoder.pixels import PIXELS, PixelModel
from jepa.grid import gather_tokens
from jepa.masks import Mask, task_mask


class PixelModule(FlowModule):
    """Trains a `PixelModel`."""

    kind = PIXELS
    model: PixelModel

    def __init__(
        self,
        model: PixelModel,
        mix: TaskMixConfig,
        optim: DecoderOptimConfig,
        flow: FlowConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__(mix, optim, flow, sampling)
        self.model = model
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)

    def mask(self, task: str, video: Tensor, context: int | None = None) -> Mask:
        ids = task_mask(task, self.model.grid(video), len(video), context)
        return Mask(*(part.to(video.device) for part in ids))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        video = batch["video"]
        draw = torch.Generator().manual_seed(int(batch["seed"][0]))
        task, context = self.draw_task(draw)
        keep, noise = self.draw_keep(len(video), draw), self.noise_of(draw)
        result = self.model.loss(video, self.mask(task, video, context), self.flow, keep=keep, generator=noise)
        self.log("train/loss", result.loss, prog_bar=True)
        self.log(f"train/loss_{task}", result.loss)
        return result.loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """PSNR over the hidden pixels of one drawing of each clip; the first clips shown."""
        video, config = batch["video"], self.model.config.dit
        mask, grid = self.mask(self.sampling.task, video), self.model.grid(video)
        hidden = hidden_pixels(mask, grid, config.tubelet_size, config.patch_size)[0, 0]  # (T, H, W)
        truth = self.model.to_unit(video).clamp(0, 1)
        drawn = self.model.draw(video, mask, self.seeds(len(video)), self.sampling.steps, self.sampling.method)
        self.psnr.update(drawn[..., hidden], truth[..., hidden])
        self.log("val/predicted_psnr", self.psnr, prog_bar=True, batch_size=len(video))
        if batch_idx == 0:
            self.show("val/truth_predicted", [truth, drawn])


class FuturesModule(FlowModule):
    """Trains a `Futures` head on the latents of a frozen JEPA."""

    kind = FUTURES
    model: Futures
    source: LatentSource

    def __init__(
        self,
        model: Futures,
        source: LatentSource,
        mix: TaskMixConfig,
        optim: DecoderOptimConfig,
        flow: FlowConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__(mix, optim, flow, sampling)
        self.model, self.source = model, source

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        video = batch["video"]
        draw = torch.Generator().manual_seed(int(batch["seed"][0]))
        task, context = self.draw_task(draw)
        mask = self.source.task_mask(task, video, context)
        target, predicted = self.source.target(video), self.source.predicted(video, mask)
        result = self.model.loss(target, predicted, mask, self.source.grid(video), self.flow, self.noise_of(draw))
        self.log("train/loss", result.loss, prog_bar=True)
        return result.loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Mean absolute error in latent space of the prediction, of one sample, and of the nearest of four samples.

        A sample of a wide distribution lies further from the truth than its mean; the nearest of several may not.
        """
        video = batch["video"]
        mask, grid = self.source.task_mask(self.sampling.task, video), self.source.grid(video)
        target, predicted = self.source.target(video), self.source.predicted(video, mask)

        def error(latents: Tensor) -> Tensor:  # (B,)
            gap = gather_tokens(latents, mask.target_ids) - gather_tokens(target, mask.target_ids)
            return gap.abs().mean((1, 2))

        steps, method = self.sampling.steps, self.sampling.method
        seeds = self.seeds(len(video))
        samples = [self.model.sample(predicted, mask, grid, [s + i for s in seeds], steps, method) for i in range(4)]
        errors = torch.stack([error(latents) for latents in samples])  # (4, B)
        nearest, mean = errors.amin(0).mean(), error(predicted).mean()
        found = {"val/predicted_error": mean, "val/sample_error": errors.mean(), "val/nearest_error": nearest}
        self.log_dict({**found, "val/skill": 1 - nearest / mean}, batch_size=len(video))
