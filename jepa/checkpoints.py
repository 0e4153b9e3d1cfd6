"""Official weights, in and out. Every foreign name of a JEPA lives here, and a test holds the contract.

    found = read_transformers(config, tensors)     # transformers' VJEPA2Model or VJEPA2ForVideoClassification
    found = read_official(torch_file)              # Meta's files, V-JEPA 1 and 2
    found.model                                    # a JEPA

Notable:
- Strict in both directions: a key that is missing, surplus or of another shape stops it, with the list.
- Meta's fixed tables: V-JEPA 1's are dropped only after they were found to equal ours, V-JEPA 2's were never used. To
  1e-3: the moving average went over the table too, and 90,000 roundings have moved it by 6e-5.
- Of V-JEPA 2's ten mask tokens nine were never trained, and are zero: what predicts is the first that is not.
- V-JEPA 2 was trained with a rotary embedding that is not a rotation: its weights need `rope: vjepa2`.
- transformers publishes one encoder. Meta's files hold two: what encodes the context, and its moving average.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jepa.attentive import AttentiveClassifier, ClassifierConfig
from jepa.config import EncoderConfig, JEPAConfig, PredictorConfig, choose
from jepa.grid import Grid
from jepa.jepa import JEPA
from jepa.posembed import sincos3d
from jepa.presets import find_heads
from jepa.weights import CheckpointError, load_strict

Name = tuple[str, tuple[str, ...]]  # ours, and theirs, of which ours are the rows one after the other
State = Mapping[str, Tensor]

FAMILIES = ("auto", "vjepa1", "vjepa2")
OFFICIAL_PARTS = {"context_encoder": "encoder", "predictor": "predictor", "target_encoder": "target_encoder"}
CLASSIFIER_HEADS = 16  # of every official evaluation, whatever the encoder has; no weight shows it
OFFICIAL_PREFIXES = ("module.", "backbone.")
OFFICIAL_TABLES = {"encoder": "pos_embed", "target_encoder": "pos_embed", "predictor": "predictor_pos_embed"}


@dataclass(frozen=True)
class Imported:
    """A model, or the classifier on top of one, or both; and the clips (frames, pixels) they are for, 0 if unknown."""

    words: str
    model: JEPA | None = None
    classifier: AttentiveClassifier | None = None
    num_frames: int = 0
    size: int = 0


# ---------------------------------------------------------------------------------------------------- transformers


def _layers(ours: str, theirs: str, depth: int, rooms: Mapping[str, tuple[str, ...]]) -> Iterator[Name]:
    for i in range(depth):
        for room, names in rooms.items():
            for end in ("weight", "bias"):
                yield f"{ours}.{i}.{room}.{end}", tuple(f"{theirs}.{i}.{name}.{end}" for name in names)


def _rooms(names: Mapping[str, tuple[str, ...]]) -> Iterator[Name]:
    for ours, theirs in names.items():
        for end in ("weight", "bias"):
            yield f"{ours}.{end}", tuple(f"{name}.{end}" for name in theirs)


LAYER = {
    "norm1": ("norm1",),
    "attn.qkv": ("attention.query", "attention.key", "attention.value"),
    "attn.proj": ("attention.proj",),
    "norm2": ("norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
POOLER_LAYER = {
    "norm1": ("layer_norm1",),
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
MASK_TOKENS = "predictor.embeddings.mask_tokens"  # (count, 1, 1, width), where ours are count times (1, 1, width)


def transformers_names(config: JEPAConfig) -> list[Name]:
    """What transformers calls every weight of a JEPA with one encoder, but for the mask tokens."""
    ends = {
        "context_encoder.patch_embed.proj": ("encoder.embeddings.patch_embeddings.proj",),
        "context_encoder.norm": ("encoder.layernorm",),
        "predictor.predictor_embed": ("predictor.embeddings.predictor_embeddings",),
        "predictor.predictor_norm": ("predictor.layernorm",),
        "predictor.predictor_proj": ("predictor.proj",),
    }
    return [
        *_rooms(ends),
        *_layers("context_encoder.blocks", "encoder.layer", config.encoder.depth, LAYER),
        *_layers("predictor.predictor_blocks", "predictor.layer", config.predictor.depth, LAYER),
    ]


def classifier_names(config: ClassifierConfig) -> list[Name]:
    """What transformers calls every weight of the classifier."""
    cross, layer = "pooler.cross_attention_block", "pooler.cross_attention_layer"
    ends = {
        f"{cross}.norm1": (f"{layer}.layer_norm1",),
        f"{cross}.xattn.q": (f"{layer}.cross_attn.q_proj",),
        f"{cross}.xattn.kv": (f"{layer}.cross_attn.k_proj", f"{layer}.cross_attn.v_proj"),
        f"{cross}.norm2": (f"{layer}.layer_norm2",),
        f"{cross}.mlp.fc1": (f"{layer}.mlp.fc1",),
        f"{cross}.mlp.fc2": (f"{layer}.mlp.fc2",),
        "linear": ("classifier",),
    }
    blocks = _layers("pooler.blocks", "pooler.self_attention_layers", config.depth, POOLER_LAYER)
    return [("pooler.query_tokens", ("pooler.query_tokens",)), *_rooms(ends), *blocks]


def read_transformers(config: Mapping[str, Any], tensors: State, source: str = "VJEPA2Model") -> Imported:
    """The weights of a `VJEPA2Model` or a `VJEPA2ForVideoClassification`; `config`: what their config.json says."""
    values = {**TRANSFORMERS_DEFAULTS, **{k: v for k, v in config.items() if v is not None}}
    for key, value in FIXED.items():
        if values[key] != value:
            raise CheckpointError(f"{source}: {key} is {values[key]!r}, and only {value!r} is known here")
    settings = _transformers_settings(values)
    state, head = dict(tensors), {}
    if any(key.startswith("vjepa2.") for key in state):
        head = {key: value for key, value in state.items() if not key.startswith("vjepa2.")}
        state = {key.removeprefix("vjepa2."): value for key, value in state.items() if key.startswith("vjepa2.")}
    tokens = state.pop(MASK_TOKENS, None)
    if tokens is None:
        raise CheckpointError(f"{source} holds another architecture: missing {MASK_TOKENS}")
    taken = _renamed(transformers_names(settings), state, source)
    taken |= {f"predictor.mask_tokens.{j}": token for j, token in enumerate(tokens)}
    settings.predictor.mask_index = _trained_token(list(tokens))
    model = JEPA(settings)
    load_strict(model, taken, source)
    classifier = None
    if head:
        rows = head.get("classifier.bias", torch.empty(0))
        eps, depth = values["layer_norm_eps"], values["num_pooler_layers"]
        width, heads = settings.encoder.embed_dim, settings.encoder.num_heads
        names = {int(i): str(label) for i, label in (values.get("id2label") or {}).items()}
        labels = [names[i] for i in sorted(names)] if len(names) == len(rows) else []
        classifier = AttentiveClassifier(ClassifierConfig(width, heads, depth, len(rows), eps=eps, labels=labels))
        load_strict(classifier, _renamed(classifier_names(classifier.config), head, source), source)
    return Imported(_words("V-JEPA 2", settings), model.eval(), classifier and classifier.eval(),
                    values["frames_per_clip"], values["crop_size"])  # fmt: skip


def write_transformers(
    model: JEPA, num_frames: int, size: int, encoder: str = "target", classifier: AttentiveClassifier | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config.json, tensors) that transformers reads; CheckpointError for what it cannot compute."""
    settings = model.config
    if settings.encoder.position != "rope" or settings.encoder.rope != "vjepa2" or settings.targets != "latents":
        raise CheckpointError(
            "transformers knows V-JEPA 2's positions alone (position: rope, rope: vjepa2), "
            f"and this model has position: {settings.encoder.position}, rope: {settings.encoder.rope}"
        )
    part = getattr(model, f"{choose('encoder', encoder, ('target', 'context'))}_encoder")
    state = {f"context_encoder.{key}": value for key, value in part.state_dict().items()}
    state |= {f"predictor.{key}": value for key, value in model.predictor.state_dict().items()}
    tensors = dict(_split(transformers_names(settings), state))
    tensors[MASK_TOKENS] = torch.stack([token.detach() for token in model.predictor.mask_tokens])
    config = transformers_config(settings, num_frames, size)
    config["architectures"] = ["VJEPA2Model"]
    if classifier is not None:
        _check_classifier(classifier.config, settings)
        head = dict(_split(classifier_names(classifier.config), classifier.state_dict()))
        tensors = {f"vjepa2.{key}": value for key, value in tensors.items()} | head
        config["architectures"] = ["VJEPA2ForVideoClassification"]
        config["num_pooler_layers"] = classifier.config.depth
        labels = classifier.config.labels or [f"LABEL_{i}" for i in range(classifier.config.num_classes)]
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    return config, tensors


