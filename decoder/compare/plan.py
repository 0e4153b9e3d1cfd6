"""What `jepa compare` trains, and with which settings: one decoder file, and everything else derived from it.

Notable: the pixel model's settings are not written anywhere. They are the decoder's, so that size, data, tasks and
steps cannot differ; B+ is trained for longer, by what pretraining the JEPA cost. A composition root.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from decoder.budget import decoder_operations, pretrain_operations
from decoder.train import DecoderTrainConfig
from decoder.train_opponents import FuturesTrainConfig, PixelTrainConfig
from jepa.config import ConfigError, changed, choose, load_config
from jepa.masks import TASKS
from jepa.train import PretrainConfig


@dataclass
class CompareConfig:
    """Everything `jepa compare` reads.

    budget              share of the clips and training steps: 1 for the comparison, a little to try the machinery.
    worlds, pairs, pretrain, decoder    YAML files of these settings.
    world               further key=value words for the worlds.
    jepa                key=value words that A's pretraining adds to its file, and C's with it.
    masked_pixels       key=value words that the masked-pixel arm adds to those of the JEPA, beside `model.targets`.
    denoiser            key=value words that the decoder's training adds to its file, and B's, B+'s and D's with it.
    pixels, futures     key=value words of optim and flow that B (and B+), and D, add to the decoder's settings: each
                        arm has the learning rate that suits it. Size, data and steps stay the decoder's.
    seeds               model seeds: every arm is trained once for each. More may be added to a folder that has some.
    plus                train B+ as well: the pixel model with the operations of the JEPA's pretraining on top.
    points              how often along training the representations are probed.
    probe_clips         training clips that a probe learns from; 0: all.
    clips, samples      test clips that are drawn, and drawings of each.
    distance_clips      test clips for the Fréchet and kernel video distances, 0: not measured; those along roll-outs
                        stand on a quarter as many long clips.
    rollout_clips, rollout_lengths    long clips, and how many clip lengths of them are predicted.
    rollout_samples     drawings of each long clip.
    hidden_clips        videos with a bar in every scene, among which those are found that show permanence.
    surprise_step, surprise_samples   clip frames between windows, and samples an arm is surprised with.
    surprise_pixels     judge A and D by their pictures too, and not in their own latents alone; it takes as long as B.
    real_pairs          a table of possible and impossible real videos, as `jepa surprise` reads; empty: none.
    steps               sampling steps, to see how quality depends on them.
    films               clips shown by their place in the test set, beside best, median and worst.
    sweep, detail       sweep=detail: the whole comparison once for each of these settings of the worlds' detail.
    only                evaluate: measure again, train nothing.
    """

    out: str = "runs/compare"
    budget: float = 1.0
    worlds: str = "configs/worlds/tiny.yaml"
    world: list[str] = field(default_factory=list)
    pairs: str = "configs/worlds/pairs_tiny.yaml"
    pretrain: str = "configs/pretrain/worlds_tiny.yaml"
    decoder: str = "configs/decoder/worlds_tiny.yaml"
    jepa: list[str] = field(default_factory=list)
    masked_pixels: list[str] = field(default_factory=list)
    denoiser: list[str] = field(default_factory=list)
    pixels: list[str] = field(default_factory=list)
    futures: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    plus: bool = True
    points: int = 5
    probe_clips: int = 0
    label_fractions: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    clips: int = 256
    samples: int = 4
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    distance_clips: int = 256
    rollout_clips: int = 32
    rollout_lengths: int = 8
    rollout_samples: int = 1
    hidden_clips: int = 4000
    surprise_step: int = 4
    surprise_samples: int = 2
    surprise_pixels: bool = False
    real_pairs: str = ""
    steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    films: int = 4
    sweep: str = ""
    detail: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 1.0])
    only: str = ""
    progress: bool = True


def check(config: CompareConfig) -> None:
    """ConfigError for what cannot be meant."""
    if config.budget <= 0:
        raise ConfigError(f"budget is {config.budget:g}: give a share of the clips and steps, such as 0.1")
    for key in (
        "points",
        "clips",
        "samples",
        "rollout_clips",
        "rollout_lengths",
        "rollout_samples",
        "hidden_clips",
        "surprise_step",
        "surprise_samples",
    ):
        if getattr(config, key) < 1:
            raise ConfigError(f"{key} is {getattr(config, key)}: give at least 1")
    for key in ("seeds", "tasks", "steps"):
        if not getattr(config, key):
            raise ConfigError(f"{key} is empty: name at least one")
    if 1 not in config.label_fractions or not all(0 < share <= 1 for share in config.label_fractions):
        raise ConfigError(f"label_fractions is {config.label_fractions}: give shares of the labels, 1 among them")
    if config.distance_clips < 0 or 0 < config.distance_clips < 3:
        raise ConfigError(f"distance_clips is {config.distance_clips}: give at least 3, or 0 to leave distances out")
    for task in config.tasks:
        choose("tasks", task, TASKS)
    for key in ("pixels", "futures"):
        for word in getattr(config, key):
            if not word.startswith(("optim.", "flow.")):
                raise ConfigError(f"{key} has {word!r}: only optim and flow may differ from the decoder's settings")
    choose("only", config.only, ("", "evaluate"))
    choose("sweep", config.sweep, ("", "detail"))


@dataclass(frozen=True)
class Trained:
    """The settings of every training of one seed, and the folder that holds them all."""

    folder: Path
    jepa: PretrainConfig
    masked_pixels: PretrainConfig
    decoder: DecoderTrainConfig
    pixels: PixelTrainConfig
    pixels_plus: PixelTrainConfig
    futures: FuturesTrainConfig


def trained(config: CompareConfig, seed: int) -> Trained:
    """The settings of all arms for a model seed; ConfigError where they cannot be meant."""
    out = Path(config.out)
    folder = out / f"seed{seed}"
    jepa = _pretrain(config, seed, folder, "jepa", [])
    masked = _pretrain(config, seed, folder, "masked_pixels", ["model.targets=pixels", *config.masked_pixels])
    decoder = _decoder(config, seed, folder, jepa)
    pixels = changed(_pixels(decoder, jepa, folder), config.pixels)
    futures = changed(_futures(decoder, folder), config.futures)
    extra = pretrain_operations(jepa) / decoder_operations(decoder, jepa)
    steps = round((1 + extra) * pixels.trainer.max_steps)
    plus = replace(pixels, out=f"{folder}/pixels_plus", trainer=replace(pixels.trainer, max_steps=steps))
    return Trained(folder, jepa, masked, decoder, pixels, plus, futures)


def _pretrain(config: CompareConfig, seed: int, folder: Path, name: str, words: list[str]) -> PretrainConfig:
    sets = [f"data.train={config.out}/worlds/train.csv", f"data.val={config.out}/worlds/val.csv"]
    words = [f"out={folder}/{name}", f"seed={seed}", *sets, *config.jepa, *words]
    found = load_config(PretrainConfig, config.pretrain, words)
    found.data.seed = seed
    found.stop_sick = False  # whatever the comparison shows is its result, an ill JEPA too
    _shorten(found, config)
    found.trainer.keep_every = max(1, found.trainer.max_steps // config.points)
    return found


def _decoder(config: CompareConfig, seed: int, folder: Path, jepa: PretrainConfig) -> DecoderTrainConfig:
    # The last step and not the best: that is chosen by labels, which no other arm is, and among few steps by noise.
    words = [f"jepa={folder}/jepa/last.ckpt", f"out={folder}/decoder", f"seed={seed}", *config.denoiser]
    found = load_config(DecoderTrainConfig, config.decoder, words)
    encoder = jepa.model.encoder
    found.condition_dim = max(encoder.embed_dim, encoder.patch_dim + 1)  # as wide as the wider of both conditions
    tubelets = jepa.data.num_frames // encoder.tubelet_size
    found.mix.contexts = found.mix.contexts or list(range(1, tubelets))
    _shorten(found, config)
    if config.budget < 1:
        found.latent_clips = max(64, round(found.latent_clips * config.budget))
    return found


def _pixels(decoder: DecoderTrainConfig, jepa: PretrainConfig, folder: Path) -> PixelTrainConfig:
    encoder = jepa.model.encoder
    found = PixelTrainConfig(
        out=f"{folder}/pixels",
        data=replace(jepa.data, **decoder.data),
        patch_size=encoder.patch_size,
        tubelet_size=encoder.tubelet_size,
    )
    for key in ("seed", "condition_dim", "model", "flow", "optim", "sampling", "trainer"):
        setattr(found, key, getattr(decoder, key))
    for key in ("tasks", "contexts", "condition_dropout"):
        setattr(found.mix, key, getattr(decoder.mix, key))
    return found


def _futures(decoder: DecoderTrainConfig, folder: Path) -> FuturesTrainConfig:
    found = FuturesTrainConfig(jepa=decoder.jepa, out=f"{folder}/futures", data=decoder.data)
    for key in ("seed", "latent_clips", "model", "flow", "optim", "sampling", "trainer"):
        setattr(found, key, getattr(decoder, key))
    for key in ("tasks", "contexts", "condition_dropout"):
        setattr(found.mix, key, getattr(decoder.mix, key))
    return found


def _shorten(found: Any, config: CompareConfig) -> None:
    """A smaller budget has fewer steps, at least three, and every period shrinks with them."""
    found.trainer.progress = config.progress
    if config.budget == 1:
        return
    scaled = lambda value, least: max(least, round(value * config.budget))
    found.trainer.max_steps = scaled(found.trainer.max_steps, 3)
    found.trainer.val_every = scaled(found.trainer.val_every, 3)
    found.trainer.log_every = scaled(found.trainer.log_every, 1)
    found.optim.warmup_steps = scaled(found.optim.warmup_steps, 1)
