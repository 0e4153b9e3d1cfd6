"""Settings as dataclasses, merged from YAML and `key=value` words by OmegaConf.

An unknown key, a wrong type or a missing file is one `ConfigError` that names it and, for a key, the nearest known one.
Nothing is read with `.get`: what is not declared here, or in the schema of an entry point, does not exist. No file can
run code (YAML's safe loader), and one that came with a model cannot read the environment either (`stored_settings`).
"""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasEvent, SafeLoader, YAMLError, parse

from jepa.errors import ConfigError
from jepa.files import write_text

Schema = TypeVar("Schema")


@dataclass
class EncoderConfig:
    """Video ViT.

    position        rope, sincos, or both (rope+sincos).
    position_grid   sincos: [t, h, w] of the tokens that weights were trained with, whose table is then resized to other
                    grids, as V-JEPA 1 does; empty: every grid has its own table.
    rope            standard, or vjepa2 for its checkpoints, which were trained with something that is not a rotation.
    init            xavier: the patch embedding starts as MAE's, and mask tokens are drawn; vjepa: as released, the
                    patch embedding from a normal of std .02, and mask tokens zero.
    """

    embed_dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    patch_size: int = 16
    tubelet_size: int = 2
    in_channels: int = 3
    position: str = "rope"
    position_grid: list[int] = field(default_factory=list)
    rope: str = "standard"
    init: str = "xavier"

    @property
    def patch_dim(self) -> int:
        """Pixel values of one token."""
        return self.in_channels * self.tubelet_size * self.patch_size**2


@dataclass
class PredictorConfig:
    """Narrow transformer; its positions follow the encoder's.

    num_mask_tokens     learned: 1, or one for each entry of a run's `masks`.
    token_per           mask: each entry of `masks` trains its own mask token (V-JEPA 1). length: each length of clip
                        does, and a run has one, so that all train the first (V-JEPA 2, whose other nine stay zero).
    mask_index          the mask token that tasks are predicted with. V-JEPA 1 was trained with one for small blocks and
                        one for large ones, and predicts with the second: 1.
    """

    embed_dim: int = 192
    depth: int = 6
    num_heads: int = 6
    mlp_ratio: float = 4.0
    num_mask_tokens: int = 1
    token_per: str = "mask"
    mask_index: int = 0