def _check_classifier(head: ClassifierConfig, settings: JEPAConfig) -> None:
    """CheckpointError where transformers would compute something else from the classifier's weights."""
    theirs = {"num_heads": settings.encoder.num_heads, "mlp_ratio": 4.0, "eps": FIXED["layer_norm_eps"]}
    for key, value in theirs.items():
        found = getattr(head, key)
        if found != value and not (key == "mlp_ratio" and int(head.embed_dim * found) == 4 * head.embed_dim):
            raise CheckpointError(
                f"the classifier has {key} {found}, and transformers computes with {value}: its answers would "
                "be others; move classifier/ away to export the model alone"
            )


FIXED = {"layer_norm_eps": 1e-6, "hidden_act": "gelu", "qkv_bias": True}
TRANSFORMERS_DEFAULTS = FIXED | {
    "patch_size": 16, "crop_size": 256, "frames_per_clip": 64, "tubelet_size": 2, "in_chans": 3, "hidden_size": 1024,
    "num_attention_heads": 16, "num_hidden_layers": 24, "mlp_ratio": 4.0, "num_pooler_layers": 3,
    "pred_hidden_size": 384, "pred_num_attention_heads": 12, "pred_num_hidden_layers": 12, "pred_num_mask_tokens": 10,
    "pred_mlp_ratio": 4.0,
}  # fmt: skip
ENCODER_KEYS = {
    "embed_dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads",
    "mlp_ratio": "mlp_ratio", "patch_size": "patch_size", "tubelet_size": "tubelet_size", "in_channels": "in_chans",
}  # fmt: skip
PREDICTOR_KEYS = {
    "embed_dim": "pred_hidden_size", "depth": "pred_num_hidden_layers", "num_heads": "pred_num_attention_heads",
    "mlp_ratio": "pred_mlp_ratio", "num_mask_tokens": "pred_num_mask_tokens",
}  # fmt: skip


