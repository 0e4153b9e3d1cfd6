"""The method. Claims:

- No leakage: whatever is put under the target mask (noise, huge values, NaN), predictions are bit-identical, for block,
  tube and future masks and every task; and they do change with visible pixels. `encode(ids)` sees those tokens alone.
- The loss is the mean absolute error against the target encoder's normalised latents of the whole clip, averaged over
  masks, as computed here step by step.
- No gradient reaches the target encoder; all of context encoder and predictor gets one.
- The moving average has its closed form after n steps, and a momentum of 1 keeps a frozen teacher.
- Layer-normalised targets have mean 0 and variance 1 per token; batch-normalised ones per channel, over the batch while
  training and over running statistics afterwards, so that a clip's latents do not depend on what it is batched with.
- With `targets: pixels`, the opponent, what is predicted are the hidden patches, normalised, and nothing else differs.
- The context loss weighs visible tokens by 1 / sqrt(distance to the nearest target), and is off by default.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_config
from torch import Tensor

from jepa import JEPA, TASKS, ConfigError, Grid, JEPAConfig, Mask, MaskConfig, sample_mask, task_mask
from jepa.grid import gather_tokens, patchify, unpatchify
from jepa.jepa import distance_to_targets

GRID = Grid(4, 2, 3)
SAMPLED = {
    "block": MaskConfig(num_blocks=1, spatial_scale=0.4),
    "short block": MaskConfig(num_blocks=2, spatial_scale=0.3, temporal_scale=0.5),
    "tube": MaskConfig(kind="tube", ratio=0.7),
    "future": MaskConfig(kind="future"),
}


def mask_named(name: str, batch: int = 3) -> Mask:
    if name in TASKS:
        grid = Grid(4, 4, 4) if name == "infill" else GRID
        return task_mask(name, grid, batch)
    return sample_mask(SAMPLED[name], GRID, batch, torch.Generator().manual_seed(3))


def clip_for(name: str) -> Tensor:
    height, width = (32, 32) if name == "infill" else (16, 24)
    return torch.randn(3, 3, 8, height, width, generator=torch.Generator().manual_seed(7))


def repainted(video: Tensor, hidden: Tensor, value: Tensor | float) -> Tensor:
    """The clip with every pixel of the tokens `hidden` (B, M) replaced."""
    grid = Grid(video.shape[2] // 2, video.shape[3] // 8, video.shape[4] // 8)
    tokens = patchify(video, 2, 8)
    index = hidden[..., None].expand(-1, -1, tokens.shape[-1])
    fill = torch.as_tensor(value, dtype=tokens.dtype).expand(index.shape)
    return unpatchify(tokens.scatter(1, index, fill), grid, 2, 8)


@pytest.mark.parametrize("position", ["rope", "rope+sincos"])
@pytest.mark.parametrize("name", [*SAMPLED, *TASKS])
@torch.no_grad()
def test_no_pixel_under_the_target_mask_reaches_a_prediction(name: str, position: str) -> None:
    torch.manual_seed(1)
    jepa, video, mask = JEPA(tiny_config(position)).eval(), clip_for(name), mask_named(name)
    z = jepa.predict(video, mask)
    assert z.shape == (3, mask.target_ids.shape[1], 24) and z.isfinite().all()
    for value in (torch.randn(()), 1e30, float("nan"), float("inf")):
        changed = repainted(video, mask.target_ids, value)
        assert not torch.equal(changed, video)
        assert torch.equal(jepa.predict(changed, mask), z), f"{value} leaked"
    # The check can fail: a visible pixel does reach the prediction.
    assert not torch.equal(jepa.predict(repainted(video, mask.context_ids[:, :1], 2.0), mask), z)


@torch.no_grad()
def test_encode_with_ids_sees_those_tokens_alone(jepa: JEPA, video: Tensor) -> None:
    mask = mask_named("tube")
    h = jepa.encode(video, mask.context_ids)
    assert torch.equal(jepa.encode(repainted(video, mask.target_ids, float("nan")), mask.context_ids), h)
    whole = jepa.encode(video).gather(1, mask.context_ids[..., None].expand(-1, -1, 24))
    assert not torch.allclose(whole, h), "encoding the whole clip and dropping tokens afterwards is something else"


def test_what_a_training_step_predicts_does_not_depend_on_hidden_pixels(jepa: JEPA, video: Tensor) -> None:
    """Gradients say the same as `predict`: of the hidden pixels' influence on z, nothing is left."""
    mask = mask_named("block")
    video.requires_grad_()
    jepa.predict(video, mask).square().sum().backward()
    influence = patchify(video.grad, 2, 8).abs().sum(-1)
    assert (influence.gather(1, mask.target_ids) == 0).all()
    assert (influence.gather(1, mask.context_ids) > 0).all()


