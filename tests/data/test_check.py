"""Claims:
1. Over all difficult files `check_folder` takes less than a minute of processor time, does not crash, and counts the
   frames that their manifest counts, or better.
2. A crash, a hang and an exception in a worker cost one item each; the rest is done.
3. A folder, a table and a single file can be checked; missing files and folders without videos are said.
4. Clips are counted as training would cut them; the table and the CSV and JSON reports hold what was found.
"""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest

from data.check import FileReport, check_folder, report_table, write_reports
from data.errors import DataError
from data.isolated import Failure, isolated_map


def test_difficult_files(shared: Path) -> None:
    root = shared / "hostile"
    before = os.times()
    reports = {Path(r.path).relative_to(root).as_posix(): r for r in check_folder(root, timeout=300, progress=False)}
    after = os.times()  # processor time, because other work on the machine stretches the time on the clock
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent < 60
    manifest = {entry["path"]: entry for entry in json.loads((root / "manifest.json").read_text())}
    assert reports.keys() == manifest.keys()
    for name, entry in manifest.items():
        report, frames = reports[name], entry.get("n", 0)
        if name == "torchcodec/nasa_13013.mp4":  # the manifest counts its first stream; the best one is larger
            assert (report.frames, report.width, report.ok) == (390, 480, True)
            continue
        assert report.frames == frames, report
        if "err" in entry or "decerr" in entry or not frames:
            assert not report.ok and name.rpartition("/")[2] in report.reason and "\n" not in report.reason
        elif name != "androidx/SYNTH_truncated_head40k.mp4":  # the manifest did not ask whether it breaks off
            assert report.ok and report.backend and report.codec
            turned = entry["rotation"] % 180 != 0
            assert (report.height, report.width) == tuple(entry["sizes"][0][:: 1 if turned else -1]), report
            assert not entry["decord"].startswith("OK") or 0 <= report.fps <= 240
    assert {r.backend for r in reports.values()} <= {"", "decord", "pyav"}


def misbehave(what: str) -> str:
    if what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise RuntimeError("out of luck")
    return what.upper()


def test_crashes_and_hangs_cost_one_item() -> None:
    began = time.monotonic()
    items = ["a", "crash", "b", "hang", "c", "raise", "d", "crash"]
    results = list(isolated_map(misbehave, items, workers=2, timeout=1.0))
    assert time.monotonic() - began < 8
    assert sorted(item for item, _ in results) == sorted(items)
    assert {item: result for item, result in results if not isinstance(result, Failure)} == {
        c: c.upper() for c in "abcd"
    }
    reasons = {item: str(result) for item, result in results if isinstance(result, Failure)}
    assert "crashed" in reasons["crash"] and "within 1 s" in reasons["hang"] and "out of luck" in reasons["raise"]
    assert list(isolated_map(misbehave, [], workers=3)) == []


def test_folder_table_and_file(folder: Path, tmp_path: Path) -> None:
    reports = check_folder(folder, num_frames=8, stride=2, progress=False)
    assert [r.path for r in reports] == sorted(map(str, folder.rglob("*.mp4"))) and all(
        r.ok and not r.reason for r in reports
    )
    first, last = reports[0], reports[5]
    assert (first.codec, first.fps, first.width, first.height, first.frames, first.clips) == ("h264", 8, 64, 64, 16, 1)
    assert (last.frames, last.clips) == (26, 1)  # 15 frames a clip, a stride between clips
    assert [r.clips for r in check_folder(folder, num_frames=4, fps=4.0, stride=None, progress=False)][:2] == [2, 2]
    assert check_folder(folder / "left" / "00.mp4", num_frames=17, progress=False)[0].clips == 0
    table = tmp_path / "list.csv"
    table.write_text(f"{folder}/left/00.mp4 0\ngone.mp4 1\n")
    good, gone = check_folder(table, progress=False, root="/")
    assert good.ok and not gone.ok and "gone.mp4 does not exist" in gone.reason
    (tmp_path / "notes.txt").write_text("hello")
    for path, message in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "sub", "is empty")):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=message):
            check_folder(path, progress=False)


def test_reports_are_written(tmp_path: Path) -> None:
    reports = [
        FileReport("/v/a.mp4", True, "", "decord", "h264", 25.0, 64, 48, 100, 6),
        FileReport("/v/b.mp4", False, "/v/b.mp4 is empty (0 bytes)"),
    ]
    text = report_table(reports, "/v")
    assert "1 of 2 files can be read: 100 frames, 6 clips" in text and "BAD  b.mp4 is empty" in text
    write_reports(reports, tmp_path / "out.csv")
    write_reports(reports, tmp_path / "out.json")
    with open(tmp_path / "out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["frames"] == "100" and rows[1]["reason"] == reports[1].reason
    assert json.loads((tmp_path / "out.json").read_text())[0]["codec"] == "h264"
    with pytest.raises(DataError, match=r"\.csv or \.json"):
        write_reports(reports, tmp_path / "out.txt")
