"""Encoder and predictor. Claims:

- with V-JEPA's sizes the encoder has V-JEPA's parameter counts (ViT-L, ViT-H, the predictor of L).
- the patch embedding applied to some tokens is that of all tokens, taken there: ids name places.
- any grid works, decided at call time; the same weights serve several.
- initialisation is what its table says.
- attention in plain products, as a CPU does it in bf16, agrees with the fused kernel.
- under bf16 autocast what the blocks add up stays float32 where positions are a table.
- activation checkpointing and bf16 weights change memory, not what is computed (bf16: up to its rounding).
- impossible shapes are refused with the keys that clash.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jepa import ConfigError, EncoderConfig, Grid, PredictorConfig
from jepa.layers import Block, attend
from jepa.predictor import Predictor
from jepa.scaling import recompute_activations
from jepa.vit import VideoViT

VIT_L = EncoderConfig(embed_dim=1024, depth=24, num_heads=16, position="sincos")
VIT_H = EncoderConfig(embed_dim=1280, depth=32, num_heads=16, position="sincos")


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_parameter_counts_are_those_of_vjepa() -> None:
    with torch.device("meta"):
        assert count(VideoViT(VIT_L)) == 303_885_312
        assert count(VideoViT(VIT_H)) == 631_648_000
        predictor = Predictor(
            PredictorConfig(embed_dim=384, depth=12, num_heads=16, num_mask_tokens=2), VIT_L, VIT_L.embed_dim
        )
        assert count(predictor) == 22_082_944


def small(position: str = "rope+sincos") -> VideoViT:
    return VideoViT(EncoderConfig(embed_dim=24, depth=2, num_heads=2, patch_size=8, position=position)).eval()


@pytest.mark.parametrize("position", ["rope", "sincos", "rope+sincos"])
def test_ids_name_places(position: str, video: Tensor) -> None:
    encoder = small(position)
    every = torch.arange(24).expand(3, 24)
    torch.testing.assert_close(encoder(video, every), encoder(video))
    shuffled = torch.stack([torch.randperm(24) for _ in range(3)])
    expected = encoder(video).gather(1, shuffled[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(encoder(video, shuffled), expected)
    moved = (shuffled + 1) % 24  # the same pixels told to lie elsewhere are other tokens
    assert not torch.allclose(encoder(video, moved), expected)


def test_activations_computed_again_give_the_same_gradients(video: Tensor) -> None:
    kept = small().train()
    again = copy.deepcopy(kept)
    recompute_activations(again)
    assert again.recompute and not kept.recompute
    for encoder in (kept, again):
        encoder(video).square().mean().backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        assert one.grad is not None and torch.equal(one.grad, other.grad)


@torch.no_grad()
def test_the_stream_stays_float32_under_autocast(video: Tensor) -> None:
    encoder, seen = small("sincos"), []
    for block in encoder.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(video)
    assert seen == [torch.float32] * 2


@torch.no_grad()
def test_weights_in_bf16_compute_in_bf16(video: Tensor) -> None:
    encoder = small()
    expected = encoder(video)
    found = encoder.bfloat16()(video)
    assert found.dtype == torch.bfloat16 and (found.float() - expected).abs().max() < 0.1


def test_the_released_initialisation() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(embed_dim=96, depth=2, num_heads=4, init="vjepa")
    encoder = VideoViT(config)
    assert abs(encoder.patch_embed.proj.weight.std().item() / 0.02 - 1) < 0.02
    assert VideoViT(replace(config, init="xavier")).patch_embed.proj.weight.std().item() != pytest.approx(0.02, 0.1)
    predictor = Predictor(PredictorConfig(48, 1, 4, num_mask_tokens=2), config, 96)
    assert all(not token.any() for token in predictor.mask_tokens)
    for i, block in enumerate(encoder.blocks):
        assert block.mlp.fc2.weight.std().item() == pytest.approx(0.02 / (2 * (i + 1)) ** 0.5, 0.05)


def test_the_same_weights_serve_any_grid() -> None:
    encoder = small()
    for shape in ((1, 3, 2, 8, 8), (1, 3, 6, 16, 40), (2, 3, 4, 32, 8)):
        grid = encoder.grid(torch.zeros(shape))
        assert encoder(torch.randn(shape)).shape == (shape[0], grid.num_tokens, 24)
        assert grid == Grid(shape[2] // 2, shape[3] // 8, shape[4] // 8)


def test_initialisation_is_what_the_table_says() -> None:
    encoder = VideoViT(EncoderConfig(embed_dim=192, depth=4, num_heads=3, patch_size=8))
    for i, block in enumerate(encoder.blocks):
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for linear in (block.attn.proj, block.mlp.fc2):
            assert linear.weight.std().item() == pytest.approx(0.02 / (2 * (i + 1)) ** 0.5, rel=0.05)
        assert block.attn.qkv.bias.abs().max() == block.mlp.fc1.bias.abs().max() == 0
        assert (block.norm1.weight == 1).all() and block.norm1.eps == 1e-6


def test_both_ways_to_attend_agree() -> None:
    q, k, v = torch.randn(3, 2, 3, 10, 8)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend(q, k, v), fused)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), fused, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embed_dim": 20, "num_heads": 3}, "embed_dim 20 .* num_heads 3"),
        ({"embed_dim": 16, "num_heads": 4}, "embed_dim 16 over num_heads 4"),
        ({"position": "learned"}, "position is 'learned'"),
        ({"rope": "vjepa"}, "did you mean 'vjepa2'"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VideoViT(EncoderConfig(depth=1, **changes))


def test_a_block_is_pre_norm() -> None:
    block = Block(24, 2)
    x = torch.randn(1, 5, 24) * 100
    with torch.no_grad():
        for linear in (block.attn.proj, block.mlp.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
    assert torch.equal(block(x), x), "with silent branches a pre-norm block is the identity"
