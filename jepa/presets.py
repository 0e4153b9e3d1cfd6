"""The official models by name: architecture, clips, masks and schedules of V-JEPA 1 and 2 as they were released.

    model = JEPA(preset("vjepa2_vitl16").model)    # random weights of the right shapes; `jepa import` brings theirs
    jepa pretrain preset=vjepa1_vitl16 data.train=/my/videos

Sources: arXiv 2404.08471 (section 3 and appendix) and 2506.09985 (section 2), and the configs released with them.

| switch                           | what it reproduces                                                                |
|----------------------------------|-----------------------------------------------------------------------------------|
| encoder.rope: vjepa2             | sines and cosines in the order of halves over interleaved pairs: not a rotation   |
| encoder.position_grid            | V-JEPA 1 resizes its stored table for other clips                                 |
| encoder.init: vjepa              | normal of std .02 everywhere, mask tokens zero; blocks rescaled, as ours always   |
| predictor.mask_index: 1          | V-JEPA 1: tasks are predicted with the mask token of the large blocks             |
| predictor.token_per: length      | V-JEPA 2: ten mask tokens, of which all masks train the first; nine stay zero     |
| masks.truncation: prefix         | ids sorted and cut to the shortest sample, which drops the latest tokens          |
| optim.stretch: 1.25              | schedules laid out for longer than the run, so that it stops before their end     |
| optim.schedule: constant, linear | V-JEPA 2: warm-up and then constant; a cool-down that falls in a straight line    |

Left out: V-JEPA 1 drew frames from linspace(start, start + 64, 16), a stride of 64 / 15; ours is 4.
"""

import copy
from dataclasses import dataclass, field, replace

from jepa.config import EncoderConfig, JEPAConfig, PredictorConfig, choose
from jepa.masks import MaskConfig
from jepa.optim import OptimConfig


def _blocks() -> list[MaskConfig]:
    small = MaskConfig(kind="block", num_blocks=8, spatial_scale=0.15, truncation="prefix", min_context=0.0)
    return [small, replace(small, num_blocks=2, spatial_scale=0.7)]


@dataclass(frozen=True)
class Preset:
    """One released model.

    size, num_frames      of its clips; one frame in `stride`, or `fps` frames a second.
    batch_size, devices   clips of an optimizer step on each of so many devices.
    steps                 optimizer steps.
    """

    model: JEPAConfig
    size: int
    num_frames: int
    batch_size: int
    devices: int
    steps: int
    optim: OptimConfig
    stride: int = 1
    fps: float | None = None
    clip_gradient: float = 0.0
    masks: list[MaskConfig] = field(default_factory=_blocks)


VJEPA1_OPTIM = OptimConfig(lr=6.25e-4, start_lr=2e-4, final_lr=1e-6, warmup_steps=12_000, weight_decay=0.04,
                           final_weight_decay=0.4, momentum=0.998, final_momentum=1.0, stretch=1.25)  # fmt: skip
VJEPA2_OPTIM = OptimConfig(lr=5.25e-4, start_lr=1e-4, final_lr=5.25e-4, warmup_steps=12_000, weight_decay=0.04,
                           final_weight_decay=0.04, momentum=0.99925, final_momentum=0.99925, schedule="constant",
                           stretch=1.25)  # fmt: skip
COOLDOWN = replace(VJEPA2_OPTIM, schedule="linear", final_lr=1e-6, warmup_steps=0)  # stretched too: it ends at 1.06e-4

VIT_L = EncoderConfig(embed_dim=1024, depth=24, num_heads=16, init="vjepa")
VIT_H = EncoderConfig(embed_dim=1280, depth=32, num_heads=16, init="vjepa")
VIT_G = EncoderConfig(embed_dim=1408, depth=40, num_heads=22, mlp_ratio=48 / 11, init="vjepa")


def _vjepa1(encoder: EncoderConfig, size: int, batch_size: int, devices: int) -> Preset:
    encoder = replace(encoder, position="sincos", position_grid=[8, size // 16, size // 16])
    # Its predictor has as many heads as the encoder, 24 wide; V-JEPA 2's has 12.
    predictor = PredictorConfig(384, 12, encoder.num_heads, num_mask_tokens=2, mask_index=1)
    model = JEPAConfig(encoder, predictor)
    return Preset(model, size, 16, batch_size, devices, 90_000, VJEPA1_OPTIM, stride=4, clip_gradient=10.0)


def _vjepa2(encoder: EncoderConfig) -> Preset:
    encoder = replace(encoder, position="rope", rope="vjepa2")
    predictor = PredictorConfig(384, 12, 12, num_mask_tokens=10, token_per="length")
    return Preset(JEPAConfig(encoder, predictor), 256, 16, 24, 128, 240_000, VJEPA2_OPTIM, fps=4.0)


PRESETS = {
    "vjepa1_vitl16": _vjepa1(VIT_L, 224, 24, 128),
    "vjepa1_vith16": _vjepa1(VIT_H, 224, 24, 128),
    "vjepa1_vith16_384": _vjepa1(VIT_H, 384, 10, 240),
    "vjepa2_vitl16": _vjepa2(VIT_L),
    "vjepa2_vith16": _vjepa2(VIT_H),
    "vjepa2_vitg16": _vjepa2(VIT_G),
    # The cool-down, from the weights of vjepa2_vitg16 (init_from=...).
    "vjepa2_vitg16_384": replace(
        _vjepa2(VIT_G), size=384, num_frames=64, batch_size=6, devices=512, steps=12_000, optim=COOLDOWN
    ),
}


def preset(name: str) -> Preset:
    """The released model of that name; ConfigError naming the nearest."""
    return copy.deepcopy(PRESETS[choose("preset", name, tuple(PRESETS))])


def find_heads(embed_dim: int, depth: int) -> int | None:
    """Attention heads of the official encoder of that size (weights do not show them); None where there is none."""
    found = (p.model.encoder for p in PRESETS.values())
    return next((e.num_heads for e in found if (e.embed_dim, e.depth) == (embed_dim, depth)), None)