@dataclass
class JEPAConfig:
    """The method. Everything after `target_norm` is off by default.

    targets             latents; or pixels: the opponent that predicts the hidden pixels themselves (as VideoMAE does,
                        arXiv 2203.12602) with the same encoder, predictor and masks.
    target_norm         layer: non-affine layer norm of every target token (V-JEPA; of a patch, VideoMAE); batch: each
                        channel standardised over the batch's tokens (at evaluation, over the running average of
                        batches); none.
    context_loss        weight of the loss on visible tokens, each divided by sqrt(distance to the nearest target)
                        (V-JEPA 2.1).
    regulariser         none, sigreg (LeJEPA) or vicreg (variance and covariance), on the context encoder's tokens.
    one_encoder         context and target encoder are the same weights, held once: a model published with one of them.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    targets: str = "latents"
    target_norm: str = "layer"
    context_loss: float = 0.0
    regulariser: str = "none"
    regulariser_weight: float = 0.0
    one_encoder: bool = False


def choose(key: str, value: str, known: tuple[str, ...]) -> str:
    """`value` if it is one of `known`, else a ConfigError that names the nearest."""
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{key} is {value!r}, which is not one of {', '.join(known)}{hint}")
    return value


def within(key: str, value: float, low: float, high: float) -> None:
    """ConfigError unless low <= value <= high: beyond that no model was ever meant, and building one would not end."""
    if not low <= value <= high:
        raise ConfigError(f"{key} is {value}: give {low} to {high}")


def check_sizes(name: str, embed_dim: int, depth: int, num_heads: int, mlp_ratio: float) -> None:
    """`within`, for a stack of transformer blocks that is called `name`."""
    for key, value in (("embed_dim", embed_dim), ("num_heads", num_heads)):
        within(f"{name}.{key}", value, 1, 100_000)
    within(f"{name}.depth", depth, 0, 1000)
    within(f"{name}.mlp_ratio", mlp_ratio, 1 / embed_dim, 100)


def check_tokens(name: str, patch_size: int, tubelet_size: int, in_channels: int) -> None:
    """`within`, for the tokens of a model that is called `name`."""
    for key, value in (("patch_size", patch_size), ("tubelet_size", tubelet_size), ("in_channels", in_channels)):
        within(f"{name}.{key}", value, 1, 1000)


def load_config(schema: type[Schema], path: str | Path | None = None, overrides: list[str] | None = None) -> Schema:
    """The schema's defaults, then the YAML file, then `key=value` words (dotted keys), as an instance of the schema.

    A schema with `of_preset` starts from `of_preset(name)` where file or words give `preset: name`.
    """
    merged, loaded = OmegaConf.structured(schema), cast(Any, OmegaConf.create({}))
    if path is not None:
        file = Path(path)
        if not file.is_file():
            raise ConfigError(f"{file}: no such config file")
        loaded = _read_yaml(file)
    of_preset = getattr(schema, "of_preset", None)
    named = [word.partition("=")[2] for word in overrides or [] if word.startswith("preset=")]
    name = named[-1] if named else OmegaConf.is_dict(loaded) and loaded.get("preset")
    if of_preset is not None and name:
        merged = OmegaConf.structured(of_preset(str(name)))
    merged = _merge(schema, merged, loaded, str(path))
    return _finished(schema, merged, overrides or [])


def changed(config: Schema, words: Sequence[str]) -> Schema:
    """A copy of a config instance with `key=value` words applied; ConfigError as for `load_config`."""
    return _finished(type(config), OmegaConf.structured(config), words)


def _finished(schema: type[Schema], merged: Any, words: Sequence[str]) -> Schema:
    """The instance of settings with `key=value` words on top; nothing may be missing."""
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value")
        try:
            parsed = OmegaConf.from_dotlist([word if value else f"{key}=''"])  # YAML would read nothing as null
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{word!r} has a value that is not valid YAML: {' '.join(str(error).split())}") from None
        merged = _merge(schema, merged, parsed, "the command line")
    try:
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise ConfigError(f"{sorted(missing)[0]} must be given, as {sorted(missing)[0]}=...")
        finished = cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:  # an interpolation ${...} of what does not exist
        raise ConfigError(f"{error.full_key or 'a value'}: {_reason(error)}") from None
    for required in dataclasses.fields(cast(Any, schema)):
        if required.default == MISSING and getattr(finished, required.name) == "":  # an empty variable of a shell
            raise ConfigError(f"{required.name} is empty: it must be given, as {required.name}=...")
    for dotted, setting in _flat("", dataclasses.asdict(cast(Any, finished))).items():
        if any(isinstance(part, float) and not math.isfinite(part) for part in _parts(setting)):
            raise ConfigError(f"{dotted} is {setting}: give a finite number")
    return finished


def _parts(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def stored_settings(file: Path) -> dict[str, Any]:
    """The settings that a run or an import left in `file`, as plain values; none where there is no such file.

    ConfigError where it is damaged, or asks for ${...}: it may have come with a model, and what it would read is the
    environment of whoever uses that.
    """
    if not file.is_file():
        return {}
    found = OmegaConf.to_container(_read_yaml(file))
    if not isinstance(found, dict):
        raise ConfigError(f"{file} must be a table of settings, not a {type(found).__name__}")
    check_plain(found, file)
    return cast(dict[str, Any], found)


def check_plain(settings: object, source: str | Path) -> None:
    """ConfigError where a value of stored settings is an interpolation."""
    if "${" in str(settings):
        raise ConfigError(f"{source} asks for ${{...}}, where stored settings hold plain values: write the value there")


def _read_yaml(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        if any(isinstance(event, AliasEvent) for event in parse(text, SafeLoader)):  # a few lines of them fill memory
            raise ConfigError(f"{file} repeats a part by *name: write it out, or take a value from a key with ${{key}}")
        return OmegaConf.load(file)
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{file} is not valid YAML for settings: it is nested too deeply") from None
    except (YAMLError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        if error.filename is not None:
            raise
        raise ConfigError(f"{file} must be a table of settings, not a single value") from None


def save_config(config: object, path: str | Path) -> None:
    """Write a config instance as YAML that `load_config` reads back to an equal one."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def differences(before: object, now: object, ignore: Sequence[str] = ()) -> dict[str, tuple[object, object]]:
    """{dotted key: (before, now)} where two nested tables of settings differ; None stands for what is not there.

    Keys that match a pattern of `ignore` (as file names do: data.cache*) may differ.
    """
    one, other = _flat("", before), _flat("", now)
    keys = (key for key in {**one, **other} if not any(fnmatchcase(key, pattern) for pattern in ignore))
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def _flat(key: str, value: object) -> dict[str, object]:
    """{"a.b": 1, "c[0].d": 2} of {"a": {"b": 1}, "c": [{"d": 2}]}; a list of plain values is a value."""
    if isinstance(value, dict) and (value or not key):
        parts = {f"{key}.{name}".lstrip("."): part for name, part in value.items()}
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        parts = {f"{key}[{place}]": part for place, part in enumerate(value)}
    else:
        return {key: value}
    return {name: leaf for inner, part in parts.items() for name, leaf in _flat(inner, part).items()}


def _merge(schema: type, base: Any, extra: Any, source: str) -> Any:
    _refuse_unknown(schema, OmegaConf.to_container(extra), source, prefix="")
    try:
        return OmegaConf.merge(base, extra)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'a value'} in {source}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _refuse_unknown(schema: type, node: object, source: str, prefix: str) -> None:
    if not isinstance(node, dict):
        raise ConfigError(f"{prefix.rstrip('.') or 'the file'} in {source} must be a table of settings, not {node!r}")
    hints = get_type_hints(schema)
    for key, value in node.items():
        if str(key) not in hints:
            known = [f"{prefix}{name}" for name in hints]
            near = difflib.get_close_matches(f"{prefix}{key}", [*known, *_all_keys(schema, prefix)], n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown key {prefix}{key} in {source}{hint}")
        kind = hints[str(key)]
        item = next((a for a in get_args(kind) if dataclasses.is_dataclass(a)), None)
        if dataclasses.is_dataclass(kind) and value not in (None, MISSING):
            _refuse_unknown(cast(type, kind), value, source, f"{prefix}{key}.")
        elif get_origin(kind) is list and isinstance(value, dict):
            raise ConfigError(f"{prefix}{key} in {source} is a list: give the whole of it, as {prefix}{key}=[...]")
        elif get_origin(kind) is list and item is None and any(isinstance(part, dict | list) for part in _parts(value)):
            raise ConfigError(f"{prefix}{key} in {source} is {value!r}: give a list of plain values")
        elif item is not None and isinstance(value, list):
            for i, entry in enumerate(value):
                _refuse_unknown(cast(type, item), entry, source, f"{prefix}{key}[{i}].")


def _all_keys(schema: type, prefix: str = "") -> list[str]:
    keys = []
    for name, kind in get_type_hints(schema).items():
        keys.append(f"{prefix}{name}")
        if dataclasses.is_dataclass(kind):
            keys += _all_keys(cast(type, kind), f"{prefix}{name}.")
    return keys
