"""Checkpoints. Claims:

- `save_pretrained` and `from_pretrained` are inverses, bit for bit, config included; `load` reads folders and runs.
- another architecture is refused with keys and shapes; settings this version does not know are refused by name.
- damaged, truncated and foreign files are refused in one sentence; a pickle that would run code is refused unrun.
- a decoder's checkpoint given as a JEPA's says so.
- writing is atomic: where it fails, what was there stays and nothing half-written is left.
- others may read a model as the umask lets them.
"""

import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny import tiny_config
from torch import Tensor

from jepa import JEPA, CheckpointError, JEPAConfig
from jepa.weights import load_strict, read_checkpoint


def run_checkpoint(jepa: JEPA, path: Path, **changes: object) -> Path:
    """What a training run leaves of a model."""
    state = {f"jepa.{key}": value for key, value in jepa.state_dict().items()}
    torch.save({"kind": "jepa", "config": asdict(jepa.config), "state_dict": state} | changes, path)
    return path


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_what_was_saved_is_loaded(norm: str, tmp_path: Path, video: Tensor) -> None:
    torch.manual_seed(3)
    jepa = JEPA(tiny_config("rope+sincos", norm, context_loss=0.5)).train()
    jepa.encode(video)  # moves the running statistics of batch targets
    jepa.context_encoder.norm.weight.data.fill_(2)  # context and target encoder differ
    jepa.eval().save_pretrained(tmp_path / "shared")
    names = {path.name for path in (tmp_path / "shared").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}
    run_checkpoint(jepa, tmp_path / "best.ckpt")
    loaded = [
        JEPA.from_pretrained(str(tmp_path / "shared")),
        JEPA.load(tmp_path / "shared"),
        JEPA.load(tmp_path / "best.ckpt"),
    ]
    for found in loaded:
        assert same(found, jepa) and found.config == jepa.config and isinstance(found.config, JEPAConfig)
        assert not found.training and not any(p.requires_grad for p in found.target_encoder.parameters())
        assert torch.equal(found.encode(video), jepa.encode(video))


def test_another_architecture_is_refused_with_keys_and_shapes(tmp_path: Path, jepa: JEPA) -> None:
    jepa.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["encoder"]["depth"] = 3
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"another architecture: missing context_encoder\.blocks\.2\..* more$"):
        JEPA.load(tmp_path)
    settings["encoder"] |= {"depth": 2, "mlp_ratio": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"mlp\.fc1\.weight is \(96, 24\) there and \(48, 24\) here"):
        JEPA.load(tmp_path)
    state = jepa.state_dict() | {"extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"somewhere holds another architecture: unexpected extra$"):
        load_strict(jepa, state, "somewhere")


def test_settings_of_another_version_are_refused_by_name(tmp_path: Path, jepa: JEPA) -> None:
    jepa.save_pretrained(tmp_path / "shared")
    for text, words in (
        ('{"encoder": {"stride": 3}}', "stride"),
        ('{"target_norm": "group"}', "target_norm is 'group'"),
        ('{"encoder": 3}', r"config\.json holds no config of a JEPA"),
        ("[1]", r"config\.json holds no config: a list is in it"),
        ("{", r"config\.json is not JSON"),
    ):
        (tmp_path / "shared" / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=words):
            JEPA.load(tmp_path / "shared")
    path = run_checkpoint(jepa, tmp_path / "run.ckpt", config={"encodr": {}})
    with pytest.raises(CheckpointError, match=r"run\.ckpt holds no config of a JEPA .*encodr"):
        JEPA.load(path)


class Trap:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_unrun(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps({"state_dict": trap}))
    torch.save({"kind": "jepa", "state_dict": trap}, tmp_path / "zip.ckpt")
    for name, why in (("bare.ckpt", "more than tensors"), ("zip.ckpt", r"asks to run posix\.mkdir")):
        with pytest.raises(CheckpointError, match=rf"{name} is not a checkpoint that can be read safely: .*{why}"):
            JEPA.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "bare.ckpt").read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap works"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path, jepa: JEPA) -> None:
    path = run_checkpoint(jepa, tmp_path / "run.ckpt")
    whole, draw = path.read_bytes(), torch.Generator().manual_seed(0)
    noise = [bytes(torch.randint(256, (n,), generator=draw).tolist()) for n in (1, 5, 50, 500) for _ in range(25)]
    cut = [whole[: len(whole) * n // 16] for n in range(16)]
    flipped = []
    for spot in torch.randint(400, (40,), generator=draw).tolist():  # the pickle lies at the beginning
        flipped.append(whole[:spot] + bytes([(whole[spot] + 77) % 256]) + whole[spot + 1 :])
    refused = 0
    for bytes_ in (*noise, *cut, *flipped, b"path,label\na.mp4,1\n", b""):
        path.write_bytes(bytes_)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            assert "run.ckpt" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused >= len(noise) + len(cut)
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt: no such checkpoint"):
        JEPA.load(tmp_path / "nowhere.ckpt")
    torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError, match="holds a Tensor, and a checkpoint of a run is needed"):
        JEPA.load(path)


def test_a_damaged_shared_folder_is_refused(tmp_path: Path, jepa: JEPA) -> None:
    jepa.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors file"):
        JEPA.load(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors: give the folder that save_pretrained wrote"):
        JEPA.load(tmp_path)


def test_a_checkpoint_of_another_kind_says_so(tmp_path: Path, jepa: JEPA) -> None:
    path = run_checkpoint(jepa, tmp_path / "run.ckpt", kind="decoder")
    with pytest.raises(CheckpointError, match="is the checkpoint of a decoder, and a jepa is needed here"):
        JEPA.load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="is the checkpoint of something else, and a jepa is needed here"):
        JEPA.load(path)


def test_writing_is_atomic(tmp_path: Path, jepa: JEPA, monkeypatch: pytest.MonkeyPatch) -> None:
    jepa.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = JEPA(tiny_config())

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jepa.weights.save_file", full)
    with pytest.raises(OSError, match=r"No space left on device.*model\.safetensors"):
        other.save_pretrained(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before, "config.json too, though the hub's mixin removes it before it asks us to write"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_a_model_is_for_the_umask_to_say(tmp_path: Path, jepa: JEPA, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        jepa.save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}["model.safetensors"] == mode
