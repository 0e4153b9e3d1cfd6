"""Masks. Claims:

- every training mask: ids int64, sorted, without repeats, inside the grid, as many for every sample, context and
  target apart from each other, and together everything where nothing had to be truncated.
- random truncation is unbiased in time: every tubelet is a target equally often, within statistical error; the same
  test finds upstream's `prefix` truncation biased, so it can find a bias.
- blocks have the size and aspect asked for; tubes and futures are what they say; a minimum of context is kept.
- every task mask is its definition, on odd and on single-frame grids too.
- draws are a function of the samples' seeds alone; `per_step` draws some of the masks, all of them in turn.
- what cannot be drawn is refused in words.
"""

import pytest
import torch

from jepa import TASKS, ConfigError, Grid, Mask, MaskCollator, MaskConfig, sample_mask, task_mask
from jepa.grid import coordinates

GRID = Grid(8, 6, 5)
KINDS = (
    MaskConfig(),
    MaskConfig(num_blocks=2, spatial_scale=0.7),
    MaskConfig(num_blocks=3, temporal_scale=0.5),
    MaskConfig(kind="tube", ratio=0.9),
    MaskConfig(kind="future"),
    MaskConfig(truncation="prefix"),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


DRAWABLE = [
    *((config, GRID) for config in KINDS),
    *((config, Grid(1, 4, 4)) for config in KINDS if config.kind != "future"),
    (MaskConfig(kind="future"), Grid(2, 1, 1)),
]


@pytest.mark.parametrize(("config", "grid"), DRAWABLE, ids=str)
def test_a_mask_is_two_disjoint_sorted_sets_of_equal_length(config: MaskConfig, grid: Grid) -> None:
    for seed in range(20):
        mask = sample_mask(config, grid, 6, seeded(seed))
        for ids in mask:
            assert ids.dtype == torch.int64 and ids.shape[0] == 6 and ids.shape[1] > 0
            assert (ids.diff(dim=1) > 0).all(), "sorted, no repeats"
            assert ids.min() >= 0 and ids.max() < grid.num_tokens
        for context, target in zip(*mask, strict=True):
            assert not set(context.tolist()) & set(target.tolist())
        assert mask.context_ids.shape[1] >= round(config.min_context * grid.num_tokens)
    one = sample_mask(config, grid, 1, seeded())
    assert torch.cat(one, dim=1).shape[1] == grid.num_tokens, "a batch of one loses nothing to truncation"


def deviation_in_time(truncation: str) -> float:
    """Largest deviation of a tubelet's target frequency from the mean one, in standard errors."""
    config = MaskConfig(num_blocks=4, truncation=truncation)
    counts = []
    for seed in range(300):
        ids = sample_mask(config, GRID, 8, seeded(seed)).target_ids
        per_tubelet = torch.zeros(GRID.t).index_add_(0, (ids // (GRID.h * GRID.w)).flatten(), torch.ones(ids.numel()))
        counts.append(per_tubelet / ids.numel())
    share = torch.stack(counts)  # (draws, t)
    return float(((share.mean(0) - 1 / GRID.t) / (share.std(0) / len(share) ** 0.5)).abs().max())


def test_every_tubelet_is_a_target_equally_often() -> None:
    assert deviation_in_time("random") < 4
    assert deviation_in_time("prefix") > 40, "upstream's truncation loses the latest tokens"


def test_blocks_have_the_size_and_aspect_that_were_asked_for() -> None:
    grid = Grid(4, 16, 16)
    heights, areas = [], []
    for seed in range(200):
        mask = sample_mask(MaskConfig(num_blocks=1, spatial_scale=0.15), grid, 1, seeded(seed))
        t, h, w = coordinates(grid)[mask.target_ids[0]].unbind(1)
        height, width = int(h.max() - h.min()) + 1, int(w.max() - w.min()) + 1
        assert len(t) == 4 * height * width, "a full rectangle through the whole clip"
        heights.append(height / width)
        areas.append(height * width / 256)
    assert sum(areas) / len(areas) == pytest.approx(0.15, rel=0.1)
    assert min(heights) >= 0.6 and max(heights) <= 1.8 and max(heights) > 1.2 and min(heights) < 0.9
    short = sample_mask(MaskConfig(num_blocks=1, temporal_scale=0.5), grid, 1, seeded())
    assert len(coordinates(grid)[short.target_ids[0], 0].unique()) == 2


def test_tubes_and_futures_are_what_they_say() -> None:
    places = GRID.h * GRID.w
    mask = sample_mask(MaskConfig(kind="tube", ratio=0.8), GRID, 3, seeded())
    for ids in mask.target_ids:
        hidden = ids.reshape(GRID.t, -1) % places
        assert hidden.shape[1] == round(0.8 * places) and (hidden == hidden[0]).all()
    seen = set()
    for seed in range(60):
        future = sample_mask(MaskConfig(kind="future", visible=[0.25, 0.75]), GRID, 2, seeded(seed))
        count = future.context_ids.shape[1] // places
        assert torch.equal(future.context_ids[0], torch.arange(count * places))
        seen.add(count)
    assert seen == {2, 3, 4, 5, 6}, "every fraction between the two is drawn"


def test_a_minimum_of_context_is_kept_even_where_a_mask_hides_everything() -> None:
    everything = MaskConfig(num_blocks=40, spatial_scale=0.9, min_context=0.25)
    for seed in range(5):
        mask = sample_mask(everything, GRID, 4, seeded(seed))
        assert mask.context_ids.shape[1] >= 60
        assert mask.target_ids.shape[1] <= 180


def ids_where(visible: torch.Tensor) -> list[int]:
    return visible.nonzero().flatten().tolist()


@pytest.mark.parametrize("grid", [GRID, Grid(5, 4, 7), Grid(7, 5, 4)], ids=str)
def test_every_task_is_its_definition(grid: Grid) -> None:
    t, h, w = coordinates(grid).unbind(1)
    half, quarter, last = grid.t // 2, grid.t // 4, grid.t - 1
    inner = (h >= grid.h // 4) & (h < grid.h - grid.h // 4) & (w >= grid.w // 4) & (w < grid.w - grid.w // 4)
    seen = {
        "forward": t < half,
        "backward": t >= grid.t - half,
        "animate": t == 0,
        "loop": (t == 0) | (t == last),
        "connect": (t < quarter) | (t >= grid.t - quarter),
        "infill": ~inner,
    }
    assert set(seen) == set(TASKS)
    for task, visible in seen.items():
        mask = task_mask(task, grid, 2)
        assert mask.context_ids.dtype == mask.target_ids.dtype == torch.int64
        for row in range(2):
            assert mask.context_ids[row].tolist() == ids_where(visible), task
            assert mask.target_ids[row].tolist() == ids_where(~visible), task
    assert task_mask("forward", grid, 1, context=3).context_ids[0].tolist() == ids_where(t < 3)
    assert task_mask("backward", grid, 1, context=1).context_ids[0].tolist() == ids_where(t == last)
    assert task_mask("connect", grid, 1, context=2).target_ids[0].tolist() == ids_where((t >= 2) & (t <= last - 2))


def test_a_task_that_sees_nothing_or_everything_is_refused() -> None:
    for task in ("forward", "backward", "animate", "loop", "connect"):
        with pytest.raises(ConfigError, match=f"{task}.*sees everything.*longer clip"):
            task_mask(task, Grid(1, 4, 4), 1)
    with pytest.raises(ConfigError, match=r"infill.*sees nothing.*larger frames"):
        task_mask("infill", Grid(4, 2, 2), 1)
    with pytest.raises(ConfigError, match="context is 0"):
        task_mask("forward", GRID, 1, context=0)
    with pytest.raises(ConfigError, match=r"did you mean 'forward'"):
        task_mask("foreward", GRID, 1)
    assert task_mask("infill", Grid(1, 4, 4), 1).target_ids.shape == (1, 4)


def sample(seed: int) -> dict[str, object]:
    return {"video": torch.zeros(3, 8, 16, 24), "label": seed % 3, "seed": seed}


def same(one: list[Mask], other: list[Mask]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_masks_are_a_function_of_the_samples_seeds() -> None:
    collate = MaskCollator([MaskConfig(), MaskConfig(kind="tube")], 2, 8)
    first = collate([sample(5), sample(6)])
    torch.rand(100)  # the global generator has no say
    again = collate([sample(5), sample(6)])
    other = collate([sample(9), sample(6)])
    assert first["video"].shape == (2, 3, 8, 16, 24) and first["label"].tolist() == [2, 0]
    assert [mask.context_ids.shape[0] for mask in first["masks"]] == [2, 2]
    assert same(first["masks"], again["masks"]) and not same(first["masks"], other["masks"])


def test_per_step_draws_some_masks_and_all_in_turn() -> None:
    kinds = [MaskConfig(kind="tube", ratio=r) for r in (0.2, 0.5, 0.8)]
    collate = MaskCollator(kinds, 2, 8, per_step=1)
    sizes = []
    for seed in range(300):
        batch = collate([sample(seed)])
        (mask,), (kind,) = batch["masks"], batch["mask_kinds"]
        assert mask.target_ids.shape[1] == 4 * round(6 * (0.2, 0.5, 0.8)[kind]), "kinds are places in the config"
        sizes.append(mask.target_ids.shape[1])
    found = {size: sizes.count(size) for size in set(sizes)}
    assert len(found) == 3 and min(found.values()) > 70
    two = MaskCollator(kinds, 2, 8, per_step=2)([sample(1)])["masks"]
    assert len(two) == 2 and two[0].target_ids.shape[1] < two[1].target_ids.shape[1], "in the order of the config"


@pytest.mark.parametrize(
    ("config", "grid", "words"),
    [
        (MaskConfig(kind="tubes"), GRID, "masks.kind is 'tubes'.*did you mean 'tube'"),
        (MaskConfig(truncation="none"), GRID, "masks.truncation is 'none'"),
        (MaskConfig(kind="future"), Grid(1, 4, 4), "two tubelets.*raise num_frames"),
        (MaskConfig(kind="tube", ratio=0.0), GRID, "tube mask hides nothing"),
        (MaskConfig(aspect=[0.5]), GRID, "masks.aspect"),
        (MaskConfig(kind="future", visible=[0.9, 0.1]), GRID, "masks.visible"),
    ],
)
def test_what_cannot_be_drawn_is_refused(config: MaskConfig, grid: Grid, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sample_mask(config, grid, 2, seeded())
    with pytest.raises(ConfigError, match="masks is empty"):
        MaskCollator([], 2, 8)
