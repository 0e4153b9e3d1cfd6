"""Procedural physics as real video files: simulate, draw, encode, and write down everything that is known.

    generate(WorldConfig(out="runs/worlds", clips=2000))

    runs/worlds/videos/000000.mp4 ...   H.264, read like any other video
    runs/worlds/clips.csv               path, label (motion class), split, shape, colour, size, radius, caption, ...
    runs/worlds/{train,val,test}.csv    the same rows by split
    runs/worlds/truth.npz               positions, velocities, collisions, visibility: see `load_truth`
    runs/worlds/world.json              settings and names; written last, so its presence means that all is there

Notable: clip i depends on (settings, i) alone, so the number of workers changes nothing but the time, and an
interrupted run goes on where it stopped.
"""

import csv
import io
import json
import multiprocessing
import os
import signal
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from tqdm import tqdm

from .errors import DataError
from .worlds_physics import simulate
from .worlds_render import render
from .worlds_scene import COLOUR_NAMES, MOTIONS, REFERENCE, SHAPES, Bar, Episode, WorldConfig, check, size_word
from .writer import replacing, write_video

__all__ = ["COLOUR_NAMES", "MOTIONS", "SHAPES", "Bar", "Episode", "WorldConfig", "clean_clips", "generate",
           "load_truth", "load_world", "render", "simulate"]  # fmt: skip

FORMAT = 1  # raise when the same settings start to give other clips
CHUNK = 8  # clips a process takes at a time; after Ctrl-C those under way are finished
SPLITS = ("train", "val", "test")


def generate(config: WorldConfig, progress: bool = True) -> Path:
    """Writes the whole set below `config.out` and returns that folder; a finished set of the same settings is kept.

    Raises DataError if the settings are impossible, or the folder holds a set made with other settings or other files.
    """
    if OmegaConf.is_config(config):
        config = OmegaConf.to_object(config)  # type: ignore[assignment]
    check(config)
    out = Path(config.out)
    wanted = {"format": FORMAT, "config": _identity(config)}
    if _found(out, wanted):
        return out
    (out / "videos").mkdir(parents=True, exist_ok=True)
    _write(out / "world.part.json", json.dumps(wanted, indent=2).encode())
    rows = _all_clips(config, progress)
    _write_tables(config, out, rows)
    names = {"motions": MOTIONS, "shapes": SHAPES, "colours": COLOUR_NAMES, "splits": SPLITS}
    _write(out / "world.json", json.dumps({**wanted, "names": names}, indent=2).encode())
    (out / "world.part.json").unlink()
    return out


def load_truth(path: str | Path) -> dict[str, np.ndarray]:
    """Ground truth of a set, `path` being its folder or its truth.npz. N clips, T frames, K = objects_max, padded.

    positions (N, T, K, 2) px, velocities (N, T, K, 2) px per frame, angles (N, T, K), visible (N, T, K) in 0..1, all
    NaN where there is no object; shapes, colours (N, K) int, -1 where none; radii (N, K), NaN where none; motions,
    num_objects, splits (N,) int; gravity (N,); bars (N, 3) axis, low, high, NaN where none; collisions (C, 4) int rows
    clip, frame, a, b with b = -1 for a wall.
    """
    path = Path(path)
    file = path / "truth.npz" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file} does not exist; write the worlds again with `jepa worlds out=...`.")
    try:
        with zipfile.ZipFile(file):  # which np.load does not insist on
            pass
        with np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        if not all(isinstance(value, np.ndarray) for value in found.values()):
            raise ValueError("it holds more than arrays")
        return found
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file} is damaged ({error}): delete its folder, and write the worlds again") from None


def load_world(path: str | Path) -> WorldConfig:
    """The settings that decide what the clips of a set look like, from the folder's world.json."""
    file = Path(path) / "world.json"
    try:
        return WorldConfig(**json.loads(file.read_text())["config"])
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; write the worlds again with `jepa worlds out=...`.") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file} cannot be read: delete its folder, and write the worlds again") from None


def clean_clips(path: str | Path, indices: Iterable[int]) -> Iterator[np.ndarray]:
    """Frames (T, H, W, 3) uint8 of clips of a set without its unpredictable detail: nobody can predict more of them.

    They are drawn anew, and have not been through H.264. DataError where the set holds other scenes than its settings
    give today.
    """
    config, positions = replace(load_world(path), detail=0.0), load_truth(path)["positions"]
    for index in map(int, indices):
        episode = simulate(config, index)
        if not np.allclose(positions[index][:, : len(episode.shapes)], episode.positions, atol=1e-3):
            raise DataError(f"{path} was written by another version of this program: delete it, and write it again")
        yield render(episode)


def split_of(config: WorldConfig) -> np.ndarray:
    """Split (N,) of every clip as an index into SPLITS: random, with equal shares of every motion class (up to one)."""
    rng = np.random.default_rng([config.seed, config.clips])
    luck = rng.permutation(config.clips)
    motions = np.arange(config.clips) % len(MOTIONS)
    rank = np.empty(config.clips, np.int64)  # place of a clip within its class
    for motion in range(len(MOTIONS)):
        members = np.flatnonzero(motions == motion)
        rank[members] = luck[members].argsort().argsort()
    order = np.lexsort((luck, rank))  # one of every class, then another of every class, and so on
    val, test = (max(round(f * config.clips), int(f > 0)) for f in (config.val_fraction, config.test_fraction))
    splits = np.zeros(config.clips, np.int64)
    splits[order[:val]] = 1
    splits[order[val : val + test]] = 2
    return splits


