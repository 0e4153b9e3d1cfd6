"""Official weights, in and out. Claims:

- against transformers' VJEPA2Model with random weights, in float32: the encoder gives the same output on three shapes,
  frames that are not square and another length among them; the predictor too, from the same context tokens, with two
  mask tokens; so do the attentive pooler and the classifier on top of it.
- import, export and import again is the same to the bit, for both formats; transformers itself reads what is exported,
  and gives what the first model gave.
- Meta's files of both generations, tables, wrappers, optimizer and all, become the same model as transformers' import
  of the same numbers; V-JEPA 1's table is checked, and resized for other clips as V-JEPA 1 does it; a classifier's file
  is read too.
- sizes of every preset are those published, the others those that transformers' config gives.
- `predict` of an imported model passes the leakage check: no hidden pixel reaches a prediction; encoding first and
  masking afterwards, as transformers' own forward does, fails it.
- a key that is missing, surplus or of another shape stops the load with the list; so does a setting that ours has not.
- a wrong file (truncated, another architecture, one that would run code) is one sentence, and runs nothing.
- official preprocessing: clips are what transformers' VJEPA2VideoProcessor makes of the same frames.
"""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.transforms import ClipTransform
from jepa import (
    JEPA,
    AttentiveClassifier,
    CheckpointError,
    ConfigError,
    Grid,
    JEPAConfig,
    from_pretrained,
    preset,
    task_mask,
)
from jepa.attentive import ClassifierConfig
from jepa.checkpoints import (
    read_official,
    read_transformers,
    transformers_config,
    transformers_names,
    write_transformers,
)
from jepa.config import EncoderConfig, PredictorConfig
from jepa.exchange import SHORTER_SIDE, ExportConfig, ImportConfig, export_model, import_model
from jepa.posembed import sincos3d
from jepa.presets import PRESETS
from jepa.vit import VideoViT
from jepa.weights import read_checkpoint

vjepa2 = pytest.importorskip("transformers.models.vjepa2")
Same = {"atol": 1e-5, "rtol": 0}


def randomise(model: nn.Module) -> None:
    """Weights under which norms, biases and places all matter, and outputs are of the size of trained ones."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        norm, strong = "norm" in name, "query" in name or "key" in name or "q_proj" in name or "k_proj" in name
        nn.init.normal_(parameter, mean=float(norm and "weight" in name), std=0.3 if strong else 0.1)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """A classifier of 5 on a VJEPA2Model of 2 layers, 4 x 4 x 4 tokens; nothing is downloaded."""
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


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder and predictor as transformers saves them."""
    path = tmp_path_factory.mktemp("theirs")
    theirs.vjepa2.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "model"
    import_model(ImportConfig(str(folder), str(out)))
    return out


def places(grid: Grid) -> Tensor:
    """(1, N) ids of a grid's tokens on their own 4 x 4 frame, which is how transformers is told where tokens lie."""
    t, h, w = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    return (16 * t + 4 * h + w).flatten()[None]


@torch.no_grad()
def encoded(model: Any, video: Tensor, where: Tensor | None = None) -> Tensor:
    """Their encoder on (B, C, T, H, W)."""
    x = model.encoder.embeddings(video.transpose(1, 2))
    for layer in model.encoder.layer:
        x = layer(x, None if where is None else where.expand(len(x), -1))[0]
    return model.encoder.layernorm(x)


# ------------------------------------------------------------------------------------------------------ transformers


@torch.no_grad()
@pytest.mark.parametrize("shape", [(8, 32, 32), (6, 16, 32), (12, 32, 24)], ids=["its own", "wide", "tall and long"])
def test_the_encoder_gives_the_same_output(theirs: Any, ours: Path, shape: tuple[int, int, int]) -> None:
    model = from_pretrained(ours)
    assert model.config.encoder.rope == "vjepa2" and not model.training
    video = torch.randn(2, 3, *shape)
    expected = encoded(theirs.vjepa2, video, places(model.grid(video)))
    assert expected.std() > 0.5
    torch.testing.assert_close(model.target_encoder(video), expected, **Same)
    if shape == (8, 32, 32):
        whole = theirs.vjepa2(video.transpose(1, 2), skip_predictor=True).last_hidden_state
        torch.testing.assert_close(model.target_encoder(video), whole, **Same)
        standard = copy.deepcopy(model.target_encoder)
        standard.positions.rope = "standard"
        assert (standard(video) - whole).abs().max() > 0.1, "a true rotation would read the weights wrongly"
    else:
        assert (encoded(theirs.vjepa2, video) - expected).abs().max() > 0.1, "places matter"