def _transformers_settings(values: Mapping[str, Any]) -> JEPAConfig:
    encoder = EncoderConfig(**{ours: values[theirs] for ours, theirs in ENCODER_KEYS.items()}, rope="vjepa2")
    predictor = PredictorConfig(**{ours: values[theirs] for ours, theirs in PREDICTOR_KEYS.items()}, token_per="length")
    return JEPAConfig(replace(encoder, init="vjepa"), predictor, one_encoder=True)


def transformers_config(settings: JEPAConfig, num_frames: int = 64, size: int = 256) -> dict[str, Any]:
    """What a `VJEPA2Config` of these sizes says."""
    encoder = {theirs: getattr(settings.encoder, ours) for ours, theirs in ENCODER_KEYS.items()}
    predictor = {theirs: getattr(settings.predictor, ours) for ours, theirs in PREDICTOR_KEYS.items()}
    clips = {"frames_per_clip": num_frames, "crop_size": size}
    return {"model_type": "vjepa2", **TRANSFORMERS_DEFAULTS, **encoder, **predictor, **clips}


def _renamed(names: list[Name], state: State, source: str) -> dict[str, Tensor]:
    """Ours from theirs; CheckpointError with the list of what is missing or surplus."""
    known = {name for _, theirs in names for name in theirs}
    problems = [f"missing {name}" for name in known if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in known]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(f"{source} holds another architecture: {'; '.join(sorted(problems)[:8])}{more}")
    try:
        return {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in names}
    except RuntimeError as error:  # queries, keys and values of different widths
        raise CheckpointError(f"{source} holds another architecture: {error}") from None


def _split(names: list[Name], state: State) -> Iterator[tuple[str, Tensor]]:
    for ours, theirs in names:
        for name, rows in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            yield name, rows.detach().cpu().contiguous().clone()


