"""Figures such as a comparison might give, for the tests of its report: A is ahead of B everywhere."""

import copy
from typing import Any

from decoder.compare.figures import figures
from decoder.compare.judge import Judge

ARMS = ("jepa", "futures", "pixels", "pixels_plus", "copy", "extrapolate", "mean", "target")
ORDER = dict(zip(ARMS, (8, 7, 4, 5, 2, 1, 0, 9), strict=True))  # how good each is here: A far ahead of B


def est(value: float | None, half: float = 0.1, n: int = 64) -> dict[str, Any]:
    known = value is not None
    return {"value": value, "ci95": [value - half, value + half] if known else None, "n": n if known else 0}


def probed(accuracy: float, **more: Any) -> dict[str, Any]:
    return {**more, "accuracy": accuracy, "ci95": [accuracy - 0.02, accuracy + 0.02], "macro_f1": accuracy - 0.01,
            "clips": 1350, "labels": 700}  # fmt: skip


def representation() -> dict[str, Any]:
    final = {"random": 0.29, "pixels": 0.21, "jepa": 0.48, "masked_pixels": 0.39}
    along = {name: [probed(final[name], step=0, clips_seen=0, operations=0)] for name in ("random", "pixels")}
    for name in ("jepa", "masked_pixels"):
        along[name] = [
            probed(final[name] * share, step=int(3000 * share), clips_seen=int(192000 * share), operations=6e13 * share)
            for share in (0.5, 1.0)
        ]
    labels = {name: {"0.1": probed(value - 0.1), "1": probed(value)} for name, value in final.items()}
    return {
        "steps": {"motion": along, "appearance": copy.deepcopy(along)},
        "labels": {"motion": labels, "appearance": copy.deepcopy(labels)},
        "chance": {"motion": 0.125, "appearance": 0.341},
        "probe": "linear", "train_clips": 7110, "test_clips": 1350,
    }  # fmt: skip


def drawn(arm: str) -> dict[str, Any]:
    good = ORDER[arm]
    row = {
        "psnr": est(14.3 + good), "ssim": est(0.5 + good / 50, 0.005), "lpips": est(0.4 - good / 50, 0.005),
        "clean_psnr": est(16.3 + good),
        "by_frame": {"psnr": [est(15.0 + good), est(14.0 + good)],
                     "lpips": [est(0.4 - good / 50), est(0.41 - good / 50)]},
    }  # fmt: skip
    if not arm.startswith(("copy", "extra", "mean", "target")):
        row |= {"best_psnr": est(15.1 + good), "mean_picture_psnr": est(15.6 + good), "best_lpips": est(0.35, 0.005),
                "expected_clean_psnr": est(17.6 + good)}  # fmt: skip
    return row


def rolled(arm: str) -> dict[str, Any]:
    off = 10 - ORDER.get(arm, 10)
    scores = {"error": (off, 0.2), "found": (1 - off / 20, 0.01), "colour": (0.98 - off / 20, 0.01),
              "colour_chance": (0.2, 0.01), "colour_beyond": (0.78 - off / 20, 0.01),
              "error_chance": (12, 0.2), "error_beyond": (12 - off, 0.2), "shape": (0.97 - off / 20, 0.01),
              "count": (0.96 - off / 20, 0.01), "missing": (off / 10, 0.01), "extra": (off / 10, 0.01),
              "psnr": (20 - off, 0.1)}  # fmt: skip
    return {
        key: [{"first": first, "last": last, **est(value, half, 32)} for first, last in ((4, 7), (8, 15), (16, 23))]
        for key, (value, half) in scores.items()
    }


