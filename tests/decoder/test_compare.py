"""The comparison as a job. Claims:

1. Nothing is trained twice; `only=evaluate` trains nothing, refuses where something is missing, and measures everything
   anew, exactly once: killed and given again, it goes on.
2. Other settings than those a folder was trained with are refused; what depends on other settings of measuring is
   measured again, and nothing else. What cannot be meant is named. A seed that was trained and measured elsewhere is
   taken as it is, by the settings that came with it.
3. A sweep trains each setting in a folder of its own, uses a plain run that has one already, changes nothing of it, and
   trains nothing twice.
4. (slow) The whole job runs on real videos from nothing, and every number of its arms is there.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.worlds import WorldConfig
from decoder.compare import job
from decoder.compare.plan import CompareConfig
from decoder.metric_weights import missing_weights
from jepa import ConfigError
from jepa.config import load_config

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)


@pytest.fixture
def killed() -> set[str]:
    """Names of stages that are interrupted instead of run."""
    return set()


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: set[str]) -> tuple[CompareConfig, list[str]]:
    """A comparison whose stages only note that they ran, and write their result."""
    config = load_config(CompareConfig, HOUSE / "configs/compare/worlds_tiny.yaml", [f"out={tmp_path}/compare"])
    ran: list[str] = []
    plan = job.plan

    def noted(stage: job.Stage) -> job.Stage:
        def run() -> None:
            if stage.name in killed:
                raise KeyboardInterrupt
            ran.append(stage.name.removesuffix("/0"))
            stage.result.parent.mkdir(parents=True, exist_ok=True)
            measured = {"commit": "c0ffee", "settings": stage.config} if isinstance(stage.config, dict) else {}
            stage.result.write_text(json.dumps({"measured": measured}))

        return replace(stage, run=run)

    monkeypatch.setattr(job, "plan", lambda settings, arms: [noted(stage) for stage in plan(settings, arms)])
    monkeypatch.setattr(job, "write_page", lambda out, metrics: out / "report.html")
    return config, ran


def test_nothing_is_done_twice(staged: tuple[CompareConfig, list[str]]) -> None:
    config, ran = staged
    with pytest.raises(ConfigError, match=r"only=evaluate, and .* still lacks: Worlds"):
        job.compare(replace(config, only="evaluate"))
    assert not ran
    job.compare(config)
    first = list(ran)
    assert first[: len(job.TRAININGS)] == list(job.TRAININGS) and first[len(job.TRAININGS) :] == list(job.STAGES)
    job.compare(config)
    assert ran == first
    (Path(config.out) / "seed0" / "pixels" / "summary.json").unlink()  # as if it had been killed there
    job.compare(config)
    assert ran == [*first, "pixels"]
    job.compare(replace(config, only="evaluate"))
    assert ran == [*first, "pixels", *job.STAGES]
    metrics = json.loads((Path(config.out) / "metrics.json").read_text())
    assert set(job.STAGES) <= metrics.keys() and metrics["seeds"] == [0]


def test_other_trainings_are_refused_and_other_measurements_are_not(staged: tuple[CompareConfig, list[str]]) -> None:
    config, ran = staged
    job.compare(config)
    with pytest.raises(ConfigError, match="made with other settings"):
        job.compare(replace(config, world=["bounce=0.1"]))
    first = list(ran)
    job.compare(replace(config, clips=16, rollout_samples=2))
    assert ran == [*first, "pictures", "rollout", "physics", "cost", "films"], "what depends on these settings alone"
    metrics = json.loads((Path(config.out) / "metrics.json").read_text())
    assert metrics["measured"] == dict.fromkeys(job.STAGES, "c0ffee") and "measured" not in metrics["pictures"]
    job.compare(replace(config, clips=16, rollout_samples=2, progress=False))
    assert len(ran) == len(first) + 5
    job.compare(replace(config, only="evaluate"))
    assert ran[len(first) + 5 :] == list(job.STAGES)


def test_measuring_again_goes_on_where_it_was_killed(staged: tuple[CompareConfig, list[str]], killed: set[str]) -> None:
    config, ran = staged
    job.compare(config)
    again, count, names = replace(config, only="evaluate"), len(ran), list(job.STAGES)
    killed.add("physics/0")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            job.compare(again)
    assert ran[count:] == names[: names.index("physics")]
    killed.clear()
    job.compare(again)
    assert ran[count:] == names, "everything once"
    job.compare(again)
    assert ran[count:] == names * 2, "and, asked for again, once more"
    killed.add("cost/0")
    with pytest.raises(KeyboardInterrupt):
        job.compare(again)
    killed.clear()
    job.compare(config)
    assert ran[count:] == names * 3, "without `only` the rest is measured as well"
    job.compare(config)
    assert ran[count:] == names * 3


def test_a_sweep_killed_while_it_measures_again_measures_no_setting_twice(
    staged: tuple[CompareConfig, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ran = staged
    wide = replace(config, sweep="detail", detail=[0.0, 1.0])
    job.compare(wide)
    count, pages = len(ran), []

    def page(out: Path, metrics: dict[str, Any]) -> Path:
        pages.append(out)
        if len(pages) == 1:  # the first setting is measured
            raise KeyboardInterrupt
        return out / "report.html"

    monkeypatch.setattr(job, "write_page", page)
    again = replace(wide, only="evaluate")
    with pytest.raises(KeyboardInterrupt):
        job.compare(again)
    job.compare(again)
    assert ran[count:] == list(job.STAGES) * 2, "each setting once"
    job.compare(again)
    assert ran[count:] == list(job.STAGES) * 4, "and, asked for again, once more"


def test_a_round_takes_in_seeds_that_are_asked_for_later(
    staged: tuple[CompareConfig, list[str]], killed: set[str]
) -> None:
    config, ran = staged
    both = replace(config, seeds=[0, 1])
    job.compare(both)
    count, names = len(ran), list(job.STAGES)
    killed.add("films/0")
    with pytest.raises(KeyboardInterrupt):
        job.compare(replace(config, only="evaluate"))
    killed.clear()
    job.compare(replace(both, only="evaluate"))
    assert sorted(ran[count:]) == sorted([*names, *(f"{name}/1" for name in names)])


def test_a_sweep_uses_the_plain_run_and_trains_nothing_of_it_again(
    staged: tuple[CompareConfig, list[str]], killed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ran = staged
    pages: list[Path] = []
    monkeypatch.setattr(job, "write_page", lambda out, metrics: pages.append(out) or out / "report.html")
    out = Path(config.out)
    plain = load_config(WorldConfig, config.worlds, config.world).detail
    job.compare(config)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    pages.clear()
    one = len(ran)
    wide = replace(config, sweep="detail", detail=[0.75, plain])
    killed.add("pixels/0")
    with pytest.raises(KeyboardInterrupt):
        job.compare(wide)
    killed.clear()
    job.compare(wide)
    assert ran[one:] == ran[:one], "one other setting, and nothing twice"
    assert pages == [out / "detail" / "0.75", out, out / "detail"]
    after = {file: file.read_bytes() for file in before}
    ledger = out / "stages.json"
    assert {file for file in before if after[file] != before[file]} <= {ledger, out / "metrics.json"}
    metrics = json.loads((out / "detail" / "metrics.json").read_text())
    assert [row["detail"] for row in metrics["detail"]] == [0.75, plain] and metrics["setting"] == out.name
    own = json.loads((out / "detail" / "0.75" / "metrics.json").read_text())
    assert own["setting"] == f"{out.name}, detail 0.75"
    for row in metrics["detail"]:
        assert {*job.STAGES, "by_seed", "seconds"} <= row.keys()
    assert metrics["config"]["sweep"] == "detail" and "worlds" in metrics["configs"]
    job.compare(wide)
    assert len(ran) == 2 * one


def test_a_sweep_alone_trains_every_setting_in_a_folder_of_its_own(staged: tuple[CompareConfig, list[str]]) -> None:
    config, ran = staged
    wide = replace(config, sweep="detail", detail=[0.0, 1.0])
    job.compare(wide)
    count = len(ran)
    assert count == 2 * (len(job.TRAININGS) + len(job.STAGES))
    assert {path.name for path in (Path(config.out) / "detail").iterdir() if path.is_dir()} == {"0", "1"}
    job.compare(config)  # a plain comparison afterwards is one of its own, and the sweep keeps what it has
    assert len(ran) == count * 3 // 2
    job.compare(wide)
    assert len(ran) == count * 3 // 2


def test_seeds_may_be_added(staged: tuple[CompareConfig, list[str]]) -> None:
    config, ran = staged
    job.compare(config)
    count = len(ran)
    job.compare(replace(config, seeds=[0, 1]))
    arms = [name for name in job.TRAININGS if name not in job.WORLDS]
    assert ran[count:] == [f"{name}/1" for name in (*arms, *job.STAGES)]
    metrics = json.loads((Path(config.out) / "metrics.json").read_text())
    assert metrics["seeds"] == [0, 1] and metrics["by_seed"].keys() == {"0", "1"}


def test_a_seed_of_another_machine_is_taken_if_it_was_trained_alike(staged: tuple[CompareConfig, list[str]]) -> None:
    config, ran = staged
    job.compare(replace(config, out=f"{config.out}_there"))
    there, here = Path(f"{config.out}_there") / "seed0", Path(config.out) / "seed0"
    shutil.copytree(there, here)
    with pytest.raises(ConfigError, match=r"seed0 was made with other settings .*decoder/0\.out"):
        job.compare(config)
    plan = here / "plan.json"  # as if that machine had called the folder alike
    text = plan.read_text().replace(f"{config.out}_there", config.out)
    plan.unlink()
    with pytest.raises(ConfigError, match=r"seed0 holds trainings, and no plan\.json that says how they were made"):
        job.compare(config)
    plan.write_text(text)
    count = len(ran)
    job.compare(replace(config, seeds=[0, 1]))
    arms = [name for name in job.TRAININGS if name not in job.WORLDS]
    assert ran[count:] == [*job.WORLDS, *(f"{name}/1" for name in (*arms, *job.STAGES))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("budget=0", "budget is 0"),
        ("tasks=[forwards]", "did you mean 'forward'"),
        ("tasks=[]", "tasks is empty"),
        ("only=train", "only is 'train'"),
        ("sweep=noise", "sweep is 'noise'"),
        ("samples=0", "samples is 0"),
        ("pixels=[model.depth=8]", "only optim and flow may differ"),
        ("futures=[optim.lrr=1]", "did you mean optim.lr"),
        ("seeds=[]", "seeds is empty"),
        ("rollout_samples=0", "rollout_samples is 0"),
        ("label_fractions=[0.1]", "label_fractions is .*1 among them"),
        ("distance_clips=1", "distance_clips is 1: give at least 3, or 0"),
    ],
)
def test_what_cannot_be_meant_is_named(words: str, message: str, tmp_path: Path) -> None:
    config = load_config(CompareConfig, HOUSE / "configs/compare/worlds_tiny.yaml", [f"out={tmp_path}/c", words])
    with pytest.raises(ConfigError, match=message):
        job.compare(config)
    assert not (tmp_path / "c").exists()


TRIED = ["budget=0.004", "clips=12", "samples=2", "rollout_clips=8", "rollout_lengths=2", "rollout_samples=2",
         "steps=[1]", "films=1", "points=2", "progress=false", "probe_clips=60", "surprise_pixels=true"]  # fmt: skip


@pytest.mark.slow
def test_the_whole_job(tmp_path: Path) -> None:
    words = [f"out={tmp_path}/c", "distance_clips=64", *TRIED]
    config = load_config(CompareConfig, HOUSE / "configs/compare/worlds_tiny.yaml", words)
    report = job.compare(config)
    metrics = json.loads((tmp_path / "c" / "metrics.json").read_text())
    drawn = {"jepa", "futures", "pixels", "pixels_plus", "copy", "extrapolate", "mean", "target"}
    controls = {"pixels-copy", "pixels_plus-copy"}
    assert metrics["pictures"]["same"] == {"connect": "loop"}, "four tubelets leave one mask for both"
    for task in set(config.tasks) - {"connect"}:
        rows = metrics["pictures"]["tasks"][task]
        assert {name for name in rows if "-" not in name} == drawn
        assert {name for name in rows if "-" in name} == {f"jepa-{arm}" for arm in drawn - {"jepa"}} | controls
        assert rows["jepa-pixels"]["psnr"].keys() == {"value", "ci95", "n"}
    labels, steps = (metrics["representation"][key]["motion"] for key in ("labels", "steps"))
    others = {f"jepa-{arm}" for arm in ("masked_pixels", "random", "pixels")}
    assert {"jepa", "masked_pixels", "random", "pixels", *others} == labels.keys() == steps.keys()
    for name in others:
        assert [row["step"] for row in steps[name]] == [row["step"] for row in steps["jepa"]]
        assert labels[name].keys() == labels["jepa"].keys()
        other = labels[name.removeprefix("jepa-")]["1"]["accuracy"]
        assert labels[name]["1"]["value"] == pytest.approx(labels["jepa"]["1"]["accuracy"] - other)
    judged = metrics["surprise"]["rows"]
    assert judged.keys() >= {"jepa", "futures", "pixels", "masked_pixels", "random_0", "copy", "jepa_pixels", *controls}
    both = judged["jepa-pixels"]["mean"]["all"]["all"]
    apart = [judged[arm]["mean"]["all"]["all"]["accuracy"] for arm in ("jepa", "pixels")]
    assert both["value"] == pytest.approx(apart[0] - apart[1]) and both["n"] == metrics["surprise"]["pairs"]
    distance = metrics["distance"]
    if not missing_weights():
        half = distance["clips"]  # far fewer than were asked for
        there = len((tmp_path / "c" / "worlds" / "test.csv").read_text().splitlines()) - 1
        assert half == there // 2 < 64 and all(row.get("n_truth", half) == half for row in distance["rows"].values())
        assert distance["rows"]["jepa-pixels"]["fvd"]["n"] == half
        assert [part["first"] for part in distance["horizons"]] == [4, 8]
        assert distance["horizons"][0]["rows"].keys() >= {"truth", "jepa", "pixels", "copy", "jepa-pixels"}
    cost = metrics["cost"]["rows"]
    assert cost["pixels"]["training_operations"] == pytest.approx(cost["jepa"]["training_operations"], rel=0.02)
    assert cost["masked_pixels"]["parameters"] < cost["jepa"]["parameters"] < cost["futures"]["parameters"]
    rollouts = metrics["rollout"]["rows"]
    first = lambda key: rollouts["pixels"][key][0]["value"]
    assert first("best_psnr") >= first("psnr") and first("best_error") <= first("error")
    assert rollouts["jepa-pixels"]["error"][-1]["n"] == 8 and "squared_error" not in rollouts["jepa"]
    assert rollouts["truth"]["error"][-1]["value"] < 0.5 < rollouts["copy"]["error"][-1]["value"]
    assert metrics["physics"]["detector"]["main"]["mean"] < 0.5
    assert report.is_file() and len(list((tmp_path / "c" / "seed0" / "measured" / "films").glob("*.mp4"))) == 4
    for file in (*tmp_path.rglob("*.ckpt"), *tmp_path.rglob("*.safetensors")):  # a seed may come without them
        file.unlink()
    job.compare(config)
    assert not list(tmp_path.rglob("*.ckpt")), "trained again"


@pytest.mark.slow
def test_a_whole_sweep(tmp_path: Path) -> None:
    words = [
        f"out={tmp_path}/c",
        "distance_clips=0",
        "sweep=detail",
        "detail=[0.0,1.0]",
        *TRIED,
        "surprise_pixels=false",
    ]
    config = load_config(CompareConfig, HOUSE / "configs/compare/worlds_tiny.yaml", words)
    report = job.compare(config)
    assert report == tmp_path / "c" / "detail" / "report.html" and report.is_file()
    metrics = json.loads((report.parent / "metrics.json").read_text())
    for row in metrics["detail"]:
        assert row["rollout"]["rows"].keys() >= {"jepa", "pixels", "jepa-pixels"}
        assert row["physics"]["detector"]["main"]["mean"] < 0.5
        worlds = json.loads((report.parent / f"{row['detail']:g}" / "worlds" / "world.json").read_text())
        assert worlds["config"]["detail"] == row["detail"]
    trained = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("last.ckpt")}
    assert len(trained) == 12
    job.compare(replace(config, only="evaluate"))
    assert {file: file.stat().st_mtime_ns for file in trained} == trained
