"""The method: predict the latents of what is hidden from the latents of what is visible. Torch alone.

    h = layer_norm(target_encoder(video))[target_ids]        no gradient, whole clip
    z = predictor(context_encoder(video, context_ids), target_ids)
    loss = |z - h|_1
    target_encoder <- momentum * target_encoder + (1 - momentum) * context_encoder

Pixels are never reconstructed (an opponent does, `targets: pixels`). The context is masked *before* it is encoded: a
hidden pixel cannot reach `z`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from jepa.config import JEPAConfig, choose
from jepa.grid import Grid, coordinates, gather_tokens, patchify
from jepa.masks import Mask, task_mask
from jepa.predictor import Predictor
from jepa.regularisers import sigreg, vicreg
from jepa.vit import VideoViT
from jepa.weights import load_model, load_shared, save_shared, shipped


@dataclass(frozen=True)
class JEPALoss:
    """What one step computed: the `total` to descend, its parts (detached), and the target latents."""

    total: Tensor
    prediction: Tensor
    context: Tensor
    regulariser: Tensor
    h: Tensor  # (B, N, D) target latents of the clip


class JEPA(nn.Module, PyTorchModelHubMixin):
    """Context encoder, its exponential moving average as target encoder, and predictor (V-JEPA, arXiv 2404.08471)."""

    def __init__(self, config: JEPAConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or JEPAConfig()
        choose("targets", config.targets, ("latents", "pixels"))
        choose("target_norm", config.target_norm, ("layer", "batch", "none"))
        choose("regulariser", config.regulariser, ("none", "sigreg", "vicreg"))
        choose("token_per", config.predictor.token_per, ("mask", "length"))
        self.context_encoder = VideoViT(config.encoder)
        width = config.encoder.embed_dim if config.targets == "latents" else config.encoder.patch_dim
        self.predictor = Predictor(config.predictor, config.encoder, width)
        self.target_encoder = self.context_encoder
        if not config.one_encoder:
            self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        norms = {"layer": nn.LayerNorm(width, eps=1e-5, elementwise_affine=False), "none": nn.Identity()}
        norms["batch"] = nn.BatchNorm1d(width, affine=False)
        self.target_norm = norms[config.target_norm]

    def grid(self, video: Tensor) -> Grid:
        """Token grid (t, h, w) of a video (..., T, H, W); ValueError where a size does not divide."""
        return self.context_encoder.grid(video)

    @torch.no_grad()
    def encode(self, video: Tensor, ids: Tensor | None = None) -> Tensor:
        """Targets `h` (B, N, D) of a video (B, C, T, H, W), or of the tokens at `ids` alone, seen alone."""
        if self.config.targets == "latents":
            return self.normalise(self.target_encoder(video, ids))
        pixels = patchify(video, self.config.encoder.tubelet_size, self.config.encoder.patch_size)
        return self.normalise(pixels if ids is None else gather_tokens(pixels, ids))

    def normalise(self, latents: Tensor) -> Tensor:
        """What is to be predicted (B, K, D), on the scale that it is predicted in, float32."""
        h = latents.float()
        return self.target_norm(h.flatten(0, 1)).view_as(h)

    def predict(
        self, video: Tensor, mask: Mask | None = None, mask_index: int | None = None, *, task: str = "forward"
    ) -> Tensor:
        """Predicted latents `z` (B, M, D) at `mask.target_ids`, from nothing but the pixels at `mask.context_ids`.

        Without a mask, that of `task`. `mask_index`: which mask token; None: the one of `config.predictor`.
        """
        grid = self.grid(video)
        mask = mask or task_mask(task, grid, len(video))
        mask = Mask(*(ids.to(video.device) for ids in mask))
        index = self.config.predictor.mask_index if mask_index is None else mask_index
        context = self.context_encoder(video, mask.context_ids)
        return self.predictor(context, grid, mask.context_ids, mask.target_ids, index)[0]

    def forward(self, video: Tensor, masks: Sequence[Mask], kinds: Sequence[int] | None = None) -> JEPALoss:
        """Loss of a batch (B, C, T, H, W), averaged over masks; `kinds` says which mask token each one uses."""
        h, grid = self.encode(video), self.grid(video)
        prediction = context_loss = regulariser = video.new_zeros(())
        for index, mask in zip(kinds or range(len(masks)), masks, strict=True):
            context = self.context_encoder(video, mask.context_ids)  # (B, K, D)
            token = index if self.config.predictor.token_per == "mask" else 0
            z, c = self.predictor(context, grid, mask.context_ids, mask.target_ids, token)
            prediction = prediction + F.l1_loss(z.float(), gather_tokens(h, mask.target_ids)) / len(masks)
            if self.config.context_loss:
                weight = 1 / distance_to_targets(mask, grid).sqrt()  # (B, K)
                error = (c.float() - gather_tokens(h, mask.context_ids)).abs().mean(-1)
                context_loss = context_loss + (weight * error).mean() / len(masks)
            if self.config.regulariser != "none":
                term = sigreg if self.config.regulariser == "sigreg" else vicreg
                regulariser = regulariser + term(context) / len(masks)
        total = prediction + self.config.context_loss * context_loss + self.config.regulariser_weight * regulariser
        return JEPALoss(total, prediction.detach(), context_loss.detach(), regulariser.detach(), h)

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """One step of the moving average, after the optimizer's. A momentum of 1 keeps a frozen teacher (SALT)."""
        if momentum < 1:
            teacher, student = list(self.target_encoder.parameters()), list(self.context_encoder.parameters())
            torch._foreach_lerp_(teacher, student, 1 - momentum)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> "JEPA":
        """Read a model from the checkpoint of a run (`best.ckpt`) or from a folder that `save_pretrained` wrote."""
        return load_model(cls, JEPAConfig, path, kind="jepa", prefix="jepa.")

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "JEPA":
        return load_shared(cls, JEPAConfig, model_id, options)


def from_pretrained(path: str | Path, **options: Any) -> JEPA:
    """A JEPA in evaluation mode: a shared or imported folder, the checkpoint of a run, `worlds-tiny` or `worlds-small`,
    which come with the package, or a Hub repository's name."""
    return JEPA.load(path) if shipped(path).exists() else JEPA.from_pretrained(str(path), **options)


def distance_to_targets(mask: Mask, grid: Grid) -> Tensor:
    """(B, K) Euclidean distance, in tokens, from each visible token to the nearest target (V-JEPA 2.1)."""
    place = coordinates(grid, mask.context_ids.device).float()
    return torch.cdist(place[mask.context_ids], place[mask.target_ids]).amin(-1)
