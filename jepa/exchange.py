"""`jepa import` and `jepa export`: official models in and out of this project's folders.

    jepa import facebook/vjepa2-vitl-fpc64-256 out=models/vjepa2-l     # a hub name, or a folder of transformers' format
    jepa import vitl16.pth.tar out=models/vjepa1-l                     # Meta's own files, V-JEPA 1 and 2
    jepa export models/vjepa2-l format=transformers out=exported       # and back

A folder that was imported holds config.json and model.safetensors, config.yaml with the clips the model is for (what
`jepa train-decoder` takes where `data` does not say otherwise), and classifier/ where one came along.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from jepa.attentive import AttentiveClassifier
from jepa.checkpoints import Imported, read_official, read_transformers, write_official, write_transformers
from jepa.config import ConfigError, choose, stored_settings
from jepa.files import replacing, write_text
from jepa.jepa import JEPA
from jepa.weights import CONFIG, WEIGHTS, CheckpointError, locate, pinned, read_checkpoint, read_json, read_tensors

INDEX = "model.safetensors.index.json"
FORMATS = ("transformers", "official")
SHORTER_SIDE = 256 / 224  # official evaluation: shorter side of the frame over the side of the crop


@dataclass
class ImportConfig:
    """Everything `jepa import` reads.

    source      a hub name or folder of transformers' format, or a file of Meta's.
    revision    of a hub repository: a commit, a tag or a branch, of which it is said what commit that is now.
    family      vjepa1 or vjepa2, for Meta's files; auto: by their tables of positions and mask tokens.
    num_heads   of the encoder's attention, and `predictor_heads`, for files of a size that is not official; 0: as the
                official ones.
    head        which of the classifiers, for a file of an evaluation that kept several.
    size, num_frames    of the clips the model is for; 0: as the file says, or else 256 and 16.
    """

    source: str = "???"
    out: str = "???"
    revision: str = ""
    family: str = "auto"
    num_heads: int = 0
    predictor_heads: int = 0
    head: int = 0
    size: int = 0
    num_frames: int = 0


@dataclass
class ExportConfig:
    """Everything `jepa export` reads.

    model       a folder or checkpoint of this project.
    format      transformers (a folder) or official (one file, as Meta's training saves it).
    encoder     which of the two encoders transformers is given, which knows one: target or context.
    size, num_frames    of the clips, by which transformers reckons places; 0: as config.yaml beside the model says.
    """

    model: str = "???"
    out: str = "???"
    format: str = "transformers"
    encoder: str = "target"
    size: int = 0
    num_frames: int = 0


def import_model(config: ImportConfig) -> Imported:
    """Read what `source` names and write it to the folder `out`; CheckpointError where it does not fit."""
    out = Path(config.out)
    found = read_foreign(config)
    for part, folder in ((found.model, out), (found.classifier, out / "classifier")):
        if part is not None and (folder / WEIGHTS).exists():
            raise ConfigError(f"{folder} already holds a model: give another out=")
    print(f"{config.source}: {found.words}")
    if found.model is not None:
        if not config.size and not found.size:
            print(
                "the file does not say which clips it was trained on: 16 frames of 256 x 256 are taken; "
                "if they were others, give size=... and num_frames=..."
            )
        found.model.save_pretrained(out)
        write_text(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create({"data": _clips(found, config)})))
    if found.classifier is not None:
        found.classifier.save_pretrained(out / "classifier")
    return found


def read_foreign(config: ImportConfig) -> Imported:
    """What `source` names, as ours; nothing is written."""
    source = Path(config.source)
    if source.suffix == ".safetensors":
        raise CheckpointError(f"{source}: give the folder, which has the config.json that says what these weights are")
    if source.is_file():
        heads = config.num_heads, config.predictor_heads
        return read_official(read_checkpoint(source), str(source), config.family, *heads, config.head)
    if source.suffix in (".pt", ".pth", ".tar") or (config.source.startswith((".", "/", "~")) and not source.is_dir()):
        raise CheckpointError(f"{source}: no such file or folder")
    options = pinned(config.source, {"revision": config.revision} if config.revision else {})
    settings = read_json(locate(config.source, CONFIG, options))
    if {"encoder", "predictor"} <= settings.keys():
        raise CheckpointError(f"{config.source} is a model of this project already: give it where a model is asked for")
    if settings.get("model_type") != "vjepa2":
        kind = settings.get("model_type", "one of no model_type")
        raise CheckpointError(f"{config.source} holds a model of transformers, {kind}: only vjepa2 is known here")
    return read_transformers(settings, _tensors(config.source, options), config.source)


def export_model(config: ExportConfig) -> Path:
    """Write a model of ours to `out` in a foreign format; returns where."""
    model, out, folder = JEPA.load(config.model), Path(config.out), Path(config.model)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty: give another out=")
    if choose("format", config.format, FORMATS) == "official":
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as part:
            torch.save(write_official(model), part)
        return out
    clips = _stored_clips(folder)
    frames, size = config.num_frames or clips.get("num_frames", 16), config.size or clips.get("size", [0])[0]
    if not size:
        raise ConfigError(
            "transformers reckons places by the size of the clips, and nothing beside the model says it: give size=..."
        )
    head = folder / "classifier"
    classifier = AttentiveClassifier.from_pretrained(head) if head.is_dir() else None
    settings, tensors = write_transformers(model, frames, size, config.encoder, classifier)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CONFIG, json.dumps(settings, indent=2) + "\n")
    write_text(out / "video_preprocessor_config.json", json.dumps(_preprocessor(size), indent=2) + "\n")
    with replacing(out / WEIGHTS) as part:
        save_file(tensors, part, metadata={"format": "pt"})
    return out


def _clips(found: Imported, config: ImportConfig) -> dict[str, Any]:
    """Settings of `data` for the clips a model is for; V-JEPA 2's where nothing says otherwise."""
    size = config.size or found.size or 256
    rate = {"stride": 4} if found.words.startswith("V-JEPA 1") else {"fps": 4.0}
    return {"num_frames": config.num_frames or found.num_frames or 16, **rate, "size": [size, size]}


def _stored_clips(model: Path) -> dict[str, Any]:
    """`data` of the config.yaml in a model's folder, or beside a checkpoint."""
    file = (model if model.is_dir() else model.parent) / "config.yaml"
    clips = stored_settings(file).get("data", {})
    if not isinstance(clips, dict):
        raise ConfigError(f"data in {file} must be a table of settings, not {clips!r}")
    return clips


def _preprocessor(size: int) -> dict[str, Any]:
    crop = {"height": size, "width": size}
    return {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": crop,
            "size": {"shortest_edge": int(size * SHORTER_SIDE)}}  # fmt: skip


def _tensors(source: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """All weights of a folder or repository, in one file or in several that an index names."""
    try:
        files = [locate(source, WEIGHTS, options)]
    except CheckpointError as error:
        try:
            where = locate(source, INDEX, options)
        except CheckpointError:
            raise error from None
        names = _parts(where)
        files = [locate(source, name, options) for name in sorted(set(names))]
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_tensors(file)
    return tensors


def _parts(index: Path) -> list[str]:
    """The files that an index names: safetensors beside it, and nothing else anywhere else."""
    parts = read_json(index).get("weight_map")
    names = list(parts.values()) if isinstance(parts, dict) else []
    plain = re.compile(r"[\w-][\w.-]*\.safetensors")
    if not names or not all(isinstance(name, str) and plain.fullmatch(name) for name in names):
        raise CheckpointError(f"{index} does not name the safetensors files beside it")
    return names
