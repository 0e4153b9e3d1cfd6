"""Can these videos be trained on? Every file is decoded from beginning to end, where a crash or a hang costs one file.

Notable: each file is decoded by PyAV to count what is really there, and its first, middle and last frame are read as
training would read them, by decord where that is installed. Both happen in a worker process with a time limit.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .clips import clip_span, clip_step
from .dataset import list_videos
from .errors import DataError, printable
from .isolated import Failure, isolated_map
from .reader import PyAVVideo, open_video
from .tars import INDEX, verify
from .writer import replacing

__all__ = ["FileReport", "check_folder", "report_table", "write_reports"]


@dataclass
class FileReport:
    """What was found in one file. `ok`: every frame it promises can be decoded, or all but a remark in `reason`."""

    path: str
    ok: bool = False
    reason: str = ""
    backend: str = ""  # which reader training would use
    codec: str = ""
    fps: float = 0.0
    width: int = 0
    height: int = 0
    frames: int = 0  # that can be decoded
    clips: int = 0  # that fit into those without overlapping


def check_folder(
    path: str | os.PathLike[str],
    num_frames: int = 16,
    stride: int | None = 1,
    fps: float | None = None,
    backend: str = "auto",
    workers: int = 2,
    timeout: float = 60.0,
    progress: bool = True,
    root: str = "",
) -> list[FileReport]:
    """Decode every video of a folder (recursively, or of shards), a table or a file; reports in the order of the paths.

    `timeout` seconds for each file; `root` as in `table_paths`. DataError where there is nothing to check, or a
    shard was changed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: name a folder of videos, a video or a CSV file")
    if (path / INDEX).is_file():
        verify(path)
    table = path.suffix.lower() in (".csv", ".txt", ".tsv")
    paths = list_videos(path, "none", root=root).paths if path.is_dir() or table else [str(path)]
    clip_step(stride, fps, 30.0)  # says at once what is wrong with stride and fps
    inspect = partial(inspect_file, num_frames=num_frames, stride=stride, fps=fps, backend=backend)
    found: dict[str, FileReport] = {}
    results = isolated_map(inspect, paths, workers, timeout)
    for name, result in tqdm(results, total=len(paths), desc="checking", unit="file", disable=not progress):
        found[name] = FileReport(name, reason=str(result)) if isinstance(result, Failure) else result
    return [found[name] for name in paths]


def inspect_file(path: str, num_frames: int, stride: int | None, fps: float | None, backend: str) -> FileReport:
    """The report of one file, in this process."""
    report = FileReport(path)
    try:
        counted = open_video(path, "pyav")
        assert isinstance(counted, PyAVVideo)
        report.codec = counted.codec
        report.frames, broken = counted.count()
        if not report.frames:
            raise DataError(f"{path} has no frame that can be decoded" + (f" ({broken})" if broken else ""))
        video = open_video(path, backend)
        last = report.frames - 1
        shape = video.frames(sorted({0, last // 2, min(last, len(video) - 1)})).shape
        report.backend, report.height, report.width = video.backend, int(shape[1]), int(shape[2])
        report.fps = round(video.fps, 3)
        step = clip_step(stride, fps, video.fps or 30.0)
        room = report.frames - clip_span(num_frames, step)
        report.clips = 0 if room < 0 else 1 + int(room / (num_frames * step))
        report.ok = not broken
        if broken:
            report.reason = f"{path} breaks off after {report.frames} of {len(counted)} frames ({broken})"
        elif report.frames != len(video):
            report.reason = f"{path} promises {len(video)} frames and holds {report.frames}"
    except DataError as error:
        report.ok, report.reason = False, str(error)
    return report


def report_table(reports: Sequence[FileReport], root: str | os.PathLike[str] = "", most: int = 12) -> str:
    """What a person wants to know: the kinds of readable files (`most` lines), then every problem file and why."""
    good = [report for report in reports if report.ok]
    kinds = Counter((r.codec, f"{r.width}x{r.height}", f"{r.fps:.4g}", r.backend) for r in good)
    lines = [f"{'files':>6}  {'codec':<12} {'size':<11} {'fps':>7}  reader"]
    for (codec, size, fps, reader), count in kinds.most_common(most):
        lines.append(f"{count:>6}  {codec:<12} {size:<11} {fps:>7}  {reader}")
    if len(kinds) > most:
        lines.append(f"{'':>6}  and {len(kinds) - most} other kinds")
    short = sum(not report.clips for report in good)
    lines.append(
        f"{len(good)} of {len(reports)} files can be read: {sum(r.frames for r in good)} frames, "
        f"{sum(r.clips for r in good)} clips, {short} files too short for one clip"
    )
    remarks = [report for report in reports if report.reason]
    if remarks:
        lines.append("problems:")
    for report in remarks:
        reason = report.reason.replace(f"{root}{os.sep}", "") if str(root) else report.reason
        lines.append(f"  {'note' if report.ok else 'BAD '} {printable(reason)}")
    return "\n".join(lines)


def write_reports(reports: Sequence[FileReport], path: str | os.PathLike[str]) -> None:
    """All reports as .csv or .json, atomically."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".json"):
        raise DataError(f"{path}: a report is written as .csv or .json")
    rows = [asdict(report) for report in reports]
    text = json.dumps(rows, indent=1)
    if suffix == ".csv":
        buffer = io.StringIO()
        table = csv.DictWriter(buffer, [field.name for field in fields(FileReport)], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        text = buffer.getvalue()
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # names need not be text
