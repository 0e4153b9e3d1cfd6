"""What a comparison measures with. Claims:

- clean clips are the test clips that arms meet, one by one, without their detail.
- distances are taken between halves of what clips there are.
- of several samples the mean and the best are kept.
- what is hit by chance is what is hit on other clips' scenes: a picture full of sprites is nearer to any place, and no
  nearer to its own.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.transforms import IMAGENET_MEAN, IMAGENET_STD
from data.worlds import WorldConfig, generate, render, simulate
from data.worlds_tracks import stack_truth
from decoder.compare import job, physics, stages
from decoder.compare.bench import Bench
from decoder.compare.plan import CompareConfig, trained
from jepa.config import load_config

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)


def test_what_is_hit_by_chance_is_told_apart() -> None:
    config = WorldConfig(objects_max=1, occluder_probability=0.0, bounce=1.0, num_frames=8)
    episodes = [simulate(config, index) for index in range(8)]
    truth, frames = stack_truth(episodes), np.arange(8)
    video = torch.from_numpy(np.stack([render(episode) for episode in episodes])).movedim(-1, 1) / 255
    known = physics.scenes_of(truth, frames, 64, np.arange(8))
    assert len(known) == 1 + physics.OTHERS and all((scene.shapes != known[0].shapes).any() for scene in known[1:])
    found = physics._coherence([video], video, known, [0, 4, 8])
    assert found["colour"].shape == (8, 2) and (found["colour"] == 1).all() and found["colour_chance"].mean() < 0.5
    assert np.array_equal(found["colour_beyond"], found["colour"] - found["colour_chance"])
    assert np.array_equal(found["error_beyond"], found["error_chance"] - found["error"])  # more is better
    assert found["error"].mean() < 0.5 and found["error_beyond"].mean() > 5
    double = physics._coherence([video] * 2, video, known, [0, 8])
    assert np.allclose(double["best_error_beyond"], double["error_beyond"]) and "best_error_chance" not in double
    alone = physics._coherence([video], video, known[:1], [0, 8])
    assert "error" in alone and not [key for key in alone if "chance" in key or "beyond" in key]


def test_a_picture_full_of_sprites_is_nowhere_better_than_chance() -> None:
    config = WorldConfig(objects_max=1, occluder_probability=0.0, bounce=1.0, num_frames=8)
    episodes = [simulate(config, index) for index in range(30)]
    truth, frames = stack_truth(episodes), np.arange(8)
    video = torch.from_numpy(np.stack([render(episode) for episode in episodes])).movedim(-1, 1) / 255
    ground, one = video.median(2, keepdim=True).values, video.roll(7, 0)
    many = one
    for shift in (11, 13, 17):  # the sprites of three more clips on top
        other = video.roll(shift, 0)
        many = torch.where((other - ground.roll(shift, 0)).abs().amax(1, keepdim=True) > 0.15, other, many)
    known = physics.scenes_of(truth, frames, 64, np.arange(30))
    few, found = (physics._coherence([drawn], video, known, [0, 8]) for drawn in (one, many))
    assert found["extra"].mean() > 1 + few["extra"].mean() and found["error"].mean() < few["error"].mean() - 2
    for key in ("error", "colour"):
        beyond = found[f"{key}_beyond"]
        assert abs(beyond.mean()) < 2.5 * beyond.std() / len(beyond) ** 0.5
    assert physics._coherence([video], video, known, [0, 8])["error_beyond"].mean() > 10


@pytest.mark.parametrize("detail", [0.0, 0.5])
def test_clean_clips_are_those_that_arms_meet(detail: float, tmp_path: Path) -> None:
    words = [f"out={tmp_path}", f"world=[bounce=0.5,detail={detail}]"]
    config = load_config(CompareConfig, HOUSE / "configs/compare/worlds_tiny.yaml", words)
    world = job.plan(replace(config, budget=0.0125), [trained(config, 0)])[0].config
    generate(world, progress=False)
    bench = Bench(config, trained(config, 0))
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    bench.decoder = SimpleNamespace(to_unit=lambda x: x * std + mean)  # type: ignore[assignment]
    met, clean = (torch.cat(part) for part in (bench.clips(20), bench.clean(20)))
    errors = (bench.decoder.to_unit(met) - clean).square().mean((1, 2, 3, 4))
    assert len(errors) == 20 and bench.detail == detail and (detail or errors.max() < 1e-4)  # 40 dB, which H.264 takes
    others = (bench.decoder.to_unit(met) - clean.roll(1, 0)).square().mean((1, 2, 3, 4))
    assert (errors < others).all()


def test_sets_of_clips_are_halves_of_what_there_is() -> None:
    clips = torch.arange(900)
    for most, count in ((1024, 450), (300, 300), (3, 3)):
        drawn, others = stages._halves(clips, most) or (clips, clips)
        assert len(drawn) == len(others) == count and not set(drawn.tolist()) & set(others.tolist())
    assert stages._halves(clips[:5], 1024) is None and stages._halves(clips[:6], 1024) is not None


def test_of_several_samples_the_mean_and_the_best_are_kept() -> None:
    nan = float("nan")
    samples = [{"error": np.array([1.0, nan, nan]), "found": np.array([1.0, 0.0, 0.0])},
               {"error": np.array([3.0, 2.0, nan]), "found": np.array([1.0, 1.0, 0.0])}]  # fmt: skip
    row = physics._over_samples(samples)
    assert row.keys() == {"error", "best_error", "found", "best_found"}
    wanted = {"error": [2, 2, nan], "best_error": [1, 2, nan], "found": [1, 0.5, 0], "best_found": [1, 1, 0]}
    assert all(np.array_equal(row[key], values, equal_nan=True) for key, values in wanted.items())
    assert physics._over_samples(samples[:1]).keys() == {"error", "found"}
