"""Weights in and out: `safetensors` with a JSON config to share, Lightning checkpoints to resume.

Every load is strict: a checkpoint that does not fit says which keys and shapes differ, and stops, before a model of the
size it claims is made. Nothing here unpickles code, and of a Hub repository only JSON and safetensors are ever asked
for, all of one commit, which is said.
"""

import json
import logging
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

from jepa.config import check_plain
from jepa.errors import CheckpointError
from jepa.files import replacing, write_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"
COMMIT = re.compile("[0-9a-f]{40}")
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
    OverflowError,
    RecursionError,
)

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


def load_strict(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """`model.load_state_dict(state)`, where keys and shapes agree exactly; else a CheckpointError naming them."""
    state = _with_twins(model, state)
    check_fit(model, state, source)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # tensors of a layout that cannot be copied
        raise CheckpointError(f"{source} holds weights that cannot be taken over: {_first_line(error)}") from None


def _with_twins(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {twin: state[key] for twin, key in _twins(model).items() if key in state} | state


def _twins(model: nn.Module) -> dict[str, str]:
    """{name: first name} of parameters that a model holds under two names; only the first is stored."""
    names = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    return {name: first[id(p)] for name, p in names.items() if first.setdefault(id(p), name) != name}


def check_fit(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """CheckpointError, naming keys and shapes, unless `state` is one of this architecture."""
    own = model.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source} holds no table of weights")
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems += [
        f"{key} is of {state[key].dtype} there and of {own[key].dtype} here"
        for key in own
        if key in state and state[key].is_floating_point() != own[key].is_floating_point()
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
    options = pinned(model_id, options or {})
    config_file, weights_file = (locate(model_id, name, options) for name in (CONFIG, WEIGHTS))
    return _loaded(cls, schema, read_json(config_file), read_tensors(weights_file), config_file, weights_file)


def read_json(file: Path) -> dict[str, Any]:
    """The table in a JSON file; CheckpointError where it is something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds no config: a {type(found).__name__} is in it, not a table")
    return found


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        return load_file(file)
    except (SafetensorError, *BROKEN) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise CheckpointError(f"{file} is not a readable safetensors file: {_first_line(error)}") from None


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
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or "config" not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of a run: it lacks its config or its weights")
    state = {k.removeprefix(prefix): v for k, v in state.items() if isinstance(k, str) and k.startswith(prefix)}
    return _loaded(cls, schema, checkpoint["config"], state, path, path)


def kind_of(path: str | Path) -> str:
    """What lies at `path`: jepa, decoder, pixels or futures. CheckpointError where it is nothing of ours."""
    path = shipped(path)
    if not path.is_dir():
        kind = read_checkpoint(path).get("kind")
        if not isinstance(kind, str):
            raise CheckpointError(f"{path} is the checkpoint of something else than a model of this project")
        return kind
    config = locate(str(path), CONFIG, {})
    keys = read_json(config).keys()
    for kind, key in (("jepa", "predictor"), ("pixels", "tokens"), ("decoder", "dit"), ("futures", "size")):
        if key in keys:
            return kind
    raise CheckpointError(f"{config} is not the config of a model of this project")


def pinned(model_id: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` with the commit that the revision of a Hub repository stands for now; which one that is, is logged.

    A branch or a tag may be moved, between two files of one model even; the hash of a commit is taken as it is.
    """
    if Path(model_id).is_dir() or COMMIT.fullmatch(options.get("revision") or ""):
        return options
    commit = locate(model_id, CONFIG, options).parent.name  # of the Hub's cache: snapshots/<commit>/config.json
    if not COMMIT.fullmatch(commit):
        return options
    log.warning("%s is taken at commit %s: give revision=%s to get the same again", model_id, commit, commit)
    return {**options, "revision": commit}


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


def _loaded(
    cls: type[Model], schema: type, settings: Any, state: dict[str, Tensor], config_file: Path, weights_file: Path
) -> Model:
    """The model of stored settings with stored weights, in evaluation mode."""
    try:
        check_plain(settings, config_file)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), settings))
        with torch.device("meta"):  # nothing is allocated: a config may claim any size
            shape = cls(config)
    except (OmegaConfBaseException, *BROKEN) as error:
        reason = f"{config_file} holds no config of a {cls.__name__} of this version: {_first_line(error)}"
        raise CheckpointError(reason) from None
    check_fit(shape, _with_twins(shape, state), weights_file)
    model = cls(config)
    load_strict(model, state, weights_file)
    return model.eval()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
