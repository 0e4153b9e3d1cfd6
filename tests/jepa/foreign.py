"""Models as others store them, tiny and with random weights: transformers' folders, Meta's files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepa import JEPA, Grid, JEPAConfig
from jepa.config import EncoderConfig, PredictorConfig
from jepa.posembed import sincos3d

Same = {"atol": 1e-5, "rtol": 0}


def randomise(model: nn.Module) -> None:
    """Weights under which norms, biases and places all matter, and outputs are of the size of trained ones."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        norm, strong = "norm" in name, "query" in name or "key" in name or "q_proj" in name or "k_proj" in name
        nn.init.normal_(parameter, mean=float(norm and "weight" in name), std=0.3 if strong else 0.1)


def classifier_of_transformers() -> Any:
    """A classifier of 5 on a VJEPA2Model of 2 layers, 4 x 4 x 4 tokens; nothing is downloaded."""
    vjepa2 = pytest.importorskip("transformers.models.vjepa2")
    config = vjepa2.VJEPA2Config(
        patch_size=8,
        crop_size=32,
        frames_per_clip=8,
        tubelet_size=2,
        hidden_size=40,
        num_attention_heads=2,  # heads of 20: three axes of 6, and 2 channels that stay
        num_hidden_layers=2,
        mlp_ratio=3.0,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=2,
        id2label=dict(enumerate(["walk", "run", "fall", "sit", "wave"])),
    )
    model = vjepa2.VJEPA2ForVideoClassification(config).eval()
    randomise(model)
    return model


@torch.no_grad()
def encoded(model: Any, video: Tensor, where: Tensor | None = None) -> Tensor:
    """Their encoder on (B, C, T, H, W)."""
    x = model.encoder.embeddings(video.transpose(1, 2))
    for layer in model.encoder.layer:
        x = layer(x, None if where is None else where.expand(len(x), -1))[0]
    return model.encoder.layernorm(x)


ENDS = ("weight", "bias")


def block_keys(prefix: str, count: int) -> list[str]:
    rooms = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    return [f"{prefix}.{i}.{room}.{end}" for i in range(count) for room in rooms for end in ENDS]


def released(model: JEPA, tables: Grid | None, ddp: bool = True) -> dict[str, Any]:
    """A file with the keys that released ones have, written out here, and what else their training saves."""
    encoder, predictor = model.config.encoder, model.config.predictor
    keys = [f"patch_embed.proj.{e}" for e in ENDS] + block_keys("blocks", encoder.depth) + [f"norm.{e}" for e in ENDS]
    narrow = [f"{room}.{e}" for room in ("predictor_embed", "predictor_norm", "predictor_proj") for e in ENDS]
    narrow += [f"mask_tokens.{j}" for j in range(predictor.num_mask_tokens)]
    narrow += block_keys("predictor_blocks", predictor.depth)
    parts = {"encoder": model.context_encoder, "target_encoder": model.target_encoder, "predictor": model.predictor}
    prefix = "module.backbone." if ddp else "backbone."
    found: dict[str, Any] = {
        name: {f"{prefix}{key}": part.state_dict()[key].clone() for key in (narrow if name == "predictor" else keys)}
        for name, part in parts.items()
    }
    if tables is not None:
        found["encoder"][f"{prefix}pos_embed"] = sincos3d(encoder.embed_dim, tables)[None].clone()
        found["target_encoder"][f"{prefix}pos_embed"] = sincos3d(encoder.embed_dim, tables)[None].clone()
        found["predictor"][f"{prefix}predictor_pos_embed"] = sincos3d(predictor.embed_dim, tables)[None].clone()
    optimizer = torch.optim.AdamW(model.predictor.parameters())
    return found | {"opt": optimizer.state_dict(), "scaler": None, "epoch": 3, "loss": 0.5, "batch_size": 24,
                    "world_size": 8, "lr": 1e-4}  # fmt: skip


def meta_file(model: JEPA, tables: Grid | None, path: Path, ddp: bool = True, drift: float = 0.0) -> Path:
    """`drift`: what 90,000 roundings of the moving average did to the target encoder's fixed table."""
    found = released(model, tables, ddp)
    if drift:
        table = found["target_encoder"]["module.backbone.pos_embed"]
        table += drift * torch.rand_like(table)
    torch.save(found, path)
    return path


GRID = Grid(2, 3, 3)
VJEPA1 = JEPAConfig(
    EncoderConfig(24, 2, 2, patch_size=8, position="sincos", position_grid=[2, 3, 3], init="vjepa"),
    PredictorConfig(18, 1, 2, num_mask_tokens=2, mask_index=1),
)


def random_model(config: JEPAConfig) -> JEPA:
    model = JEPA(config).eval()
    randomise(model)
    return model