@torch.no_grad()
@pytest.mark.parametrize("mask_index", [0, 1])
@pytest.mark.parametrize("task", ["forward", "infill"])
def test_the_predictor_gives_the_same_output(theirs: Any, ours: Path, mask_index: int, task: str) -> None:
    model, predictor = from_pretrained(ours), theirs.vjepa2.predictor
    grid = Grid(4, 4, 4)
    mask, context = task_mask(task, grid, 2), torch.randn(2, 64, 40)
    context = context[:, : mask.context_ids.shape[1]]
    x, where = predictor.embeddings(context, [mask.context_ids], [mask.target_ids], mask_index)
    order = where.argsort(1)
    x, where = predictor.sort_tokens(x, where, order)
    for layer in predictor.layer:
        x = layer(x, where)[0]
    x = predictor.unsort_tokens(predictor.layernorm(x), order)
    expected = predictor.proj(x[:, context.shape[1] :])
    found, _ = model.predictor(context, grid, mask.context_ids, mask.target_ids, mask_index)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, **Same)
    other, _ = model.predictor(context, grid, mask.context_ids, mask.target_ids, 1 - mask_index)
    assert (other - expected).abs().max() > 1e-3, "the mask token matters"


@torch.no_grad()
def test_the_classifier_gives_the_same_output(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path / "theirs")
    found = import_model(ImportConfig(str(tmp_path / "theirs"), str(tmp_path / "ours")))
    assert found.model is not None and found.classifier is not None
    model = from_pretrained(tmp_path / "ours")
    head = AttentiveClassifier.from_pretrained(str(tmp_path / "ours" / "classifier"))
    labels = ["walk", "run", "fall", "sit", "wave"]
    assert head.config == ClassifierConfig(40, 2, 3, 5, eps=1e-6, labels=labels)
    video = torch.randn(3, 3, 8, 32, 32)
    tokens = encoded(theirs.vjepa2, video)
    torch.testing.assert_close(head.pooler(tokens), theirs.pooler(tokens), **Same)
    logits = theirs(video.transpose(1, 2)).logits
    assert logits.std() > 0.1
    torch.testing.assert_close(head(model.target_encoder(video)), logits, **Same)
    export_model(ExportConfig(str(tmp_path / "ours"), str(tmp_path / "back")))
    again = vjepa2.VJEPA2ForVideoClassification.from_pretrained(tmp_path / "back").eval()
    assert [again.config.id2label[i] for i in range(5)] == labels
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in again.state_dict().items())


@torch.no_grad()
def test_no_hidden_pixel_reaches_a_prediction(theirs: Any, ours: Path) -> None:
    model, video = from_pretrained(ours), torch.randn(2, 3, 8, 32, 32)
    mask = task_mask("forward", Grid(4, 4, 4), 2)
    changed = video.clone()
    changed[:, :, 4:] = torch.randn(2, 3, 4, 32, 32) * 50
    assert torch.equal(model.predict(video, task="forward"), model.predict(video, mask))
    assert torch.equal(model.predict(changed, mask), model.predict(video, mask))

    def encode_then_mask(clip: Tensor) -> Tensor:
        arguments = {"context_mask": [mask.context_ids], "target_mask": [mask.target_ids]}
        return theirs.vjepa2(clip.transpose(1, 2), **arguments).predictor_output.last_hidden_state

    assert not torch.equal(encode_then_mask(changed), encode_then_mask(video)), "the check would not see a leak"


@torch.no_grad()
def test_a_classifier_transformers_would_compute_otherwise_is_not_exported(ours: Path, tmp_path: Path) -> None:
    model = from_pretrained(ours)
    for changes, words in (
        ({"num_heads": 4}, "num_heads 4"),
        ({"eps": 1e-5}, "eps 1e-05"),
        ({"mlp_ratio": 2.0}, "mlp_"),
    ):
        settings = {"embed_dim": 40, "num_heads": 2, "num_classes": 5, "eps": 1e-6, "depth": 1} | changes
        with pytest.raises(CheckpointError, match=words):
            write_transformers(model, 8, 32, classifier=AttentiveClassifier(ClassifierConfig(**settings)))


