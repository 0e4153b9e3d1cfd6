"""What stands beside the decoder. Claims:

1. A decoder and a pixel model of one size are equal to the last parameter, and a training step of their denoisers costs
   the same operations (to 2 %), though a latent and a visible patch are not equally wide.
2. No hidden pixel reaches a drawing of the pixel model, nor its futures counterpart, whatever is put there.
3. The pixel model's loss counts hidden tokens alone; so does that of the futures.
4. Futures differ by seed at the hidden tokens, leave visible ones as they are, and a trained head samples the
   distribution it was shown, where a deterministic predictor can only give its mean.
5. Checkpoints and shared folders are told apart by kind; one of another JEPA is refused.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from decoder import Decoder, DecoderConfig, FlowConfig, LatentSource, VideoDiTConfig
from decoder.arms import LatentArm, MeanArm, PixelArm, TargetArm, load_arm
from decoder.dit import DenoiserSize
from decoder.futures import Futures, FuturesConfig
from decoder.pixels import PixelModel, PixelModelConfig
from jepa import JEPA, Grid, Mask
from jepa.weights import CheckpointError, kind_of

SIZE = {"width": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "tubelet_size": 2}
WIDE = 8 * 8 * 2 * 3 + 1  # a visible patch and its flag; a latent of these tests has 24 values


def shaken(model: torch.nn.Module) -> None:
    """Away from the zero initialisation, so that everything has an effect."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)


@pytest.fixture
def pixels() -> PixelModel:
    model = PixelModel(PixelModelConfig(VideoDiTConfig(**SIZE, condition_dim=WIDE)))
    shaken(model)
    return model.eval()


@pytest.fixture
def futures(source: LatentSource) -> Futures:
    model = Futures(FuturesConfig(DenoiserSize(width=48, depth=1, num_heads=3), 24, source.fingerprint))
    shaken(model)
    return model.eval()


def repainted(video: Tensor, hidden: Tensor) -> Tensor:
    return torch.where(hidden, torch.full_like(video, float("nan")), video)


def test_both_denoisers_are_equal_to_the_last_parameter_and_cost_the_same(
    source: LatentSource, pixels: PixelModel, video: Tensor
) -> None:
    decoder = Decoder(DecoderConfig(VideoDiTConfig(**SIZE, condition_dim=WIDE), latent_dim=24))
    shapes = [{name: tuple(p.shape) for name, p in model.dit.named_parameters()} for model in (decoder, pixels)]
    assert shapes[0] == shapes[1]
    mask, grid = source.task_mask("forward", video), source.grid(video)
    latents = decoder.condition.normalise(source.predicted(video, mask))
    operations = []
    for step in (
        lambda: decoder.loss(video, latents, grid, FlowConfig()).loss.backward(),
        lambda: pixels.loss(video, mask, FlowConfig()).loss.backward(),
    ):
        with FlopCounterMode(display=False) as counter:
            step()
        operations.append(counter.get_total_flops())
    assert operations[0] > 1e8 and abs(operations[0] / operations[1] - 1) < 0.02


@pytest.mark.parametrize("task", ["forward", "backward", "animate", "connect", "infill"])
def test_no_hidden_pixel_reaches_a_drawing(
    task: str, source: LatentSource, decoder: Decoder, futures: Futures, pixels: PixelModel, video: Tensor
) -> None:
    for arm in (
        LatentArm("jepa", source, decoder, steps=2),
        LatentArm("futures", source, decoder, futures, steps=2),
        PixelArm("pixels", pixels, steps=2),
    ):
        mask = arm.task_mask(task, video)
        hidden = arm.hidden(video, mask).expand_as(video)
        first, second = (arm.answer(v, mask, [0, 1, 2]) for v in (video, repainted(video, hidden)))
        assert torch.equal(first, second), arm.name
        drawn = arm.draw(video, mask, [0, 1, 2])
        truth = arm.to_unit(video).clamp(0, 1)
        assert torch.equal(drawn[~hidden], truth[~hidden]) and not torch.equal(drawn[hidden], truth[hidden])
        other = arm.answer(torch.where(hidden, video, -video), mask, [0, 1, 2])
        assert not torch.equal(first, other), f"{arm.name} does not look at what it is shown"


def test_the_bounds_see_everything_and_nothing(source: LatentSource, decoder: Decoder, video: Tensor) -> None:
    target, mean = TargetArm("target", source, decoder, steps=1), MeanArm("mean", source, decoder, steps=1)
    mask = target.task_mask("forward", video)
    hidden = target.hidden(video, mask).expand_as(video)
    seeds = [0, 0, 0]
    changed = torch.where(hidden, -video, video)
    assert not torch.equal(target.answer(video, mask, seeds), target.answer(changed, mask, seeds))
    assert torch.equal(mean.answer(video, mask, seeds), mean.answer(-video, mask, seeds))


