"""Claims:

1. `render` turns a video file into an mp4 and a GIF with all columns, frame-aligned; the truth column is the clip
itself. 2. Visible frames of a prediction are the video's own pixels; hidden ones come from latents alone: the
prediction panels do not
   change when hidden pixels do.
3. Another clip size than in training works; one that does not divide into tokens is refused in a sentence, and so are a
wrong
   name, no seeds, and a decoder of another JEPA. Nothing is left behind.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import squares
from PIL import Image
from torch import Tensor

from data import open_video, write_video
from decoder import Decoder, LatentSource, measure_latents
from decoder.compose import hidden_pixels, to_frames
from decoder.render import RenderConfig, draw_task, render, render_frames
from jepa import JEPA, CheckpointError, ConfigError


@pytest.fixture
def config(decoder: Decoder, source: LatentSource, jepa: JEPA, video: Tensor, tmp_path: Path) -> RenderConfig:
    decoder.set_statistics(measure_latents(source, [video], 3))
    decoder.save_pretrained(tmp_path / "decoder")
    jepa.save_pretrained(tmp_path / "jepa")
    write_video(tmp_path / "my.mp4", squares(1, frames=16, size=64)[0], fps=8)
    paths = {key: str(tmp_path / key) for key in ("jepa", "decoder")}
    out = str(tmp_path / "out" / "prediction.mp4")
    return RenderConfig(**paths, video=str(tmp_path / "my.mp4"), out=out, seeds=2, steps=1, device="cpu")


def test_a_video_in_a_picture_out(config: RenderConfig, capsys: pytest.CaptureFixture[str]) -> None:
    mp4, gif = render(config)
    assert mp4 == Path(config.out) and gif == mp4.with_suffix(".gif")
    assert str(mp4) in capsys.readouterr().out
    video, picture = open_video(mp4), Image.open(gif)
    assert len(video) == 8 * config.repeat and picture.n_frames == 8
    assert (video.width, video.height) == picture.size
    assert video.width > 6 * 128  # context, two samples, target, mean, truth


def test_columns_and_rows(decoder: Decoder, source: LatentSource, video: Tensor) -> None:
    drawing = draw_task(source, decoder, video[0], "forward", seeds=(0, 1), steps=2)
    columns = {panel.title.split("\n")[0]: panel for panel in drawing.panels()}
    assert list(columns) == ["context", "predicted", "decode(target)", "decode(mean)", "truth"]
    assert len(drawing.panels()) == 6 and "forward" in columns["context"].title
    truth = columns["truth"].frames
    np.testing.assert_array_equal(truth, to_frames(decoder.to_unit(video[:1])[0]))
    np.testing.assert_array_equal(truth, squares(1)[0])
    predicted = columns["predicted"]
    assert predicted.drawn is not None and predicted.drawn.tolist() == [False] * 4 + [True] * 4
    np.testing.assert_array_equal(predicted.frames[:4], truth[:4])
    assert not np.array_equal(predicted.frames[4:], truth[4:])
    assert not torch.equal(drawing.predictions[0], drawing.predictions[1])
    one = render_frames(source, decoder, video[0], ["forward"], steps=1)
    three = render_frames(source, decoder, video[0], ["forward", "backward", "infill"], steps=1)
    assert one.shape[2] == three.shape[2] and three.shape[1] > 2.9 * one.shape[1]


@pytest.mark.parametrize("task", ["forward", "infill"])
def test_predictions_do_not_know_the_hidden_pixels(
    decoder: Decoder, source: LatentSource, video: Tensor, task: str
) -> None:
    hidden = hidden_pixels(source.task_mask(task, video[:1]), source.grid(video), 2, 8)[0]
    draw = lambda clip: draw_task(source, decoder, clip, task, seeds=(0,), steps=2)
    honest, spoiled = draw(video[0]), draw(torch.where(hidden, video[0] + 1, video[0]))
    for before, after in zip(honest.panels()[:2], spoiled.panels()[:2], strict=True):
        np.testing.assert_array_equal(before.frames, after.frames)
    assert not torch.equal(honest.target, spoiled.target)


def test_other_sizes(config: RenderConfig) -> None:
    config.size, config.num_frames, config.scale = [40, 56], 12, 1
    mp4 = render(config)[0]
    assert len(open_video(mp4)) == 12 * config.repeat


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("size", [32, 36], "width 36 is not a multiple"),
        ("num_frames", 7, "frames 7 is not a multiple"),
        ("out", "nowhere/prediction.avi", r"ends in \.mp4"),
        ("seeds", 0, "at least 1"),
        ("steps", 0, "at least 1"),
        ("task", "forwards", "'forward'"),
        ("method", "rk4", "euler"),
    ],
)
def test_bad_settings_are_refused(config: RenderConfig, key: str, value: object, message: str) -> None:
    setattr(config, key, value)
    with pytest.raises(ConfigError, match=message):
        render(config)
    assert not Path(config.out).parent.exists()


def test_a_stranger_is_refused(config: RenderConfig, jepa: JEPA, tmp_path: Path) -> None:
    next(jepa.target_encoder.parameters()).data += 0.1
    jepa.save_pretrained(tmp_path / "jepa")
    with pytest.raises(CheckpointError, match="another JEPA"):
        render(config)