@torch.no_grad()
def test_what_is_exported_knows_the_size_of_its_clips(theirs: Any, ours: Path, tmp_path: Path) -> None:
    model = from_pretrained(ours)
    torch.save(released(model, None), tmp_path / "vitx.pt")
    import_model(ImportConfig(str(tmp_path / "vitx.pt"), str(tmp_path / "a"), num_heads=2, predictor_heads=2, size=32))
    export_model(ExportConfig(str(tmp_path / "a"), str(tmp_path / "b")))
    video = torch.randn(1, 3, 16, 32, 32)
    read = vjepa2.VJEPA2Model.from_pretrained(tmp_path / "b").eval()
    found = read(video.transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(found, model.target_encoder(video), **Same)
    (tmp_path / "a" / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="give size="):
        export_model(ExportConfig(str(tmp_path / "a"), str(tmp_path / "c")))


def test_there_and_back_is_the_same_to_the_bit(theirs: Any, folder: Path, ours: Path, tmp_path: Path) -> None:
    export_model(ExportConfig(str(ours), str(tmp_path / "theirs")))
    stored, back = load_file(folder / "model.safetensors"), load_file(tmp_path / "theirs" / "model.safetensors")
    assert stored.keys() == back.keys() and all(torch.equal(stored[key], back[key]) for key in stored)
    import_model(ImportConfig(str(tmp_path / "theirs"), str(tmp_path / "ours")))
    assert (tmp_path / "ours" / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()
    assert (tmp_path / "ours" / "config.json").read_bytes() == (ours / "config.json").read_bytes()
    read = vjepa2.VJEPA2Model.from_pretrained(tmp_path / "theirs").eval()
    assert read.config.crop_size == 32 and read.config.frames_per_clip == 8
    video = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(read(video.transpose(1, 2)).last_hidden_state, encoded(theirs.vjepa2, video))


def test_weights_in_several_files_are_read(folder: Path, ours: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    names, parts = sorted(state), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    split = {parts[0]: names[::2], parts[1]: names[1::2]}
    for part, keys in split.items():
        save_file({key: state[key] for key in keys}, tmp_path / part)
    index = {"weight_map": {key: part for part, keys in split.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    import_model(ImportConfig(str(tmp_path), str(tmp_path / "out")))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()
    (tmp_path / parts[1]).unlink()
    with pytest.raises(CheckpointError, match="00002-of-00002"):
        import_model(ImportConfig(str(tmp_path), str(tmp_path / "again")))


def test_one_encoder_is_held_and_stored_once(ours: Path) -> None:
    model = from_pretrained(ours)
    assert model.target_encoder is model.context_encoder and model.config.one_encoder
    assert not any(key.startswith("target_encoder") for key in load_file(ours / "model.safetensors"))


def test_settings_ours_does_not_have_are_refused(theirs: Any) -> None:
    settings, state = theirs.vjepa2.config.to_dict(), theirs.vjepa2.state_dict()
    for key, value in (("layer_norm_eps", 1e-5), ("hidden_act", "relu"), ("qkv_bias", False)):
        with pytest.raises(CheckpointError, match=f"{key} is {value!r}, and only"):
            read_transformers(settings | {key: value}, state)
    standard = JEPA(JEPAConfig(EncoderConfig(24, 1, 2, patch_size=8), PredictorConfig(12, 1, 2)))
    with pytest.raises(CheckpointError, match=r"V-JEPA 2's positions alone .*rope: standard"):
        write_transformers(standard, 8, 32)


def test_the_contract_of_their_keys(theirs: Any) -> None:
    settings, state = theirs.vjepa2.config.to_dict(), theirs.vjepa2.state_dict()
    known = {name for _, names in transformers_names(read_transformers(settings, state).model.config) for name in names}
    assert known | {"predictor.embeddings.mask_tokens"} == set(state)
    for change, words in (
        (lambda s: s.pop("encoder.layer.1.attention.key.bias"), r"missing encoder\.layer\.1\.attention\.key\.bias"),
        (lambda s: s.pop("predictor.embeddings.mask_tokens"), r"missing predictor\.embeddings\.mask_tokens"),
        (lambda s: s.update({"encoder.extra.weight": torch.zeros(1)}), r"unexpected encoder\.extra\.weight"),
        (lambda s: s.update({"encoder.layernorm.bias": torch.zeros(7)}), r"norm\.bias is \(7,\) there and \(40,\)"),
        (lambda s: s.update({"encoder.layer.0.attention.key.weight": torch.zeros(40, 7)}), "another architecture"),
    ):
        changed = dict(state)
        change(changed)
        with pytest.raises(CheckpointError, match=words):
            read_transformers(settings, changed)


# ----------------------------------------------------------------------------------------------- Meta's own files

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


# --------------------------------------------------------------------------------------------------- sizes and files


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_sizes_of_the_presets() -> None:
    published = {"vjepa1_vitl16": 303_885_312, "vjepa1_vith16": 631_648_000, "vjepa1_vith16_384": 631_648_000}
    for name in PRESETS:
        config = preset(name).model
        with torch.device("meta"):
            model = JEPA(config)
        if name in published:
            assert count(model.context_encoder) == published[name]
            continue
        settings = vjepa2.VJEPA2Config(**transformers_config(config))
        with torch.device("meta"):
            reference = vjepa2.VJEPA2Model(settings)
        assert count(model.context_encoder) == count(reference.encoder)
        assert count(model.predictor) == count(reference.predictor)
    with torch.device("meta"):
        assert count(JEPA(preset("vjepa1_vitl16").model).predictor) == 22_082_944


def test_wrong_files_are_one_sentence_and_run_nothing(folder: Path, ours: Path, tmp_path: Path) -> None:
    good = meta_file(random_model(VJEPA1), GRID, tmp_path / "good.pt").read_bytes()
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trap,)

    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"encoder": Trap()}))
    torch.save({"encoder": Trap(), "predictor": {}, "target_encoder": {}}, tmp_path / "trapped.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text('{"model_type": "videomae"}')
    short = tmp_path / "short"
    short.mkdir()
    (short / "config.json").write_text((folder / "config.json").read_text())
    (short / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    wide = tmp_path / "wide"
    wide.mkdir()
    (wide / "config.json").write_text(
        (folder / "config.json").read_text().replace('"hidden_size": 40', '"hidden_size": 80')
    )
    (wide / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for name, words in (
        ("cut.pt", "damaged"),
        ("trap.pt", "cannot be read safely|can be read safely"),
        ("trapped.pt", "can be read safely: it asks to run"),
        ("other.pt", "has no encoder: it holds state_dict"),
        ("none.pt", "no such file"),
        ("short/model.safetensors", "give the folder"),
        ("list", "videomae: only vjepa2 is known"),
        ("short", "not a readable safetensors file"),
        ("wide", "there and .* here"),
    ):
        with pytest.raises(CheckpointError, match=words) as error:
            import_model(ImportConfig(str(tmp_path / name), str(tmp_path / "out")))
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(CheckpointError, match="is a model of this project already"):
        import_model(ImportConfig(str(ours), str(tmp_path / "out")))
    assert not trap.exists() and not (tmp_path / "out").exists()


def test_official_preprocessing_is_theirs() -> None:
    processing = pytest.importorskip("transformers.models.vjepa2.video_processing_vjepa2")
    rng = np.random.default_rng(0)
    # Where what is cut off is odd, they begin a pixel earlier than torchvision, Meta's code and ours.
    for height, width in ((48, 64), (72, 40), (33, 90)):
        noise = torch.from_numpy(rng.integers(0, 256, (4, 3, height // 4, width // 4), dtype=np.uint8))
        smooth = F.interpolate(noise.float(), size=(height, width), mode="bicubic").clamp(0, 255).byte()
        frames = smooth.movedim(1, -1).numpy()
        processor = processing.VJEPA2VideoProcessor(crop_size=32)
        expected = processor(list(frames), return_tensors="pt")["pixel_values_videos"][0]  # (T, C, H, W)
        found = ClipTransform(32, shorter_side=SHORTER_SIDE)(frames)  # (C, T, H, W)
        assert found.shape == (3, 4, 32, 32)
        assert (found.transpose(0, 1) - expected).abs().max() < 1.01 / 255 / 0.22, "one grey level of 255 at most"