def test_losses_count_hidden_tokens_alone(
    source: LatentSource, futures: Futures, pixels: PixelModel, video: Tensor
) -> None:
    mask, grid = source.task_mask("forward", video), source.grid(video)
    hidden = torch.zeros(3, grid.num_tokens, dtype=torch.bool).scatter(1, mask.target_ids, True)
    fixed = lambda: torch.Generator().manual_seed(5)
    result = pixels.loss(video, mask, FlowConfig(), generator=fixed())
    error = (result.x1_hat - result.path.x1) / (1 - result.path.t).clamp_min(0.05)[:, None, None]
    torch.testing.assert_close(result.loss, error[hidden].square().mean())
    target, predicted = source.target(video), source.predicted(video, mask)
    loss = futures.loss(target, predicted, mask, grid, FlowConfig(), fixed()).loss
    seen = torch.where(hidden[..., None], target, target + 100)  # visible targets move; noise there is the same
    moved = futures.loss(seen, predicted, mask, grid, FlowConfig(), fixed())
    assert moved.x1_hat.shape == target.shape and loss.isfinite()
    assert torch.equal(moved.path.x1[hidden], futures.scale.normalise(target)[hidden])


def test_futures_differ_by_seed_where_hidden_and_nowhere_else(
    source: LatentSource, futures: Futures, video: Tensor
) -> None:
    mask, grid = source.task_mask("forward", video), source.grid(video)
    predicted = source.predicted(video, mask)
    first, again, other = (futures.sample(predicted, mask, grid, seed, steps=2) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    seen = torch.zeros(3, grid.num_tokens, dtype=torch.bool).scatter(1, mask.context_ids, True)
    assert torch.equal(first[seen], predicted[seen]) and torch.equal(other[seen], predicted[seen])
    assert (first[~seen] != other[~seen]).float().mean() > 0.99


def test_a_head_samples_both_futures_where_a_mean_would_lie_between() -> None:
    """One hidden token that is +1 or -1 with equal chance, whatever is visible."""
    torch.manual_seed(0)
    grid, draw = Grid(2, 1, 1), torch.Generator().manual_seed(0)
    model = Futures(FuturesConfig(DenoiserSize(width=24, depth=1, num_heads=2), 6))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    mask = Mask(torch.zeros(64, 1, dtype=torch.long), torch.ones(64, 1, dtype=torch.long))
    predicted = torch.zeros(64, 2, 6)
    for _ in range(250):
        sign = torch.randint(2, (64, 1, 1), generator=draw).float() * 2 - 1
        target = torch.cat([torch.zeros(64, 1, 6), sign.expand(-1, 1, 6)], 1)
        loss = model.loss(target, predicted, mask, grid, FlowConfig(time="uniform"), draw).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sampled = model.sample(predicted, mask, grid, list(range(64)), steps=16)[:, 1].mean(-1)  # (64,)
    assert (sampled.abs() - 1).abs().mean() < 0.25, "every sample is one of the two"
    assert 16 <= (sampled > 0).sum() <= 48, "and both occur"


def test_files_say_what_they_are(
    tmp_path: Path, jepa: JEPA, decoder: Decoder, futures: Futures, pixels: PixelModel, video: Tensor
) -> None:
    models = {"jepa": jepa, "decoder": decoder, "pixels": pixels, "futures": futures}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        assert kind_of(tmp_path / name) == name
    for name, more in (("jepa", {}), ("pixels", {}), ("futures", {"jepa": tmp_path / "jepa"})):
        arm = load_arm(tmp_path / name, decoder="" if name == "pixels" else tmp_path / "decoder", steps=1, **more)
        mask = arm.task_mask("forward", video)
        assert arm.name == name and arm.surprise(video, mask).shape == (3,) and arm.surprise(video, mask).min() > 0
        assert arm.draw(video, mask, [0, 0, 0]).shape == video.shape
    with pytest.raises(CheckpointError, match="is a decoder, which predicts nothing"):
        load_arm(tmp_path / "decoder")
    with pytest.raises(CheckpointError, match="jepa="):
        load_arm(tmp_path / "futures")
    torch.manual_seed(9)
    stranger = JEPA(jepa.config)
    stranger.save_pretrained(tmp_path / "stranger")
    with pytest.raises(CheckpointError, match="another JEPA"):
        load_arm(tmp_path / "futures", jepa=tmp_path / "stranger")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not the config of a model"):
        kind_of(tmp_path / "other")
