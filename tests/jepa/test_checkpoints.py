"""Weights of other projects. Claims:

- the encoder of a random Hugging Face VJEPA2Model, taken over, gives the same output in fp32: on its own square clips,
  and on frames that are not square (where theirs is told each token's place).
- the contract of keys: official checkpoints of V-JEPA 1 and 2, prefixes, sin-cos tables and all, become our three parts
  bit for bit, and every foreign key has a place; a key that is missing, unknown or of another shape stops the load.
- a table of positions that is not ours is refused: its weights would be read with wrong places.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa import JEPA, CheckpointError, EncoderConfig, Grid, JEPAConfig, PredictorConfig, from_official, from_vjepa2_hf
from jepa.posembed import sincos3d
from jepa.vit import VideoViT


@pytest.fixture(scope="module")
def theirs() -> Any:
    """A VJEPA2Model of 2 layers on 4 x 4 x 4 tokens; nothing is downloaded. Norms and biases are made to matter."""
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
        pred_num_hidden_layers=1,
    )
    torch.manual_seed(0)
    model = vjepa2.VJEPA2Model(config).eval()
    for name, parameter in model.named_parameters():
        strong = "query" in name or "key" in name  # so that attention, and with it places, decide the output
        torch.nn.init.normal_(parameter, mean="norm" in name, std=0.4 if strong else 0.2)
    return model


@torch.no_grad()
def encoded(theirs: Any, video: Tensor, places: Tensor | None = None) -> Tensor:
    """Their encoder on (B, C, T, H, W), told tokens' places on its own 4 x 4 x 4 grid where the clip has another."""
    x = theirs.encoder.embeddings(video.transpose(1, 2))
    if places is not None:
        places = places.expand(len(x), -1)
    for layer in theirs.encoder.layer:
        x = layer(x, places)[0]
    return theirs.encoder.layernorm(x)


@torch.no_grad()
def test_the_encoder_gives_the_same_output(theirs: Any) -> None:
    ours = from_vjepa2_hf(theirs)
    assert ours.config.rope == "vjepa2" and not ours.training
    video = torch.randn(2, 3, 8, 32, 32)
    expected = theirs(video.transpose(1, 2), skip_predictor=True).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(video), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(encoded(theirs, video), expected, atol=2e-5, rtol=1e-4)
    standard = copy.deepcopy(ours)
    standard.positions.rope = "standard"
    assert (standard(video) - expected).abs().max() > 0.1, "a true rotation would read the weights wrongly"
    again = from_vjepa2_hf(theirs.state_dict(), theirs.config)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


@torch.no_grad()
def test_frames_that_are_not_square(theirs: Any) -> None:
    ours, grid = from_vjepa2_hf(theirs), Grid(3, 2, 4)
    video = torch.randn(2, 3, 6, 16, 32)
    t, h, w = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    places = (16 * t + 4 * h + w).flatten()[None]
    expected = encoded(theirs, video, places)
    torch.testing.assert_close(ours(video), expected, atol=2e-5, rtol=1e-4)
    assert (encoded(theirs, video) - expected).abs().max() > 0.1, "and places matter"


def test_settings_ours_does_not_have_are_refused(theirs: Any) -> None:
    for key, value in (("layer_norm_eps", 1e-5), ("hidden_act", "relu"), ("qkv_bias", False)):
        config = copy.copy(theirs.config)
        setattr(config, key, value)
        with pytest.raises(CheckpointError, match=f"{key} is {value!r}, and only"):
            from_vjepa2_hf(theirs.state_dict(), config)


def test_the_contract_of_hugging_face_keys(theirs: Any) -> None:
    state = theirs.state_dict()
    for change, words in (
        (lambda s: s.pop("encoder.layer.1.attention.key.bias"), r"blocks\.1\.attn\.key\.bias is missing"),
        (lambda s: s.pop("encoder.layer.0.norm2.weight"), r"missing blocks\.0\.norm2\.weight"),
        (lambda s: s.update({"encoder.extra.weight": torch.zeros(1)}), r"encoder\.extra\.weight is not known"),
        (lambda s: s.update({"encoder.layernorm.bias": torch.zeros(7)}), r"norm\.bias is \(7,\) there and \(40,\)"),
    ):
        changed = dict(state)
        change(changed)
        with pytest.raises(CheckpointError, match=words):
            from_vjepa2_hf(changed, theirs.config)