def physics() -> dict[str, Any]:
    permanence, interaction = {"truth": {}}, {"truth": {}}
    for arm in ("truth", *ARMS[:6], "target"):
        off = 10 - ORDER.get(arm, 10)
        permanence[arm] = {"hidden": est(1 - off / 40, 0.01, 40), "returned": est(1 - off / 20, 0.02, 41),
                           "returned_beyond": est(0.7 - off / 20, 0.02, 41),
                           "colour_beyond": est(0.8 - off / 20, 0.02, 41),
                           "time": est(None if arm == "copy" else off / 5, 0.1, 30), "place": est(off, 0.3, 39),
                           "colour": est(0.99 - off / 20, 0.02, 41),
                           "shape": est(0.98 - off / 20, 0.02, 41)}  # fmt: skip
        interaction[arm] = {"found": est(1 - off / 20, 0.02, 55), "error": est(off / 5, 0.05, 54),
                            "error_beyond": est(2.2 - off / 5, 0.05, 54),
                            "angle": est(9.0 * off, 2, 53), "response": est(1 - off / 10, 0.02, 54)}  # fmt: skip
    for row in (permanence["jepa"], interaction["jepa"]):
        row.update({f"best_{key}": copy.deepcopy(value) for key, value in row.items()})
    sprites = {"sprites": 900, "found": 0.99, "mean": 0.09, "p95": 0.21, "colour": 0.98, "shape": 0.97}
    detector = {"main": sprites, "partial": sprites, "distractors": sprites | {"shape": float("nan")}, "extra": 0.002}
    return {"samples": 4, "seen": 4, "permanence": {"clips": 41, "of": 900, "rows": permanence},
            "interaction": {"clips": 55, "of": 120, "rows": interaction}, "detector": detector}  # fmt: skip


def surprised(accuracy: float) -> dict[str, Any]:
    found = {"accuracy": accuracy, "ci95": [accuracy - 0.05, accuracy + 0.05], "pairs": 400, "ties": 2}
    both = {"sight": found, "behind": found, "all": found}
    table = {"vanish": both, "pass": {"sight": found, "all": found}, "vanish + appear": both, "all": both}
    return {"mean": table, "max": table, "event": {**table, "pass": {"sight": None, "all": None}}}


def metrics(**changes: Any) -> dict[str, Any]:
    """Figures such as a run might give in which A is ahead everywhere; `changes` are dotted keys, __ for the dot."""
    accuracies = {"jepa": 0.8, "futures": 0.75, "pixels": 0.6, "pixels_plus": 0.62, "masked_pixels": 0.55, "copy": 0.5,
                  "extrapolate": 0.52, "random_0": 0.5, "random_1": 0.47, "random_2": 0.52}  # fmt: skip
    cost = {"parameters": 2509504, "denoiser_parameters": 1418112, "pretraining_operations": 6.05e13,
            "training_operations": 2.42e13,
            "drawing": {"operations": 6.6e8, "seconds": 0.012, "steps": 8, "peak_bytes": 4.1e7}}  # fmt: skip
    rows = {"jepa": cost | {"latent_operations": 1.6e11}, "pixels": cost | {"pretraining_operations": 0},
            "pixels_plus": cost | {"pretraining_operations": 0, "training_operations": 8.47e13,
                                   "training": {"lr": 2e-3, "diverged": 1}},
            "masked_pixels": {"parameters": 1091392, "pretraining_operations": 4.5e13}}  # fmt: skip
    step = lambda k: {"steps": k, "seconds_per_clip": 0.01 * k, "psnr": est(15.0 + k), "lpips": est(0.4 - k / 50, 0.01)}
    found: dict[str, Any] = {
        "setting": "compare", "budget": 1.0, "commit": "0123456789ab", "seeds": [0], "by_seed": {},
        "environment": {"device": "A processor (2 cores)", "cores": 2, "threads": 2, "precision": "bf16-mixed",
                        "platform": "Linux x86_64", "python": "3.11.9", "torch": "2.11.0"},
        "seconds": {"total": 4211.5, "worlds": 93.5, "jepa": 812.0},
        "clip": {"frames": 8, "height": 32, "width": 32, "stride": 2, "tubelet_size": 2, "patch_size": 8},
        "representation": representation(),
        "pictures": {
            "clips": 64, "samples": 4, "frames": 8, "size": [32, 32],
            "tasks": {task: {arm: drawn(arm) for arm in ARMS} for task in ("forward", "loop")},
            "contexts": [{"context": k, "of": 4, "clips": 64, "rows": {arm: {"psnr": est(13.0 + k + ORDER[arm])}
                                                                       for arm in ARMS}} for k in (1, 2, 3)],
            "same": {"connect": "loop"},
        },
        "distance": {
            "clips": 128, "frames": 8, "size": [32, 32], "task": "forward", "features": "I3D",
            "rows": {arm: {"fvd": {"value": 90.0 - 5 * ORDER.get(arm, 10), "ci95": [85.0 - 5 * ORDER.get(arm, 10), 92.0]
                                   if arm == "truth" else [89.0 - 5 * ORDER[arm], 91.0 - 5 * ORDER[arm]]},
                           "kvd": {"value": 0.0123, "ci95": [-0.001, 0.02]}, "n": 128, "n_truth": 126}
                     for arm in ("truth", *ARMS)},
        },
        "rollout": {"clips": 32, "frames": 24, "seen": 4, "clip_frames": 8,
                    "rows": {arm: rolled(arm) for arm in ("truth", *ARMS[:6])}},
        "physics": physics(),
        "surprise": {"pairs": 400, "windows": 4, "samples": 2,
                     "rows": {arm: surprised(accuracy) for arm, accuracy in accuracies.items()},
                     "real": {"pairs": 8, "rows": {arm: surprised(accuracy) for arm, accuracy in accuracies.items()}}},
        "cost": {"rows": rows, "steps": {arm: [step(k) for k in (1, 2)] for arm in ("jepa", "pixels")}},
        "films": {"columns": ["truth", "shown", "jepa", "pixels", "copy"], "fps": 4, "task": "forward", "films": [
            {"file": "films/0.mp4", "rule": "clip 1 of the test set", "clip": 0, "caption": "a red square falls",
             "ahead_db": 1.7, "frames": 8},
            {"file": "films/1.mp4", "rule": "B furthest ahead of A", "clip": 7, "caption": "a blue circle rests",
             "ahead_db": -2.3, "frames": 8}]},
        "configs": {"jepa": {"out": "runs/compare/jepa", "trainer": {"max_steps": 3000}}},
        "config": {"out": "runs/compare", "world": ["bounce=0.5"], "seeds": [0], "sweep": "", "only": "evaluate"},
    }  # fmt: skip
    return changed(found, **changes)


