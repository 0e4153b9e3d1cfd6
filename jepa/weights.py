"""Weights in and out: `safetensors` with a JSON config to share, Lightning checkpoints to resume.

Every load is strict: a checkpoint that does not fit says which keys and shapes differ, and stops. Nothing here
unpickles code.
"""

import json
import pickle
import re
import struct
import zipfile
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa.errors import CheckpointError
from jepa.files import replacing, write_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHIPPED = Path(__file__).parent / "shipped"  # models that come with the package: name/kind/
# What torch's reader raises on damaged or foreign bytes, found by damaging some.
BROKEN = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    struct.error,
    OSError,
)

Model = TypeVar("Model", bound=nn.Module)


def load_strict(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """`model.load_state_dict(state)`, where keys and shapes agree exactly; else a CheckpointError naming them."""
    for twin, key in _twins(model).items():
        if key in state:
            state = {twin: state[key], **state}
    check_fit(model, state, source)
    model.load_state_dict(state)


def _twins(model: nn.Module) -> dict[str, str]:
    """{name: first name} of parameters that a model holds under two names; only the first is stored."""
    names = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    return {name: first[id(p)] for name, p in names.items() if first.setdefault(id(p), name) != name}


def check_fit(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """CheckpointError, naming keys and shapes, unless `state` is one of this architecture."""
    own = model.state_dict()
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(f"{source} holds another architecture: {'; '.join(problems[:8])}{more}")


def save_shared(model: nn.Module, config: object, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`; each file appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = asdict(cast(Any, config)) if is_dataclass(config) else config
    # The config first: the hub's mixin has just removed the one that was there, and weights take their time.
    write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")
    twins = _twins(model)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items() if key not in twins}
    with replacing(folder / WEIGHTS) as part:
        save_file(state, part)


def shipped(name: str | Path, kind: str = "jepa") -> Path:
    """The folder of a model of that name and kind that comes with the package; any other path as it is."""
    folder = SHIPPED / Path(name).name / kind
    return folder if str(name) == Path(name).name and folder.is_dir() and not Path(name).exists() else Path(name)


def load_shared(cls: type[Model], schema: type, model_id: str, options: dict[str, Any] | None = None) -> Model:
    """A model of class `cls(config)` from a folder, or from a Hub repository of that name."""
    config_file, weights_file = (locate(model_id, name, options or {}) for name in (CONFIG, WEIGHTS))
    try:
        settings = json.loads(config_file.read_text())
    except ValueError as error:
        raise CheckpointError(f"{config_file} is not JSON: {error}") from None
    model = _build(cls, schema, settings, config_file)
    try:
        state = load_file(weights_file)
    except SafetensorError as error:
        raise CheckpointError(f"{weights_file} is not a readable safetensors file: {error}") from None
    load_strict(model, state, weights_file)
    return model.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A Lightning checkpoint as plain tensors and containers (`weights_only=True`: it cannot execute code)."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        # Mapped, not read: an optimizer that nobody asks for stays on the disk. (Files before torch 1.6 are no zip.)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except BROKEN as error:
        if "allocate" in str(error):
            raise CheckpointError(f"{path} does not fit into memory") from None
        if isinstance(error, OSError) and error.filename:  # no such thing as broken: not allowed, or gone
            raise
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it asks to run {foreign[1]}" if foreign else "it is damaged, or holds more than tensors"
        raise CheckpointError(f"{path} is not a checkpoint that can be read safely: {why}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, and a checkpoint of a run is needed here")
    return found


def load_model(cls: type[Model], schema: type, path: str | Path, kind: str, prefix: str) -> Model:
    """A model from a shared folder, from the Lightning checkpoint of a `kind` run, whose weights carry `prefix`, or one
    that comes with the package, by name."""
    path = shipped(path, kind)
    if path.is_dir():
        return load_shared(cls, schema, str(path))
    checkpoint = read_checkpoint(path)
    if checkpoint.get("kind") != kind:
        found = f"a {checkpoint['kind']}" if "kind" in checkpoint else "something else"
        raise CheckpointError(f"{path} is the checkpoint of {found}, and a {kind} is needed here")
    model = _build(cls, schema, checkpoint["config"], path)
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    load_strict(model, state, path)
    return model.eval()


def kind_of(path: str | Path) -> str:
    """What lies at `path`: jepa, decoder, pixels or futures. CheckpointError where it is nothing of ours."""
    path = shipped(path)
    if not path.is_dir():
        kind = read_checkpoint(path).get("kind")
        if not isinstance(kind, str):
            raise CheckpointError(f"{path} is the checkpoint of something else than a model of this project")
        return kind
    config = locate(str(path), CONFIG, {})
    try:
        keys = set(json.loads(config.read_text()))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{config} is not the config of a model: {error}") from None
    for kind, key in (("jepa", "predictor"), ("pixels", "tokens"), ("decoder", "dit"), ("futures", "size")):
        if key in keys:
            return kind
    raise CheckpointError(f"{config} is not the config of a model of this project")


def locate(model_id: str, name: str, options: dict[str, Any]) -> Path:
    """The file `name` of a folder, or of a Hub repository of that name; CheckpointError where there is none."""
    folder = Path(model_id)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}: give the folder that save_pretrained wrote")
        return folder / name
    keys = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    known = {k: v for k, v in options.items() if k in keys}
    try:
        return Path(hf_hub_download(model_id, name, **known))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{model_id} is neither a folder nor a repository with {name}: {error}") from None


def _build(cls: type[Model], schema: type, settings: Any, source: Path) -> Model:
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), settings))
        return cls(config)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{source} holds no config of a {cls.__name__} of this version: {reason}") from None
