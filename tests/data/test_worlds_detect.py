"""The detector of the procedural worlds. Claims:

- on true pictures, drawn or from mp4 files, main sprites are found to half a pixel, with colour and shape right in
  99 of 100; distractors are found as exactly, with their colour; nothing is found that is not there;
- a main sprite of which up to a half is hidden is found at its centre, not at that of its visible part;
- unpredictable detail, up to the whole of it, changes nothing of this for sprites that show, and adds at most one
  sprite in ten pictures; half-hidden ones are then found to half a pixel in pictures of 32 pixels, not in those of 64;
- this holds for floats as for bytes, at every size of picture, and is not lost in faded, blurred or noisy pictures;
- a picture without sprites, with a bar or without, holds nothing; a sprite is found where it was put, as what it is;
- each picture is looked at alone, and a hundred of 32 by 32 pixels take less than a second of one core.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from data.worlds import COLOUR_NAMES, SHAPES, Bar, Episode, WorldConfig, generate, render, simulate
from data.worlds_detect import Detections, detect
from data.worlds_tracks import at_frames, follow, stack_truth
from data.worlds_validate import Validation, accuracy, shrink, validate

CONFIG = WorldConfig(seed=5, occluder_probability=0.5)


def placed(sprites: list[tuple[float, float, int, int, float]], bar: Bar | None = None, size: int = 64) -> np.ndarray:
    """A picture (1, size, size, 3) with sprites x, y, shape, colour, radius, the first on top."""
    x, y, shapes, colours, radii = (np.array(column) for column in zip(*sprites, strict=True))
    positions = np.stack([x, y], -1)[None]
    still = np.zeros((1, len(x)))
    config = WorldConfig(size=size, detail=0.0)
    return render(Episode(config, 3, 0, 0.0, shapes, colours, radii, positions, np.zeros_like(positions), still, still,
                          np.zeros((0, 3), int), bar, ""))  # fmt: skip


def holds(result: Validation) -> None:
    assert result.main.sprites > 100 and result.main.found == 1
    assert result.main.mean < 0.25 and result.main.p95 < 0.5, "the bar is a mean of half a pixel"
    assert result.main.colour >= 0.99 and result.main.shape >= 0.99
    assert result.distractors.sprites > 100 and result.distractors.found > 0.99
    assert result.distractors.mean < 0.25 and result.distractors.colour > 0.99
    assert result.partial.found > 0.97 and result.partial.mean < 0.5
    assert result.extra < 0.02


@pytest.mark.parametrize(("size", "stride"), [(32, 2), (64, 2), (48, 3)])
def test_true_pictures_are_read_to_half_a_pixel(size: int, stride: int) -> None:
    holds(validate(CONFIG, 40, size, stride))


def test_pictures_from_mp4_files_are_read_as_well(tmp_path: Path) -> None:
    config = WorldConfig(seed=5, clips=32, out=str(tmp_path / "worlds"), workers=1)
    folder = generate(config, progress=False)
    for size in (32, 64):
        holds(validate(folder, 32, size, stride=2))


@pytest.mark.parametrize(("detail", "size"), [(0.25, 32), (1.0, 32), (1.0, 64)])
def test_unpredictable_detail_hides_no_sprite(detail: float, size: int, tmp_path: Path) -> None:
    config = replace(CONFIG, detail=detail, clips=24, out=str(tmp_path / "worlds"), workers=1)
    result = validate(generate(config, progress=False), 24, size, stride=2)
    for kind in (result.main, result.distractors):
        assert kind.sprites > 80 and kind.found > 0.99 and kind.mean < 0.25 and kind.p95 < 0.5 and kind.colour >= 0.99
    assert result.main.shape >= 0.99 and result.extra < 0.1
    assert result.partial.found > 0.97 and (result.partial.mean < 0.5 or (detail, size) == (1.0, 64))


def test_faded_blurred_and_noisy_pictures_are_still_read() -> None:
    episodes = [simulate(CONFIG, index) for index in range(32)]
    frames = np.arange(0, 16, 2)
    pictures = np.concatenate([shrink(render(e)[frames], 32) for e in episodes]) / 255.0
    scene = at_frames(stack_truth(episodes), frames, 32)
    noise = np.random.default_rng(0).standard_normal(pictures.shape)
    for worse in (
        0.6 * pictures + 0.4 * 0.88,
        ndimage.gaussian_filter(pictures, (0, 0.8, 0.8, 0)),
        np.clip(pictures + 0.05 * noise, 0, 1),
    ):
        main = accuracy(follow(detect(worse), scene), scene).main
        assert main.found > 0.99 and main.mean < 0.25 and main.colour > 0.99 and main.shape > 0.97


def test_bytes_and_floats_are_read_alike() -> None:
    frames = render(simulate(CONFIG, 4))
    one, other = detect(frames), detect(frames.astype(np.float32) / 255)
    assert len(one.frame) >= len(frames) and np.allclose(one.position, other.position, atol=1e-3)
    assert np.array_equal(one.colour, other.colour) and np.array_equal(one.shape, other.shape)


def test_a_half_hidden_sprite_is_found_at_its_centre() -> None:
    for shape in range(len(SHAPES)):
        for bar in (Bar(0, 32, 60), Bar(1, 4, 32), Bar(0, 29, 35)):
            found = detect(placed([(32.0, 31.5, shape, 4, 11.0)], bar))
            assert len(found.frame) == 1, "one sprite, though a thin bar cuts it in two"
            assert found.shape[0] == shape and np.abs(found.position[0] - (32.0, 31.5)).max() < 0.8


def test_empty_pictures_hold_nothing() -> None:
    assert len(detect(np.full((2, 32, 32, 3), 230, np.uint8)).frame) == 0
    assert len(detect(np.zeros((2, 64, 64, 3))).frame) == 0
    for index in range(12):
        e = simulate(WorldConfig(seed=1, occluder_probability=1.0), index)
        none = Episode(e.config, index, 0, 0.0, e.shapes[:0], e.colours[:0], e.radii[:0], e.positions[:, :0],
                       e.velocities[:, :0], e.angles[:, :0], e.visible[:, :0], e.collisions[:0], e.bar, "")  # fmt: skip
        assert len(detect(render(none)).frame) == 0
    for wrong in ((32, 32, 3), (0, 32, 32, 3), (2, 32, 48, 3), (2, 3, 32, 32)):
        with pytest.raises(ValueError, match="frames must be"):
            detect(np.zeros(wrong))


def test_sprites_are_found_where_they_were_put_as_what_they_are() -> None:
    for colour in range(len(COLOUR_NAMES)):
        for shape in range(len(SHAPES)):
            small = (colour + 1 + shape) % len(COLOUR_NAMES)
            found = detect(placed([(20.3, 41.8, shape, colour, 10.0), (50.2, 12.6, 0, small, 3.5)]))
            assert found.colour.tolist() == [colour, small] and found.shape.tolist() == [shape, -1]
            assert np.abs(found.position - [(20.3, 41.8), (50.2, 12.6)]).max() < 0.2
            assert abs(found.radius[0] - 10) < 0.3 and abs(found.radius[1] - 3.5) < 0.5
            assert (found.confidence > 0.7).all()


def test_two_sprites_that_touch_make_no_third() -> None:
    for first in range(len(COLOUR_NAMES)):
        for second in set(range(len(COLOUR_NAMES))) - {first}:
            picture = placed([(26.0, 30.0, 0, first, 10.0), (38.5, 33.0, 1, second, 4.5)])
            for size in (32, 64):
                assert sorted(detect(shrink(picture, size)).colour.tolist()) == sorted([first, second])


def test_each_picture_is_looked_at_alone() -> None:
    frames = np.concatenate([render(simulate(CONFIG, index)) for index in range(6)])  # more than one chunk
    order = np.random.default_rng(0).permutation(len(frames))
    found, mixed = detect(frames), detect(frames[order])
    for place, frame in enumerate(order):
        one, other = found.of(frame), mixed.of(place)
        assert isinstance(one, Detections) and np.allclose(one.position, other.position, atol=1e-3)
        assert np.array_equal(one.colour, other.colour)


def test_a_hundred_small_pictures_take_less_than_a_second() -> None:
    frames = np.concatenate([shrink(render(simulate(CONFIG, index)), 32) for index in range(20)])
    times = []
    for _ in range(3):
        start = time.process_time()
        detect(frames)
        times.append(time.process_time() - start)
    assert len(frames) / min(times) > 100  # 700 on a free core of 2024
