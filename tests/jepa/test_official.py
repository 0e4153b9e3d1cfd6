"""Meta's own files of both generations, in and out, with random weights. Claims:

- tables, wrappers, optimizer and all, they become the same model as transformers' import of the same numbers, or ours
  to the bit; what is exported holds the same numbers under the same keys.
- V-JEPA 1 predicts as its paper says; its table is checked, and resized for other clips as V-JEPA 1 does it.
- the mask token of a prediction is one that was trained.
- a classifier's file is read too.
- a key that is missing, surplus or of another shape stops the load with the list.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from foreign import ENDS, GRID, VJEPA1, Same, block_keys, meta_file, random_model, randomise, released

from jepa import JEPA, AttentiveClassifier, CheckpointError, ConfigError, Grid, JEPAConfig, from_pretrained, task_mask
from jepa.attentive import ClassifierConfig
from jepa.checkpoints import read_official, read_transformers
from jepa.config import EncoderConfig, PredictorConfig
from jepa.exchange import ExportConfig, ImportConfig, export_model, import_model
from jepa.posembed import sincos3d
from jepa.vit import VideoViT
from jepa.weights import read_checkpoint


@torch.no_grad()
def test_the_mask_token_is_one_that_was_trained(theirs: Any, ours: Path) -> None:
    settings, state = theirs.vjepa2.config.to_dict(), dict(theirs.vjepa2.state_dict())
    assert from_pretrained(ours).config.predictor.mask_index == 0
    tokens = state["predictor.embeddings.mask_tokens"].clone()
    for trained in (0, 3):
        state["predictor.embeddings.mask_tokens"] = torch.zeros_like(tokens)
        state["predictor.embeddings.mask_tokens"][trained] = tokens[trained]
        model = read_transformers(settings, state).model
        assert model is not None and model.config.predictor.mask_index == trained
        file = released(model, None)
        again = read_official(file, num_heads=2, predictor_heads=2)
        assert again.model is not None and again.model.config.predictor.mask_index == trained
        assert f"tasks use number {trained}" in again.words
        video = torch.randn(1, 3, 8, 32, 32)
        assert torch.equal(model.predict(video), model.predict(video, mask_index=trained))


def test_the_second_generation_trains_one_mask_token() -> None:
    for kind, trained in (("mask", {0, 1}), ("length", {0})):
        torch.manual_seed(0)
        settings = PredictorConfig(12, 1, 2, num_mask_tokens=3, token_per=kind)
        model = JEPA(JEPAConfig(EncoderConfig(24, 1, 2, patch_size=8), settings))
        video = torch.randn(2, 3, 4, 16, 16)
        masks = [task_mask("forward", Grid(2, 2, 2), 2), task_mask("backward", Grid(2, 2, 2), 2)]
        model(video, masks).total.backward()
        tokens = enumerate(model.predictor.mask_tokens)
        assert {i for i, token in tokens if token.grad is not None and token.grad.any()} == trained


@pytest.mark.parametrize("ddp", [True, False], ids=["DDP", "one process"])
@pytest.mark.parametrize("tables", [None, Grid(4, 4, 4)], ids=["no table", "an unused table"])
@torch.no_grad()
def test_metas_second_generation_agrees_with_transformers(
    theirs: Any, ours: Path, tables: Grid | None, ddp: bool, tmp_path: Path
) -> None:
    file = meta_file(from_pretrained(ours), tables, tmp_path / "vitx.pt", ddp)
    found = import_model(ImportConfig(str(file), str(tmp_path / "out"), num_heads=2, predictor_heads=2))
    assert found.words.startswith("V-JEPA 2") and found.model is not None
    assert (found.num_frames, found.size) == ((8, 32) if tables else (0, 0)), "an unused table still has a size"
    model, reference = from_pretrained(tmp_path / "out"), from_pretrained(ours)
    video = torch.randn(2, 3, 8, 32, 32)
    mask = task_mask("forward", Grid(4, 4, 4), 2)
    assert torch.equal(model.target_encoder(video), reference.target_encoder(video))
    assert torch.equal(model.predict(video, mask), reference.predict(video, mask))


@torch.no_grad()
def test_metas_first_generation_becomes_ours_to_the_bit(tmp_path: Path) -> None:
    model = random_model(VJEPA1)
    file = meta_file(model, GRID, tmp_path / "vitx.pth.tar", drift=6e-5)
    found = import_model(ImportConfig(str(file), str(tmp_path / "out"), num_heads=2))
    assert found.words.startswith("V-JEPA 1") and (found.num_frames, found.size) == (4, 24)
    again = from_pretrained(tmp_path / "out")
    assert again.config == VJEPA1
    one, other = again.state_dict(), model.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    export_model(ExportConfig(str(tmp_path / "out"), str(tmp_path / "back.pth"), "official"))
    first, back = read_checkpoint(file), read_checkpoint(tmp_path / "back.pth")
    for part in ("encoder", "predictor", "target_encoder"):
        assert first[part].keys() == back[part].keys()
        weights = [key for key in first[part] if part != "target_encoder" or "pos_embed" not in key]
        assert all(torch.equal(first[part][key], back[part][key]) for key in weights)


@torch.no_grad()
def test_the_first_generation_predicts_as_its_paper_says() -> None:
    """Written out from section 3 of arXiv 2404.08471: positions are added to narrowed context and to the mask token."""
    model = random_model(VJEPA1)
    video, mask = torch.randn(2, 3, 4, 24, 24), task_mask("forward", GRID, 2, context=1)
    predictor, table = model.predictor, sincos3d(18, GRID)
    context = model.context_encoder(video, mask.context_ids)
    for index in (0, 1):
        x = (
            F.linear(context, predictor.predictor_embed.weight, predictor.predictor_embed.bias)
            + table[mask.context_ids]
        )
        y = predictor.mask_tokens[index].expand(2, mask.target_ids.shape[1], -1) + table[mask.target_ids]
        tokens = torch.cat([x, y], 1)
        for block in predictor.predictor_blocks:
            q, k, v = block.attn.qkv(block.norm1(tokens)).reshape(2, -1, 3, 2, 9).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-2, -1) / 3.0).softmax(-1)  # heads of 9
            tokens = tokens + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
            hidden = F.gelu(block.mlp.fc1(block.norm2(tokens)))
            tokens = tokens + block.mlp.fc2(hidden)
        expected = predictor.predictor_proj(predictor.predictor_norm(tokens[:, x.shape[1] :]))
        torch.testing.assert_close(model.predict(video, mask, index), expected, **Same)
    assert torch.equal(model.predict(video, mask), model.predict(video, mask, 1)), "the token of the large blocks"


@torch.no_grad()
def test_the_first_generation_resizes_its_table() -> None:
    encoder = random_model(VJEPA1).target_encoder
    table = sincos3d(24, GRID).reshape(1, *GRID, 24).movedim(-1, 1)
    for shape, grid in (((4, 24, 24), GRID), ((8, 48, 24), Grid(4, 6, 3)), ((4, 24, 48), Grid(2, 3, 6))):
        video = torch.randn(1, 3, *shape)
        scale = [float(now / then) for now, then in zip(grid, GRID, strict=True)]
        resized = F.interpolate(table, scale_factor=scale, mode="trilinear").flatten(2).transpose(1, 2)
        x = encoder.patch_embed.proj(video).flatten(2).transpose(1, 2) + resized
        for block in encoder.blocks:
            x = block(x)
        torch.testing.assert_close(encoder(video), encoder.norm(x), **Same)
    own = VideoViT(EncoderConfig(24, 2, 2, patch_size=8, position="sincos"))
    own.load_state_dict(encoder.state_dict())
    assert (own(video) - encoder(video)).abs().max() > 0.01, "a table of its own would be another"


def test_another_table_of_positions_is_refused(tmp_path: Path) -> None:
    checkpoint = released(random_model(VJEPA1), GRID)
    checkpoint["predictor"]["module.backbone.predictor_pos_embed"] += 0.01
    with pytest.raises(CheckpointError, match=r"predictor\.predictor_pos_embed \(1, 18, 18\) is not .*wrong places"):
        read_official(checkpoint, num_heads=2)
    checkpoint["encoder"]["module.backbone.pos_embed"].zero_()
    with pytest.raises(CheckpointError, match=r"^encoder\.pos_embed .* any grid of square frames"):
        read_official(checkpoint, num_heads=2)
    assert read_official(checkpoint, family="vjepa2", num_heads=2, predictor_heads=3).words.startswith("V-JEPA 2")


def test_the_contract_of_metas_keys() -> None:
    checkpoint = released(random_model(VJEPA1), GRID)
    for name, key, words in (
        ("encoder", "blocks.1.attn.qkv.bias", r": encoder .*missing blocks\.1\.attn\.qkv\.bias"),
        ("predictor", "predictor_norm.weight", r": predictor .*missing predictor_norm\.weight"),
        ("encoder", "patch_embed.proj.weight", r": encoder .*missing patch_embed\.proj\.weight"),
    ):
        changed = {part: dict(values) if isinstance(values, dict) else values for part, values in checkpoint.items()}
        del changed[name][f"module.backbone.{key}"]
        with pytest.raises(CheckpointError, match=words):
            read_official(changed, num_heads=2)
    checkpoint["target_encoder"]["module.backbone.cls_token"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r": target_encoder .*unexpected cls_token"):
        read_official(checkpoint, num_heads=2)
    with pytest.raises(CheckpointError, match="has no predictor: it holds encoder, target_encoder"):
        read_official({k: v for k, v in checkpoint.items() if k in ("encoder", "target_encoder")})
    with pytest.raises(CheckpointError, match=r"24 wide and 2 deep is none of the official ones.*give num_heads"):
        read_official(released(random_model(VJEPA1), GRID))


@torch.no_grad()
def test_the_classifier_of_an_evaluation_is_read(tmp_path: Path) -> None:
    heads = [AttentiveClassifier(ClassifierConfig(32, 16, 3, 7)).eval() for _ in range(2)]
    for head in heads:
        randomise(head)
    rooms = ("norm1", "xattn.q", "xattn.kv", "norm2", "mlp.fc1", "mlp.fc2")
    keys = [f"pooler.cross_attention_block.{room}.{end}" for room in rooms for end in ENDS]
    keys += [*block_keys("pooler.blocks", 3), "pooler.query_tokens", "linear.weight", "linear.bias"]
    states = [{f"module.{key}": head.state_dict()[key] for key in keys} for head in heads]
    torch.save({"classifiers": states, "opt": None, "epoch": 20}, tmp_path / "probe.pt")
    import_model(ImportConfig(str(tmp_path / "probe.pt"), str(tmp_path / "out"), head=1))
    found = AttentiveClassifier.from_pretrained(str(tmp_path / "out" / "classifier"))
    tokens = torch.randn(2, 9, 32)
    assert torch.equal(found(tokens), heads[1](tokens)) and found.config.eps == 1e-5
    with pytest.raises(CheckpointError, match="2 classifiers: head=2 is none"):
        read_official(read_checkpoint(tmp_path / "probe.pt"), head=2)
    with pytest.raises(ConfigError, match="classifier already holds a model"):
        import_model(ImportConfig(str(tmp_path / "probe.pt"), str(tmp_path / "out")))
    assert found.config.num_heads == 16, "whatever the encoder has: Meta's evaluations all say 16"