# ------------------------------------------------------------------------------------------------- Meta's own files


def read_official(checkpoint: Mapping[str, Any], source: str = "the checkpoint", family: str = "auto",
                  num_heads: int = 0, predictor_heads: int = 0, head: int = 0) -> Imported:  # fmt: skip
    """A released file as `jepa.weights.read_checkpoint` reads it: a model (`encoder`, `predictor`, `target_encoder`;
    whatever else it holds, an optimizer say, is left) or the classifiers of an evaluation (`classifiers[head]`).

    `family`: vjepa1 or vjepa2; auto: V-JEPA 1 where tables of positions are stored and there are two mask tokens.
    `num_heads`, `predictor_heads`: of the attention, which no weight shows; 0: as the official model of that size has.
    """
    if "classifiers" in checkpoint or "classifier" in checkpoint:
        return _official_classifier(checkpoint, source, num_heads, head)
    parts, tables = {}, {}
    for ours, theirs in OFFICIAL_PARTS.items():
        if not isinstance(checkpoint.get(theirs), Mapping):
            held = ", ".join(list(map(str, checkpoint))[:8]) or "nothing"
            raise CheckpointError(f"{source} has no {theirs}: it holds {held}")
        parts[ours] = _bare(checkpoint[theirs])
        tables[theirs] = parts[ours].pop(OFFICIAL_TABLES[theirs], None)
    config = _official_config(parts, source, num_heads)
    if predictor_heads:
        config.predictor.num_heads = predictor_heads
    stored = {f"{name}.{OFFICIAL_TABLES[name]}": table for name, table in tables.items() if table is not None}
    if choose("family", family, FAMILIES) == "auto":
        family = "vjepa1" if stored and config.predictor.num_mask_tokens == 2 else "vjepa2"
    grid = None
    if family == "vjepa1":
        for name, table in stored.items():
            grid = _grid_of(table, name, grid)
        config.encoder.position, config.encoder.rope = "sincos", "standard"
        config.encoder.position_grid = list(grid) if grid else []
        config.predictor.num_heads = predictor_heads or config.encoder.num_heads
        config.predictor.mask_index = min(1, config.predictor.num_mask_tokens - 1)
    else:
        for name, table in stored.items():  # never used, but of the clips that the model was for
            with suppress(CheckpointError):
                grid = _grid_of(table, name, grid)
        tokens = [parts["predictor"].get(f"mask_tokens.{j}") for j in range(config.predictor.num_mask_tokens)]
        config.predictor.token_per = "length"
        config.predictor.mask_index = _trained_token([token for token in tokens if token is not None])
    model = JEPA(config)
    for ours, theirs in OFFICIAL_PARTS.items():
        load_strict(model.get_submodule(ours), parts[ours], f"{source}: {theirs}")
    encoder = config.encoder
    frames, size = (grid.t * encoder.tubelet_size, grid.h * encoder.patch_size) if grid else (0, 0)
    words = _words("V-JEPA 1" if family == "vjepa1" else "V-JEPA 2", config)
    return Imported(words, model.eval(), None, frames, size)


def write_official(model: JEPA) -> dict[str, dict[str, Tensor]]:
    """The three parts as Meta's training saves them, V-JEPA 1's tables too."""
    config, written = model.config, {}
    for ours, theirs in OFFICIAL_PARTS.items():
        state = {key: value.detach().cpu().clone() for key, value in getattr(model, ours).state_dict().items()}
        if "sincos" in config.encoder.position and config.encoder.position_grid:
            width = config.predictor.embed_dim if ours == "predictor" else config.encoder.embed_dim
            state[OFFICIAL_TABLES[theirs]] = sincos3d(width, Grid(*config.encoder.position_grid))[None].clone()
        written[theirs] = {f"module.backbone.{key}": value for key, value in state.items()}
    return written


def _bare(state: State) -> dict[str, Tensor]:
    bare = {}
    for key, value in state.items():
        for prefix in OFFICIAL_PREFIXES:
            key = key.removeprefix(prefix)
        bare[key] = value
    return bare


