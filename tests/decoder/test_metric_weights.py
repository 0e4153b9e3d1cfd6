"""Weights of the judges. Claims:

- a package is looked up and never imported; where it is missing the error says `make metrics`.
- a file of another content is refused by its name, before it is unpickled.
- a pickle that carries code is refused, and nothing of it runs.
- arrays that are unknown or missing stop the load.
- the pins of `make metrics` are exact versions with hashes, of the packages the code reads.
"""

import hashlib
import importlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from decoder import metric_weights
from decoder.i3d import I3D
from decoder.metric_weights import ALEXNET_FILE, I3D_FILE, WeightFile, i3d_state, read_arrays, unpickle_arrays
from jepa.errors import CheckpointError, ConfigError

I3D_SHAPES = {key: tuple(value.shape) for key, value in I3D().state_dict().items()}


class Code:
    """Pickles as a call of `eval`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.path)!r}, 'w')",)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package whose import fails."""
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


def test_a_missing_package_names_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"no_such_package/a\.ckpt is not installed: run `make metrics`"):
        read_arrays(WeightFile("no_such_package", "a.ckpt", ""))


def known(package: Path, content: bytes) -> WeightFile:
    (package / "w.ckpt").write_bytes(content)
    return WeightFile(package.name, "w.ckpt", hashlib.sha256(content).hexdigest())


def test_a_file_is_read_without_its_package(package: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = read_arrays(known(package, pickle.dumps({"a": {"b": array}, "c": array[0]}, protocol=4)))
    assert list(found) == ["a/b", "c"] and np.array_equal(found["a/b"], array) and np.array_equal(found["c"], array[0])
    assert package.name not in sys.modules


def test_another_content_is_refused_by_name(package: Path) -> None:
    file = known(package, pickle.dumps({"a": np.zeros(2)}, protocol=4))
    (package / "w.ckpt").write_bytes(pickle.dumps({"a": np.ones(2)}, protocol=4))
    with pytest.raises(CheckpointError, match=r"some_weights/w\.ckpt is not the known file"):
        read_arrays(file)
    with pytest.raises(CheckpointError, match=r"holds no dictionary at 'a/'"):
        read_arrays(known(package, pickle.dumps({"a": 3})))


def test_code_is_refused_and_does_not_run(tmp_path: Path, package: Path) -> None:
    trace = tmp_path / "ran"
    content = pickle.dumps({"params": Code(trace)})
    with pytest.raises(CheckpointError, match=r"w\.ckpt is not a pickle of numpy arrays: it asks for builtins\.eval"):
        unpickle_arrays(content, "w.ckpt")
    with pytest.raises(CheckpointError, match=r"builtins\.eval"):  # even where the hash is that of this file
        read_arrays(known(package, content))
    assert not trace.exists()
    pickle.loads(content)  # the same bytes do harm in other hands
    assert trace.exists()


def test_arrays_are_all_known_and_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {}
    for ours, theirs in metric_weights._i3d_names().items():
        out, *rest = I3D_SHAPES[f"{ours}.weight"]
        arrays[f"params/{theirs}/Conv_0/kernel"] = np.zeros((*rest[1:], rest[0], out), np.float32)
        if ours == "logits":
            arrays[f"params/{theirs}/Conv_0/bias"] = np.zeros(out, np.float32)
            continue
        arrays[f"params/{theirs}/BatchNorm_0/bias"] = np.zeros(out, np.float32)
        for key in ("mean", "var"):
            arrays[f"batch_stats/{theirs}/BatchNorm_0/{key}"] = np.ones((1, 1, 1, 1, out), np.float32)
    assert len(arrays) == 230
    monkeypatch.setattr(metric_weights, "read_arrays", lambda _: dict(arrays))
    assert {key: tuple(value.shape) for key, value in i3d_state().items()} == I3D_SHAPES
    arrays["params/new"] = np.zeros(1)
    with pytest.raises(CheckpointError, match="1 arrays are not known, the first params/new"):
        i3d_state()
    del arrays["batch_stats/Mixed_5c/Branch_3/Conv3d_0b_1x1/BatchNorm_0/var"]
    with pytest.raises(CheckpointError, match="missing batch_stats/Mixed_5c/Branch_3/Conv3d_0b_1x1/BatchNorm_0/var"):
        i3d_state()


def test_the_pins_are_those_that_are_read() -> None:
    pins = (Path(__file__).parents[2] / "requirements-metrics.txt").read_text()
    for file in (I3D_FILE, ALEXNET_FILE):
        assert re.search(rf"^{file.package.replace('_', '-')}==[\d.]+ \\\n +--hash=sha256:[0-9a-f]{{64}}$", pins, re.M)
