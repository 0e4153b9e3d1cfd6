"""Weights of other projects. Every foreign key name lives here, and a test holds the contract.

    encoder = from_vjepa2_hf(VJEPA2Model.from_pretrained("facebook/vjepa2-vitl-fpc64-256"))
    model = from_official(torch.load("vitl16.pth.tar", weights_only=True), config)

Notable:
- Loading is strict in both directions: a key that is not known here, or that ours lacks, stops it with both names.
- Fixed sin-cos tables in official checkpoints are dropped only after they were found to equal ours.
- V-JEPA 2 was trained with a rotary embedding that is not a rotation: its weights need `rope: vjepa2`.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jepa.config import EncoderConfig, JEPAConfig
from jepa.grid import Grid
from jepa.jepa import JEPA
from jepa.posembed import sincos3d
from jepa.vit import VideoViT
from jepa.weights import CheckpointError, load_strict

# Hugging Face VJEPA2Model -> ours. query, key and value are stacked into one qkv afterwards.
HF_KEYS = (
    (r"encoder\.embeddings\.patch_embeddings\.proj\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm1|norm2|mlp\.fc1|mlp\.fc2)\.(weight|bias)", r"blocks.\1.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.proj\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.(query|key|value)\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layernorm\.(weight|bias)", r"norm.\1"),
)
# Where official checkpoints keep what ours call ..., and the wrappers they were saved in.
OFFICIAL_PARTS = {"context_encoder": "encoder", "predictor": "predictor", "target_encoder": "target_encoder"}
OFFICIAL_PREFIXES = ("module.", "backbone.")
OFFICIAL_TABLES = ("pos_embed", "predictor_pos_embed")


def from_vjepa2_hf(source: nn.Module | Mapping[str, Tensor], hf_config: Any = None) -> VideoViT:
    """The encoder of a Hugging Face `VJEPA2Model` (or of its state dict and config) as ours, in evaluation mode.

    Its predictor is left out: it sees the whole clip before it is masked. Raises CheckpointError where it does not fit.
    """
    if isinstance(source, nn.Module):
        hf_config = hf_config or source.config
        source = source.state_dict()
    fixed = {"layer_norm_eps": 1e-6, "hidden_act": "gelu", "qkv_bias": True}
    for key, value in fixed.items():
        found = getattr(hf_config, key)
        if found != value:
            raise CheckpointError(f"VJEPA2Model: {key} is {found!r}, and only {value!r} is known here")
    config = EncoderConfig(
        embed_dim=hf_config.hidden_size,
        depth=hf_config.num_hidden_layers,
        num_heads=hf_config.num_attention_heads,
        mlp_ratio=hf_config.mlp_ratio,
        patch_size=hf_config.patch_size,
        tubelet_size=hf_config.tubelet_size,
        in_channels=hf_config.in_chans,
        position="rope",
        rope="vjepa2",
    )
    model = VideoViT(config)
    load_strict(model, _stack_qkv(_renamed_hf(source)), "VJEPA2Model")
    return model.eval()


def _renamed_hf(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in source.items():
        if key.startswith("predictor."):
            continue
        found = next(((pattern, ours) for pattern, ours in HF_KEYS if re.fullmatch(pattern, key)), None)
        if found is None:
            raise CheckpointError(f"VJEPA2Model: the key {key} is not known here")
        renamed[re.sub(*found, key)] = value
    return renamed


def _stack_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    stacked = {key: value for key, value in state.items() if not re.search(r"attn\.(query|key|value)\.", key)}
    for key in state:
        if ".attn.query." in key:
            parts = [key.replace(".query.", f".{name}.") for name in ("query", "key", "value")]
            missing = [part for part in parts if part not in state]
            if missing:
                raise CheckpointError(f"VJEPA2Model: {missing[0]} is missing")
            stacked[key.replace(".query.", ".qkv.")] = torch.cat([state[part] for part in parts])
    return stacked


def from_official(checkpoint: Mapping[str, Mapping[str, Tensor]], config: JEPAConfig, grid: Grid | None = None) -> JEPA:
    """A V-JEPA 1 or 2 checkpoint as released (`encoder`, `predictor`, `target_encoder`) as ours, in evaluation mode.

    `config` must describe it (position: sincos for V-JEPA 1; rope, with rope: vjepa2, for V-JEPA 2). `grid`: the tokens
    it was trained on, with whose table stored ones are compared. Raises CheckpointError where it does not fit.
    """
    model = JEPA(config)
    for ours, theirs in OFFICIAL_PARTS.items():
        if theirs not in checkpoint:
            raise CheckpointError(f"the checkpoint has no {theirs}: it has {', '.join(map(str, checkpoint))}")
        state = {}
        for key, value in checkpoint[theirs].items():
            for prefix in OFFICIAL_PREFIXES:
                key = key.removeprefix(prefix)
            if key in OFFICIAL_TABLES:
                _check_table(value, grid, f"{theirs}.{key}")
            else:
                state[key] = value
        load_strict(model.get_submodule(ours), state, theirs)
    return model.eval()


def _check_table(table: Tensor, grid: Grid | None, name: str) -> None:
    if grid is None:
        raise CheckpointError(f"{name} is a table of positions: give the grid (t, h, w) the model was trained on")
    ours = sincos3d(table.shape[-1], grid)
    if table.shape[-2:] != ours.shape or not torch.allclose(table.reshape(ours.shape).float(), ours, atol=1e-5):
        raise CheckpointError(f"{name} {tuple(table.shape)} is not the sin-cos table of a grid of {tuple(grid)}")
