"""Latents on disk: clips of the training stream, encoded once, so that a decoder trains without running the encoder.

Notable:
- Pixels are kept as bytes, exactly; latents in float16: those of the whole clip, and what is predicted in each task
  that training may draw. Two trainings on the same shards meet the same clips.
- A shard appears whole or not at all, and is a function of nothing but its place in the stream: a build that was killed
  goes on where it stopped, and several processes may share one, each skipping what another has written.
- Reading maps a file into memory and touches the rows that are asked for, nothing else.

Layout of a folder:
  index.json               what the shards were made of; whoever asks for something else is refused
  shard-00000.safetensors  video (n,T,H,W,C) uint8; target, and one for each task, (n,N,D) float16
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from decoder.latents import LatentSource, LatentStats
from jepa.config import ConfigError, differences
from jepa.errors import CheckpointError
from jepa.files import replacing, write_text
from jepa.resuming import SAME_STREAM
from jepa.weights import read_json

VIDEO, TARGET = "video", "target"
SHARD_BYTES = 512e6  # of a file at most, unless one clip is larger; a build holds as much in memory
MAY_CHANGE = tuple(f"data.{key}" for key in (*SAME_STREAM, "batch_size", "max_bad_*"))  # the same clips all the same

Clips = Callable[[list[range]], Iterable[tuple[Tensor, Tensor]]]


def task_name(task: str, context: int | None) -> str:
    """What the latents predicted in a task are called: forward, or forward-3 with a context of 3 tubelets."""
    return task if context is None else f"{task}-{context}"


@dataclass(frozen=True)
class ShardIndex:
    """What a folder holds, as `index.json` says it.

    jepa, predictor     fingerprints of the target encoder, and of what predicts.
    data, videos        settings of the stream that the clips are the first `clips` of, and a digest of its videos.
    tasks               names (`task_name`) of what is predicted.
    video, grid, dim    (T, H, W, C) of a clip, its tokens (t, h, w), and the width of a latent.
    """

    jepa: str
    predictor: str
    data: dict[str, Any]
    videos: str
    tasks: list[str]
    clips: int
    video: list[int]
    grid: list[int]
    dim: int
    dtype: str = "float16"

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of everything that is stored of a clip."""
        return {VIDEO: self.video} | {name: [math.prod(self.grid), self.dim] for name in (TARGET, *self.tasks)}

    @property
    def clip_bytes(self) -> int:
        """T*H*W*C + 2 * N*D * (1 + tasks)."""
        return sum(math.prod(shape) * (1 if name == VIDEO else 2) for name, shape in self.shapes.items())