def _identity(config: WorldConfig) -> dict[str, object]:
    """The settings that decide what the clips look like."""
    settings = json.loads(json.dumps(asdict(config)))
    return {key: value for key, value in settings.items() if key not in ("out", "workers")}


def _found(out: Path, wanted: dict[str, object]) -> bool:
    """Whether the finished set lies there already; DataError where something else does."""
    for name in ("world.json", "world.part.json"):
        marker = out / name
        if not marker.is_file():
            continue
        try:
            held = json.loads(marker.read_text())
            held = {"format": held["format"], "config": held["config"]}
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{marker} cannot be read; delete {out} or choose another `out`.") from None
        if held != wanted:
            new: dict = wanted["config"]  # type: ignore[assignment]
            keys = sorted(k for k in new if held["config"].get(k) != new[k])
            reason = f"other settings ({', '.join(keys)})" if keys else "another version of this program"
            raise DataError(f"{out} holds worlds made with {reason}; delete it or choose another `out`.")
        return name == "world.json"
    if (out / "videos").is_dir() and any((out / "videos").iterdir()):
        raise DataError(f"{out / 'videos'} holds files that are not worlds; choose another `out`.")
    return False


def _all_clips(config: WorldConfig, progress: bool) -> list[dict]:
    """Writes every video and returns what is known of the clips, in order of their index."""
    starts = range(0, config.clips, CHUNK)
    workers = min(config.workers or os.cpu_count() or 1, len(starts))
    rows: list[dict] = []
    with tqdm(total=config.clips, desc="worlds", unit="clip", disable=not progress) as bar:
        for chunk in _chunks(config, starts, workers):
            rows.extend(chunk)
            bar.update(len(chunk))
    return sorted(rows, key=lambda row: row["index"])


def _chunks(config: WorldConfig, starts: range, workers: int) -> Iterator[list[dict]]:
    if workers == 1:
        yield from (_chunk(config, start) for start in starts)
        return
    # Spawned, not forked: the caller may hold threads (torch, a notebook) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        for future in as_completed([pool.submit(_chunk, config, start) for start in starts]):
            yield future.result()
    except BrokenProcessPool:
        raise DataError(
            "A process that writes worlds has died. In a script, call `generate` below `if __name__ == '__main__':`;"
            " if memory is short, give fewer `workers`."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunk(config: WorldConfig, start: int) -> list[dict]:
    return [_clip(config, index) for index in range(start, min(start + CHUNK, config.clips))]


def _clip(config: WorldConfig, index: int) -> dict:
    """Writes one video, unless an interrupted run has left it there complete, and returns its truth."""
    episode = simulate(config, index)
    video = Path(config.out) / "videos" / f"{index:06d}.mp4"
    if not video.exists():
        write_video(video, render(episode), config.fps, config.crf)
    keys = ("index", "motion", "gravity", "shapes", "colours", "radii", "positions", "velocities", "angles", "visible",
            "collisions", "bar", "caption")  # fmt: skip
    return {key: getattr(episode, key) for key in keys}


def _write_tables(config: WorldConfig, out: Path, rows: list[dict]) -> None:
    splits = split_of(config)
    header = ("path", "label", "split", "shape", "colour", "size", "radius", "objects", "occluder", "caption")
    lines = []
    for row, split in zip(rows, splits, strict=True):
        word = size_word(row["radii"][0] * REFERENCE / config.size)
        lines.append((f"videos/{row['index']:06d}.mp4", MOTIONS[row["motion"]], SPLITS[split], SHAPES[row["shapes"][0]],
                      COLOUR_NAMES[row["colours"][0]], word, f"{row['radii'][0]:.2f}", len(row["radii"]),
                      int(row["bar"] is not None), row["caption"]))  # fmt: skip
    for name in ("clips", *SPLITS):
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(line for line in lines if name in ("clips", line[2]))
        _write(out / f"{name}.csv", table.getvalue().encode())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_truth(config, rows, splits))  # type: ignore[arg-type]
    _write(out / "truth.npz", buffer.getvalue())


def _truth(config: WorldConfig, rows: list[dict], splits: np.ndarray) -> dict[str, np.ndarray]:
    most = config.objects_max

    def padded(key: str, axis: int, fill: float, kind: Callable[..., np.ndarray]) -> np.ndarray:
        def pad(values: np.ndarray) -> np.ndarray:
            widths = [(0, most - values.shape[axis]) if a == axis else (0, 0) for a in range(values.ndim)]
            return np.pad(values, widths, constant_values=fill)

        return kind([pad(row[key]) for row in rows])

    floats: Callable[..., np.ndarray] = lambda values: np.array(values, np.float32)
    ints: Callable[..., np.ndarray] = lambda values: np.array(values, np.int64)
    return {
        **{key: padded(key, 1, np.nan, floats) for key in ("positions", "velocities", "angles", "visible")},
        **{key: padded(key, 0, -1, ints) for key in ("shapes", "colours")},
        "radii": padded("radii", 0, np.nan, floats),
        "motions": ints([row["motion"] for row in rows]),
        "num_objects": ints([len(row["radii"]) for row in rows]),
        "splits": splits,
        "gravity": floats([row["gravity"] for row in rows]),
        "bars": floats([row["bar"] or (np.nan, np.nan, np.nan) for row in rows]),
        "collisions": ints([(row["index"], *hit) for row in rows for hit in row["collisions"]]).reshape(-1, 4),
    }


def _write(path: Path, content: bytes) -> None:
    """Atomic: an interruption leaves the old file or the new one."""
    with replacing(path) as partial:
        partial.write_bytes(content)