def _official_config(parts: Mapping[str, State], source: str, num_heads: int) -> JEPAConfig:
    encoder, predictor = parts["context_encoder"], parts["predictor"]
    kernel = _shape(encoder, "patch_embed.proj.weight", 5, f"{source}: encoder")
    width, depth = kernel[0], _depth(encoder, "blocks")
    heads = num_heads or find_heads(width, depth)
    if heads is None:
        raise CheckpointError(
            f"{source}: an encoder {width} wide and {depth} deep is none of the official ones, "
            "and no weight shows its attention heads: give num_heads=..."
        )
    narrow = _shape(predictor, "predictor_embed.weight", 2, f"{source}: predictor")[0]
    tokens = sum(key.startswith("mask_tokens.") for key in predictor)
    return JEPAConfig(
        EncoderConfig(width, depth, heads, _ratio(encoder, "blocks.0", width), kernel[3], kernel[2], kernel[1],
                      rope="vjepa2", init="vjepa"),
        PredictorConfig(narrow, _depth(predictor, "predictor_blocks"), 12,
                        _ratio(predictor, "predictor_blocks.0", narrow), max(1, tokens)),
    )  # fmt: skip


def _official_classifier(checkpoint: Mapping[str, Any], source: str, num_heads: int, head: int) -> Imported:
    found = checkpoint["classifiers"] if "classifiers" in checkpoint else [checkpoint["classifier"]]
    if not 0 <= head < len(found):
        raise CheckpointError(f"{source} holds {len(found)} classifiers: head={head} is none of them")
    state = _bare(found[head])
    width = _shape(state, "pooler.query_tokens", 3, source)[2]
    heads = num_heads or CLASSIFIER_HEADS
    if width % heads:
        raise CheckpointError(f"{source}: a classifier {width} wide has not {heads} heads: give num_heads=...")
    classes = _shape(state, "linear.weight", 2, source)[0]
    cross = "pooler.cross_attention_block"
    config = ClassifierConfig(width, heads, _depth(state, "pooler.blocks"), classes, _ratio(state, cross, width))
    classifier = AttentiveClassifier(config)
    load_strict(classifier, state, source)
    words = f"a classifier of {classes} answers, {width} wide, {config.depth} blocks before its cross-attention"
    return Imported(words, None, classifier.eval())


def _grid_of(table: Tensor, name: str, wanted: Grid | None) -> Grid:
    """The grid of square frames whose sin-cos table this is; CheckpointError where it is none."""
    count, width = table.shape[-2:]
    for t in range(1, count + 1):
        side = round((count / t) ** 0.5)
        grid = Grid(t, side, side)
        if grid.num_tokens == count and (wanted is None or grid == wanted):
            ours = sincos3d(width, grid)
            if torch.allclose(table.reshape(ours.shape).float(), ours, atol=1e-3, rtol=0):
                return grid
    other = f"a grid of {tuple(wanted)}, as the table before it" if wanted else "any grid of square frames"
    raise CheckpointError(
        f"{name} {tuple(table.shape)} is not the sin-cos table of {other}: weights would be read with wrong places"
    )


def _trained_token(tokens: list[Tensor]) -> int:
    """The first mask token that is not zero: zero is where they all begin."""
    return next((i for i, token in enumerate(tokens) if token.any()), 0)


def _depth(state: State, stack: str) -> int:
    found = (re.match(rf"{re.escape(stack)}\.(\d+)\.", key) for key in state)
    return len({match[1] for match in found if match})


def _ratio(state: State, block: str, width: int) -> float:
    hidden = len(state.get(f"{block}.mlp.fc1.weight", torch.empty(4 * width)))
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _shape(state: State, key: str, dims: int, source: str) -> tuple[int, ...]:
    if key not in state or state[key].ndim != dims:
        raise CheckpointError(f"{source} holds another architecture: missing {key}")
    return tuple(state[key].shape)


def _words(family: str, config: JEPAConfig) -> str:
    encoder, predictor = config.encoder, config.predictor
    return (
        f"{family}: encoder {encoder.embed_dim} wide, {encoder.depth} deep, {encoder.num_heads} heads; predictor "
        f"{predictor.embed_dim} wide, {predictor.depth} deep, {predictor.num_mask_tokens} mask tokens, "
        f"tasks use number {predictor.mask_index}"
    )