def test_the_loss_is_its_definition(jepa: JEPA, video: Tensor) -> None:
    masks = [mask_named("tube"), mask_named("future")]
    loss = jepa(video, masks)
    targets = F.layer_norm(jepa.target_encoder(video), (24,), eps=1e-5)
    expected = 0.0
    for index, mask in enumerate(masks):
        context = jepa.context_encoder(video, mask.context_ids)
        z, _ = jepa.predictor(context, GRID, mask.context_ids, mask.target_ids, index)
        h = torch.stack([row[ids] for row, ids in zip(targets, mask.target_ids, strict=True)])
        expected += (z - h).abs().mean() / 2
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.prediction, loss.total.detach())
    torch.testing.assert_close(loss.h, targets.detach())
    assert loss.context == 0 and loss.regulariser == 0, "off by default"


def test_gradients_reach_everything_but_the_target(jepa: JEPA, video: Tensor) -> None:
    jepa(video, [mask_named("tube")]).total.backward()
    for name, parameter in jepa.named_parameters():
        if name.startswith("target_encoder"):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_moving_average_has_its_closed_form(jepa: JEPA) -> None:
    momenta = [0.9, 0.95, 0.99, 0.5]
    expected = {key: value.double().clone() for key, value in jepa.target_encoder.named_parameters()}
    for step, momentum in enumerate(momenta):
        torch.manual_seed(step)
        with torch.no_grad():
            for parameter in jepa.context_encoder.parameters():
                parameter.normal_()
        student = dict(jepa.context_encoder.named_parameters())
        expected = {k: momentum * v + (1 - momentum) * student[k].double() for k, v in expected.items()}
        jepa.update_target(momentum)
    for key, value in jepa.target_encoder.named_parameters():
        torch.testing.assert_close(value.double(), expected[key], atol=1e-6, rtol=1e-5)
    before = copy.deepcopy(jepa.target_encoder.state_dict())
    jepa.update_target(1.0)
    assert all(torch.equal(before[key], value) for key, value in jepa.target_encoder.state_dict().items())