GRID = Grid(2, 2, 3)
ENCODER = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
VJEPA1 = JEPAConfig(EncoderConfig(**ENCODER, position="sincos"), PredictorConfig(12, 1, 2, num_mask_tokens=2))
VJEPA2 = JEPAConfig(EncoderConfig(**ENCODER, rope="vjepa2"), PredictorConfig(12, 1, 2, num_mask_tokens=10))


def block_keys(prefix: str, count: int) -> list[str]:
    rooms = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    return [f"{prefix}.{i}.{room}.{end}" for i in range(count) for room in rooms for end in ("weight", "bias")]


def released(config: JEPAConfig) -> tuple[dict[str, dict[str, Tensor]], JEPA]:
    """A checkpoint with the keys that the released ones have, written out here, and the model it was made from."""
    torch.manual_seed(4)
    model = JEPA(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    ends = ("weight", "bias")
    encoder = [f"patch_embed.proj.{e}" for e in ends] + block_keys("blocks", 2) + [f"norm.{e}" for e in ends]
    predictor = [f"{room}.{e}" for room in ("predictor_embed", "predictor_norm", "predictor_proj") for e in ends]
    predictor += [f"mask_tokens.{j}" for j in range(config.predictor.num_mask_tokens)]
    predictor += block_keys("predictor_blocks", 1)
    named = {"encoder": encoder, "target_encoder": encoder, "predictor": predictor}
    parts = {"encoder": model.context_encoder, "target_encoder": model.target_encoder, "predictor": model.predictor}
    checkpoint = {
        name: {f"module.backbone.{key}": parts[name].state_dict()[key] for key in keys} for name, keys in named.items()
    }
    if config.encoder.position == "sincos":
        for name, key, width in (
            ("encoder", "pos_embed", 24),
            ("target_encoder", "pos_embed", 24),
            ("predictor", "predictor_pos_embed", 12),
        ):
            checkpoint[name][f"module.backbone.{key}"] = sincos3d(width, GRID)[None]
    return checkpoint, model


@pytest.mark.parametrize("config", [VJEPA1, VJEPA2], ids=["vjepa1", "vjepa2"])
def test_official_checkpoints_become_ours_bit_for_bit(config: JEPAConfig) -> None:
    checkpoint, model = released(config)
    found = from_official(checkpoint, config, GRID)
    one, other = found.state_dict(), model.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert not found.training and isinstance(found.target_encoder, VideoViT)
    without = {name: {key.removeprefix("module."): v for key, v in part.items()} for name, part in checkpoint.items()}
    again = from_official(without, config, GRID).state_dict()
    assert all(torch.equal(again[key], other[key]) for key in other), "with one prefix or the other"


def test_the_contract_of_official_keys() -> None:
    checkpoint, _ = released(VJEPA1)
    for name, key, words in (
        ("encoder", "blocks.1.attn.qkv.bias", r"^encoder .*missing blocks\.1\.attn\.qkv\.bias"),
        ("predictor", "mask_tokens.1", r"^predictor .*missing mask_tokens\.1"),
    ):
        changed = {part: dict(values) for part, values in checkpoint.items()}
        del changed[name][f"module.backbone.{key}"]
        with pytest.raises(CheckpointError, match=words):
            from_official(changed, VJEPA1, GRID)
    changed = {part: dict(values) for part, values in checkpoint.items()}
    changed["target_encoder"]["module.backbone.cls_token"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"^target_encoder .*unexpected cls_token"):
        from_official(changed, VJEPA1, GRID)
    with pytest.raises(CheckpointError, match="has no predictor: it has encoder, target_encoder"):
        from_official({k: v for k, v in checkpoint.items() if k != "predictor"}, VJEPA1, GRID)


def test_another_table_of_positions_is_refused() -> None:
    checkpoint, _ = released(VJEPA1)
    with pytest.raises(CheckpointError, match=r"encoder\.pos_embed is a table of positions: give the grid"):
        from_official(checkpoint, VJEPA1)
    with pytest.raises(CheckpointError, match=r"pos_embed \(1, 12, 24\) is not the sin-cos table of .*\(2, 3, 2\)"):
        from_official(checkpoint, VJEPA1, Grid(2, 3, 2))
    with pytest.raises(CheckpointError, match="is not the sin-cos table"):
        from_official(checkpoint, VJEPA1, Grid(4, 2, 3))