class Shards:
    """A folder of shards, opened or begun; ConfigError where it holds shards of something else."""

    def __init__(self, folder: str | Path, index: ShardIndex) -> None:
        if index.clips < 1:
            raise ConfigError(f"shard_clips is {index.clips}: give at least 1")
        self.folder, self.index = Path(folder), index
        self.per_shard = max(1, int(SHARD_BYTES / index.clip_bytes))
        self.rows = [range(i, min(i + self.per_shard, index.clips)) for i in range(0, index.clips, self.per_shard)]
        if any(self.folder.glob("shard-*.safetensors")):  # an index without shards claims nothing
            self._check_index()

    def file(self, shard: int) -> Path:
        """Where a shard is, or will be."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def read(self, clip: int, name: str) -> Tensor:
        """The pixels (T,H,W,C) uint8 of a clip (VIDEO), or its latents (N,D) float16 (TARGET, or a `task_name`)."""
        with self._opened(clip // self.per_shard) as shard:
            return shard.get_slice(name)[clip % self.per_shard]

    def statistics(self, clips: int) -> LatentStats:
        """Of the target latents of the first `clips` clips, or of all where there are fewer."""
        stats = LatentStats(self.index.dim)
        for clip in range(min(clips, self.index.clips)):
            stats.update(self.read(clip, TARGET))
        return stats

    def fill(self, source: LatentSource, clips: Clips, share: float = 0.0, progress: bool = True) -> None:
        """Compute the shards that are missing.

        `clips` gives the clips of ranges in batches, none of two ranges: as bytes (B,T,H,W,C), and as the JEPA takes
        them (B,C,T,H,W). Of several processes each begins at its own `share` (in [0, 1)) of what is missing.
        ConfigError where the disk has no room or latents leave float16; CheckpointError for a damaged shard.
        """
        missing = [shard for shard in range(len(self.rows)) if not self._is_whole(shard)]
        if not missing:
            return
        total, left = self.index.clips, sum(len(self.rows[shard]) for shard in missing)
        self._make_room(left)
        write_text(self.folder / "index.json", json.dumps(asdict(self.index), indent=2) + "\n")
        begin = int(len(missing) * share)
        missing = missing[begin:] + missing[:begin]
        batches = iter(clips([self.rows[shard] for shard in missing]))
        with tqdm(total=total, initial=total - left, desc="encoding", unit="clip", disable=not progress) as bar:
            for shard in missing:
                there, parts, left = self.file(shard).is_file(), [], len(self.rows[shard])
                while left:
                    pixels, video = next(batches)
                    left -= len(pixels)
                    if not there:  # else another process was quicker
                        parts.append({VIDEO: pixels} | self._latents(source, video))
                    bar.update(len(pixels))
                if parts:
                    with replacing(self.file(shard)) as partial:
                        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, partial)

    def _latents(self, source: LatentSource, video: Tensor) -> dict[str, Tensor]:
        """What the JEPA says of clips (B,C,T,H,W): {name: (B,N,D) float16, in main memory}."""
        found = {TARGET: source.target(video)}
        for name in self.index.tasks:
            task, _, context = name.partition("-")
            mask = source.task_mask(task, video, int(context) if context else None)
            found[name] = source.predicted(video, mask)
        halves = {name: latents.half().cpu() for name, latents in found.items()}
        wild = [name for name, latents in halves.items() if not latents.isfinite().all()]
        if wild:
            raise ConfigError(f"the {wild[0]} latents of this JEPA go beyond float16: train without shards=")
        return halves

    def _make_room(self, clips: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        size, free = clips * self.index.clip_bytes, shutil.disk_usage(self.folder).free
        told = f"{clips} clips of {self.index.clip_bytes / 1e6:.3g} MB in {self.folder}, {size / 1e9:.3g} GB"
        if size > free:
            raise ConfigError(f"shards: no room for {told}, where {free / 1e9:.3g} GB are free: give fewer shard_clips")
        print(f"shards: {told}", flush=True)

    def _check_index(self) -> None:
        file = self.folder / "index.json"
        try:
            before = read_json(file) if file.is_file() else {}
        except CheckpointError as error:
            raise CheckpointError(f"{error}: delete {self.folder}") from None
        wanted = json.loads(json.dumps(asdict(self.index)))
        other = [f"{key} was {a!r} and is {b!r}" for key, (a, b) in differences(before, wanted, MAY_CHANGE).items()]
        if other:
            more = f"; and {len(other) - 4} more" if len(other) > 4 else ""
            raise ConfigError(
                f"{self.folder} holds shards of something else ({'; '.join(other[:4])}{more}): "
                "give what they were made of, or another shards="
            )

    def _is_whole(self, shard: int) -> bool:
        """Whether it is there; CheckpointError where it is, and does not hold what it should."""
        if not self.file(shard).is_file():
            return False
        wanted = {name: [len(self.rows[shard]), *shape] for name, shape in self.index.shapes.items()}
        with self._opened(shard) as found:
            held = {name: found.get_slice(name).get_shape() for name in found.keys()}  # noqa: SIM118
            if held != wanted:
                raise SafetensorError(f"it holds {held} and should hold {wanted}")
        return True

    @contextmanager
    def _opened(self, shard: int) -> Iterator[Any]:
        """A shard mapped into memory: 0.2 ms, so that no handle has to outlive a read, or travel to a worker."""
        file = self.file(shard)
        try:
            with safe_open(file, "pt") as found:
                yield found
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged ({error}): delete it, and it will be computed anew") from None