def test_the_target_starts_as_a_copy_of_its_own(jepa: JEPA) -> None:
    pairs = zip(jepa.context_encoder.parameters(), jepa.target_encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


def test_layer_normalised_targets_are_standardised_per_token(jepa: JEPA, video: Tensor) -> None:
    h = jepa.encode(video)
    torch.testing.assert_close(h.mean(-1), torch.zeros(3, 24), atol=1e-5, rtol=0)
    torch.testing.assert_close(h.var(-1, unbiased=False), torch.ones(3, 24), atol=1e-3, rtol=0)
    assert not jepa.encode(video.requires_grad_()).requires_grad, "a target is a constant, whatever it is computed from"


def test_pixel_targets_are_the_hidden_patches_and_reach_the_predictor_alone(video: Tensor) -> None:
    torch.manual_seed(0)
    jepa = JEPA(tiny_config(targets="pixels")).eval()
    grid = jepa.grid(video)
    mask = task_mask("forward", grid, len(video))
    h = jepa.encode(video)
    patches = patchify(video, jepa.config.encoder.tubelet_size, jepa.config.encoder.patch_size)
    torch.testing.assert_close(h, F.layer_norm(patches, patches.shape[-1:]))
    assert torch.equal(jepa.encode(video, mask.target_ids), gather_tokens(h, mask.target_ids))
    z = jepa.predict(video, mask)
    assert z.shape == (*mask.target_ids.shape, jepa.config.encoder.patch_dim)
    loss = jepa(video, [mask])
    torch.testing.assert_close(loss.total, F.l1_loss(z, gather_tokens(h, mask.target_ids)))
    plain = JEPA(tiny_config(targets="pixels", target_norm="none"))
    assert torch.equal(plain.encode(video), patches)
    with pytest.raises(ConfigError, match=r"targets is 'pixel', .*did you mean 'pixels'"):
        JEPA(tiny_config(targets="pixel"))


def test_batch_normalised_targets_use_the_batch_in_training_and_running_statistics_afterwards(video: Tensor) -> None:
    torch.manual_seed(1)
    jepa = JEPA(tiny_config(target_norm="batch")).train()
    raw = jepa.target_encoder(video).flatten(0, 1)
    h = jepa.encode(video).flatten(0, 1)
    mean, var = raw.mean(0), raw.var(0, unbiased=False)
    torch.testing.assert_close(h, (raw - mean) / (var + 1e-5).sqrt(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(jepa.target_norm.running_mean, 0.1 * mean, atol=1e-6, rtol=1e-4)
    jepa.eval()
    alone, together = jepa.encode(video[:1]), jepa.encode(video)[:1]
    torch.testing.assert_close(alone, together)
    expected = (raw - jepa.target_norm.running_mean) / (jepa.target_norm.running_var + 1e-5).sqrt()
    torch.testing.assert_close(jepa.encode(video).flatten(0, 1), expected, atol=1e-4, rtol=1e-4)


def test_distances_to_the_nearest_target_by_hand() -> None:
    # One row of four moments: token 0 visible, 1 visible, 2 and 3 hidden; then two rows, where 3-4-5 makes a distance.
    mask = Mask(torch.tensor([[0, 1]]), torch.tensor([[2, 3]]))
    assert distance_to_targets(mask, Grid(4, 1, 1)).tolist() == [[2.0, 1.0]]
    corner = Mask(torch.tensor([[0, 4]]), torch.tensor([[4 * 5 - 1]]))  # places (0, 0) and (0, 4); target (3, 4)
    assert distance_to_targets(corner, Grid(1, 4, 5)).tolist() == [[5.0, 3.0]]


def test_the_context_loss_is_its_closed_form(video: Tensor) -> None:
    torch.manual_seed(1)
    jepa = JEPA(tiny_config(context_loss=0.5)).eval()
    mask = task_mask("forward", GRID, 3, context=2)
    loss = jepa(video, [mask])
    context = jepa.context_encoder(video, mask.context_ids)
    _, c = jepa.predictor(context, GRID, mask.context_ids, mask.target_ids)
    error = (c - jepa.encode(video)[:, :12]).abs().mean(-1)  # moments 0 and 1, at distances 2 and 1 from moment 2
    weight = torch.tensor([2**-0.5] * 6 + [1.0] * 6)
    torch.testing.assert_close(loss.context, (weight * error).mean().detach())
    torch.testing.assert_close(loss.total.detach(), loss.prediction + 0.5 * loss.context)


@pytest.mark.parametrize("kind", ["sigreg", "vicreg"])
def test_a_regulariser_adds_its_weighted_term(kind: str, video: Tensor) -> None:
    jepa = JEPA(tiny_config(regulariser=kind, regulariser_weight=0.3))
    loss = jepa(video, [mask_named("tube")])
    assert loss.regulariser > 0
    torch.testing.assert_close(loss.total.detach(), loss.prediction + 0.3 * loss.regulariser)
    loss.total.backward()
    assert jepa.context_encoder.norm.weight.grad is not None


def test_a_mask_token_for_each_kind_of_mask(video: Tensor) -> None:
    config = tiny_config()
    config.predictor.num_mask_tokens = 2
    jepa, mask = JEPA(config).eval(), mask_named("tube")
    with torch.no_grad():
        first, second, third = (jepa.predict(video, mask, index) for index in range(3))
        assert torch.equal(first, jepa.predict(video, mask)), "tasks are predicted with the first"
        losses = [jepa(video, [mask], kinds).prediction for kinds in (None, [0], [1])]
    assert not torch.equal(first, second) and torch.equal(first, third), "and around again"
    assert losses[0] == losses[1] != losses[2], "the loss uses the token of the mask's kind"
    jepa(video, [mask], [1]).total.backward()
    unused, used = (token.grad for token in jepa.predictor.mask_tokens)
    assert unused is not None and unused.eq(0).all() and used.ne(0).any(), "else DDP would wait for the first"


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"target_norm is 'btach'.*did you mean 'batch'"):
        JEPA(JEPAConfig(target_norm="btach"))
    with pytest.raises(ConfigError, match="regulariser is 'sig'"):
        JEPA(JEPAConfig(regulariser="sig"))
