"""Claims:
1. Indices lie inside the video, never decrease, and are exactly `stride` apart, for any length, stride and
   position.
2. By fps, frame i lies at i / fps seconds after the first, to within one video frame, also where frames must
   repeat.
3. Uniform clips reach from the first to the last frame; centred ones are in the middle to within one frame.
4. Random clips are a function of the seed and reach every possible start equally often.
5. Each policy for short videos does what it says, and nothing else.
6. Either stride or fps: both, neither or nonsense is a DataError that says so.
"""

import numpy as np
import pytest

from data.clips import clip_indices, clip_span, frame_indices
from data.errors import DataError
from data.seeds import mix, unit


@pytest.mark.parametrize("position", ["random", "centre", "uniform"])
def test_indices_are_inside_and_a_stride_apart(position: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        stride, frames, clips = (int(n) for n in rng.integers(1, [5, 20, 5]))
        length = (frames - 1) * stride + 1 + int(rng.integers(0, 30))
        rows = clip_indices(length, frames, stride=stride, position=position, clips=clips, seed=int(rng.integers(1e9)))
        assert rows.shape == (clips, frames) and rows.dtype == np.int64
        assert rows.min() >= 0 and rows.max() < length
        assert (np.diff(rows, axis=1) == stride).all()


@pytest.mark.parametrize(("fps", "video_fps"), [(4, 30), (8, 25), (7.5, 29.97), (24, 24), (30, 10)])
def test_fps_keeps_time(fps: float, video_fps: float) -> None:
    rows = clip_indices(400, 16, fps=fps, video_fps=video_fps, clips=5)
    elapsed = (rows - rows[:, :1]) / video_fps
    assert (np.abs(elapsed - np.arange(16) / fps) < 1 / video_fps).all()
    assert (np.diff(rows, axis=1) >= 0).all() and rows.max() < 400


def test_uniform_reaches_both_ends_and_centre_the_middle() -> None:
    rows = clip_indices(100, 10, stride=2, position="uniform", clips=4)
    assert rows[0, 0] == 0 and rows[-1, -1] == 99
    assert np.ptp(np.diff(rows[:, 0])) <= 1
    for length in range(19, 60):
        row = clip_indices(length, 10, stride=2, position="centre")[0]
        assert abs(row[0] - (length - 1 - row[-1])) <= 1


def test_random_is_a_function_of_the_seed_and_reaches_every_start() -> None:
    assert np.array_equal(
        clip_indices(50, 8, stride=2, clips=3, seed=7), clip_indices(50, 8, stride=2, clips=3, seed=7)
    )
    starts = [clip_indices(12, 8, stride=1, seed=seed)[0, 0] for seed in range(2000)]
    counts = np.bincount(starts, minlength=5)
    assert len(counts) == 5 and counts.min() > 330  # 400 expected, standard deviation 18


def test_short_policies() -> None:
    assert clip_indices(3, 8, stride=1, short="loop").tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]]
    assert clip_indices(3, 8, stride=1, short="pad").tolist() == [[0, 1, 2, 2, 2, 2, 2, 2]]
    assert clip_indices(5, 4, stride=2, short="pad").tolist() == [[0, 2, 4, 4]]
    assert clip_indices(3, 8, stride=1, clips=2, short="skip").shape == (0, 8)
    assert clip_indices(1, 4, stride=1, short="loop").tolist() == [[0, 0, 0, 0]]
    with pytest.raises(DataError, match=r"has 3 frames and a clip needs 8.*data\.short"):
        clip_indices(3, 8, stride=1)
    for short in ("error", "loop", "pad", "skip"):  # a video that is just long enough is never short
        assert clip_indices(8, 8, stride=1, short=short).tolist() == [list(range(8))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either stride or fps"),
        ({"stride": 1, "fps": 2.0, "video_fps": 25.0}, "either stride or fps"),
        ({"stride": 0}, "at least 1"),
        ({"fps": -1.0, "video_fps": 25.0}, "positive"),
        ({"fps": 4.0}, "frame rate"),
        ({"fps": 4.0, "video_fps": float("nan")}, "frame rate"),
        ({"stride": 1, "short": "cut"}, "error, loop, pad, skip"),
        ({"stride": 1, "position": "end"}, "random, centre, uniform"),
    ],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        clip_indices(20, 4, **arguments)
    with pytest.raises(DataError, match="no frames"):
        frame_indices(0, 4, 1.0, 0.5)


def test_span_counts_both_ends() -> None:
    assert [clip_span(16, 1), clip_span(16, 4), clip_span(1, 9)] == [16, 61, 1]
    assert clip_span(16, 64 / 15) == 65  # the sampling of V-JEPA 1


def test_hash_is_stable_and_uniform() -> None:
    # Pinned: a change of these numbers changes what every resumed run would see.
    assert mix(0).item() == 16294208416658607535 and mix(1, 2).item() == mix(1, 2).item()
    assert mix(1, 2).item() != mix(2, 1).item()
    values = unit(3, np.arange(20_000))
    assert values.min() >= 0 and values.max() < 1
    assert np.abs(np.histogram(values, 10)[0] / 2000 - 1).max() < 0.1
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.03