def paired(found: dict[str, Any], **others: float) -> dict[str, Any]:
    """With rows jepa-OTHER too, which say what the rows of the arms do; or what `others` say: {other: difference}."""
    rooms = [*found["pictures"]["tasks"].values(), *(part["rows"] for part in found["pictures"]["contexts"])]
    rooms += [found[stage]["rows"] for stage in ("distance", "rollout", "surprise")]
    rooms += [found["physics"][claim]["rows"] for claim in ("permanence", "interaction")]
    rooms += [room for part in ("labels", "steps") for room in found["representation"][part].values()]
    for rows in rooms:
        for other in [arm for arm in rows if arm not in ("jepa", "truth") and "-" not in arm]:
            rows[f"jepa-{other}"] = less(rows["jepa"], rows[other], others.get(other))
    return found


def less(first: Any, second: Any, value: float | None = None) -> Any:
    """Every estimate of `first` less that of `second`, or `value`; what is no estimate is left out."""
    if isinstance(first, list):
        return [less(a, b, value) for a, b in zip(first, second, strict=False)]
    key = next((key for key in ("value", "accuracy") if key in first), "")
    if key:
        known = None not in (first[key], second[key])
        told = {k: first[k] for k in ("first", "last", "step") if k in first}
        n = next((first[k] for k in ("n", "pairs", "clips") if k in first), 128)
        half = 0.02 if key == "accuracy" else 0.001
        return told | est((first[key] - second[key] if value is None else value) if known else None, half, n)
    shared = [k for k in first if k in second and isinstance(first[k], dict | list)]
    return {k: less(first[k], second[k], value) for k in shared}


def seeded(*seeds: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The figures of several model seeds in one."""
    stages = ("representation", "pictures", "distance", "rollout", "physics", "surprise", "cost")
    by_seed = {str(i): {key: found[key] for key in stages} for i, found in enumerate(seeds)}
    return copy.deepcopy(seeds[0] | {"seeds": list(range(len(seeds))), "by_seed": by_seed} | changes)


def swept(*settings: tuple[float, dict[str, Any]]) -> dict[str, Any]:
    """The figures of a sweep over (detail, figures there)."""
    stages = ("representation", "pictures", "distance", "rollout", "physics", "surprise", "films", "by_seed", "seconds")
    seconds = {"total": sum(found["seconds"]["total"] for _, found in settings)}
    return copy.deepcopy(settings[0][1] | {
        "seconds": settings[0][1]["seconds"] | seconds,
        "detail": [{"detail": detail, **{key: found[key] for key in stages}} for detail, found in settings]
    })  # fmt: skip


def changed(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`found` with other values at paths such as pictures__tasks__forward__jepa__psnr."""
    for dotted, value in changes.items():
        *rooms, key = dotted.split("__")
        room = found
        for name in rooms:
            room = room[name]
        room[key] = copy.deepcopy(value)
    return found


def judge(found: dict[str, Any]) -> Judge:
    return Judge(figures(found), list(found["by_seed"]))
