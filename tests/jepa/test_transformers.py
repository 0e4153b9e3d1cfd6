"""transformers' V-JEPA 2, in and out, with random weights in float32. Claims:

- the encoder gives the same output on three shapes, frames that are not square and another length among them; the
  predictor too, from the same context tokens, with two mask tokens; so do the attentive pooler and the classifier on
  top of it.
- import, export and import again is the same to the bit; transformers itself reads what is exported, and gives what the
  first model gave.
- `predict` of an imported model passes the leakage check: no hidden pixel reaches a prediction; encoding first and
  masking afterwards, as transformers' own forward does, fails it.
- a key that is missing, surplus or of another shape stops the load with the list; so does a setting that ours has not.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Same, encoded, released
from safetensors.torch import load_file, save_file
from torch import Tensor

from jepa import JEPA, AttentiveClassifier, CheckpointError, ConfigError, Grid, JEPAConfig, from_pretrained, task_mask
from jepa.attentive import ClassifierConfig
from jepa.checkpoints import read_transformers, transformers_names, write_transformers
from jepa.config import EncoderConfig, PredictorConfig
from jepa.exchange import ExportConfig, ImportConfig, export_model, import_model

vjepa2 = pytest.importorskip("transformers.models.vjepa2")


def places(grid: Grid) -> Tensor:
    """(1, N) ids of a grid's tokens on their own 4 x 4 frame, which is how transformers is told where tokens lie."""
    t, h, w = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    return (16 * t + 4 * h + w).flatten()[None]


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
