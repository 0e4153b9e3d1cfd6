"""Claims:
1. A folder is searched recursively, sorted, without hidden files; a folder per class gives labels by sorted class
   name.
2. Tables: a CSV with a header (any label column, names or numbers, quoted commas, relative paths, a byte-order
   mark) and V-JEPA's `path label` lines with spaces in the path.
3. A missing source, an empty folder, a folder of text files, a table without labels or with ragged rows, unknown
   classes, a column asked of a table without a header: DataError.
4. A sample has video (C,T,H,W) float32, label, index and seed, and is a function of (index, seed).
5. A bad file is replaced by a clip chosen by the seed and reported; short videos follow the policy; all bad is a
   DataError.
6. Evaluation clips are spread evenly over the video and come from the right file.
7. The held-out part is stable, disjoint and independent of where the folder lies.
8. What a table names lies below the table's folder, or below `root`: an absolute path or `..` that leaves it is a
   DataError that says which, how many, and how to allow it; links are followed.
9. A path whose bytes are no text can be listed and split; reading it is a DataError.
10. The cache equals direct decoding, is reused, notices changed files, lists bad ones, and stops at its size limit; a
   full disk is an error that names the cache's file, of which nothing stays.
"""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import frame_numbers, moving_disc, pixels

from data.cache import FrameCache
from data.dataset import ClipDataset, VideoList, find_videos, list_videos
from data.errors import DataError
from data.transforms import ClipTransform
from data.writer import write_video


def dataset(videos: VideoList, **settings: object) -> ClipDataset:
    size = settings.pop("size", 64)
    return ClipDataset(videos, ClipTransform(size), **{"num_frames": 4, **settings})  # type: ignore[arg-type]


def numbers(video: torch.Tensor) -> list[int]:
    return frame_numbers((pixels(video) * 255).permute(1, 2, 3, 0).numpy())


# ---------------------------------------------------------------------- sources


def test_a_folder_is_searched_recursively(folder: Path, tmp_path: Path) -> None:
    videos = list_videos(folder)
    assert videos.paths == sorted(map(str, folder.rglob("*.mp4"))) and set(videos.labels) == {-1} and not videos.classes
    (tmp_path / ".hidden").mkdir()
    for name in (".hidden/a.mp4", "._b.mp4", "notes.txt", "C.MOV", "deep.webm"):
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [Path(path).name for path in find_videos(tmp_path)] == ["C.MOV", "deep.webm"]


def test_a_folder_per_class(folder: Path) -> None:
    videos = list_videos(folder, "folder")
    assert videos.classes == ["left", "right"]
    assert all(videos.classes[label] in path for path, label in zip(videos.paths, videos.labels, strict=True))
    with pytest.raises(DataError, match="lies in no class folder"):
        list_videos(folder / "left", "folder")


def test_a_single_video_is_a_source(folder: Path) -> None:
    assert list_videos(folder / "left" / "00.mp4").labels == [-1]


def test_csv_with_a_header(folder: Path, tmp_path: Path) -> None:
    videos = list_videos(folder / "videos.csv")
    assert (videos.classes, videos.labels[:3]) == (["left", "right"], [0, 1, 0])
    assert all(Path(path).is_file() for path in videos.paths)
    shapes = list_videos(folder / "videos.csv", label_column="shape")
    assert (shapes.classes, shapes.labels[:3]) == (["flat", "round", "square"], [1, 2, 0])
    assert list_videos(folder / "videos.csv", "none").labels == [-1] * 12
    assert list_videos(folder / "videos.csv", classes=["right", "left"]).labels[:2] == [1, 0]
    table = tmp_path / "other.csv"
    table.write_text(f'\ufeffsplit,path,label\ntrain,"{folder}/a, b.mp4",7\nval,sub/../c.mp4,\n', encoding="utf-8")
    numbered = list_videos(table, root="/")
    assert numbered.paths == [f"{folder}/a, b.mp4", str(tmp_path / "c.mp4")] and numbered.labels == [7, -1]
    (tmp_path / "paths.csv").write_text("path\na.mp4\n")
    assert list_videos(tmp_path / "paths.csv").labels == [-1]


def test_vjepa_lines(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("/abs/with space.mp4 3\nrelative.mp4 0\n\n")
    videos = list_videos(tmp_path / "train.csv", root="/")
    assert videos.paths == ["/abs/with space.mp4", str(tmp_path / "relative.mp4")] and videos.labels == [3, 0]


def test_the_tables_of_tank_wagon(shared: Path) -> None:
    train = list_videos(shared / "tank_wagon" / "train.csv")
    val = list_videos(shared / "tank_wagon" / "val.csv", classes=train.classes)
    assert (len(train), len(val), len(train.classes)) == (320, 176, 4) and train.classes == val.classes
    sample = dataset(val, num_frames=8, size=[60, 80])[5]
    assert sample["video"].shape == (3, 8, 60, 80) and sample["label"] == val.labels[5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty table"),
        ("path,label\n", "no rows"),
        ("path,label\na.mp4\n", "fields"),
        ("path,kind\na.mp4,x\n", "no column 'motion'"),
        ("some text\nthat is no table\n", "neither a CSV"),
        ("a.mp4 3\n", "no header, so no column 'motion'"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        list_videos(tmp_path / "table.csv", label_column="motion")
    assert "table.csv" in str(caught.value)


@pytest.mark.parametrize("row", ["/etc/passwd.mp4", "../b.mp4", "sub/../../b.mp4", "..", "../tables-too/b.mp4"])
def test_a_table_does_not_lead_out_of_its_folder(row: str, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for lines in (f"path,label\na.mp4,1\n{row},2\n{row},3\n", f"a.mp4 1\n{row} 2\n{row} 3\n"):
        table = tmp_path / "tables" / "t.csv"
        table.write_text(lines)
        with pytest.raises(DataError) as caught:
            list_videos(table)
        said = str(caught.value)
        assert f"{table} names 2 of 3 videos outside {table.parent}, the first {row}:" in said and "data.root=/" in said
        assert list_videos(table, root="/").paths[1] == os.path.normpath(table.parent / row)
        if not row.startswith("/"):
            assert len(list_videos(table, root=str(tmp_path))) == 3


def test_what_stays_inside_is_taken(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"{tmp_path}/a.mp4 1\nsub/../a.mp4 1\nlink/left/00.mp4 1\n")
    (tmp_path / "link").symlink_to(folder)
    inside = [str(tmp_path / "a.mp4")] * 2 + [str(tmp_path / "link/left/00.mp4")]
    assert list_videos(table).paths == inside and dataset(list_videos(table)[[2]])[0]["video"].shape[1] == 4
    monkeypatch.chdir(tmp_path)
    assert list_videos("t.csv").paths[1] == "a.mp4", "a relative table gives relative paths"


def test_a_path_that_is_no_text(folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.mp4")
    try:
        shutil.copy(folder / "left" / "00.mp4", tmp_path / name)
    except OSError:
        pytest.skip("this file system wants names that are text")
    shutil.copy(folder / "left" / "00.mp4", tmp_path / "a.mp4")
    videos = list_videos(tmp_path)
    assert sum(map(len, videos.split(0.5))) == 2
    cache = FrameCache.build(videos.paths, (16, 16), tmp_path / "cache")
    assert str(tmp_path / "a.mp4") in cache and "not UTF-8" in cache.bad[str(tmp_path / name)]


def test_bad_sources_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_videos(tmp_path / "nowhere")
    with pytest.raises(DataError, match="it is empty"):
        list_videos(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"no video files: it holds 1 other files, such as notes\.txt"):
        list_videos(tmp_path)
    (tmp_path / "image.png").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"image\.png is neither"):
        list_videos(tmp_path / "image.png")
    with pytest.raises(DataError, match="classes that training lacks: right"):
        list_videos(folder, "folder", classes=["left", "up"])
    with pytest.raises(DataError, match="auto, folder, none"):
        list_videos(folder, "csv")


def test_the_held_out_part_is_stable(folder: Path, tmp_path: Path) -> None:
    rest, held = list_videos(folder).split(0.25)
    assert len(held) == 3 and len(rest) == 9 and not set(rest.paths) & set(held.paths)
    shutil.copytree(folder, tmp_path / "moved")
    moved = list_videos(tmp_path / "moved").split(0.25)[1]
    assert [os.path.relpath(path, moved.root) for path in moved.paths] == [
        os.path.relpath(path, held.root) for path in held.paths
    ]
    assert [len(part) for part in list_videos(folder)[[0, 1]].split(0.01)] == [1, 1]
    with pytest.raises(DataError, match="too few videos"):
        list_videos(folder)[[0]].split(0.1)


# ---------------------------------------------------------------------- samples


def test_a_sample_is_a_function_of_index_and_seed(folder: Path) -> None:
    clips = dataset(list_videos(folder, "folder"))
    sample = clips[3, 17]
    assert sample["video"].shape == (3, 4, 64, 64) and sample["video"].dtype == torch.float32
    assert (sample["label"], sample["index"], sample["seed"]) == (clips.videos.labels[3], 3, 17)
    assert torch.equal(sample["video"], clips[3, 17]["video"])
    starts = {numbers(clips[3, seed]["video"])[0] for seed in range(40)}
    assert len(starts) > 8
    together = clips.__getitems__([(5, 1), (3, 17)])
    assert torch.equal(together[1]["video"], sample["video"])


def test_clips_are_spread_evenly(folder: Path) -> None:
    clips = dataset(list_videos(folder), clips_per_video=3, position="uniform", stride=2)
    assert len(clips) == 36
    last = 16 + 2 * 5 - 1  # left/10.mp4 is sixth in order and has 26 frames
    assert [numbers(clips[5 * 3 + k]["video"]) for k in (0, 2)] == [[0, 2, 4, 6], [last - 6, last - 4, last - 2, last]]
    with pytest.raises(IndexError):
        clips[36]


def test_a_bad_file_is_replaced_and_reported(folder: Path, tmp_path: Path) -> None:
    videos = list_videos(folder)
    (tmp_path / "bad.mp4").write_text("no video")
    mixed = VideoList([str(tmp_path / "bad.mp4"), *videos.paths], [9, *range(12)], [], str(tmp_path))
    clips = dataset(mixed)
    replaced = {clips[0, seed]["index"] for seed in range(30)}
    assert 0 not in replaced and len(replaced) > 5  # not always the neighbour
    sample, again = clips[0, 4], clips[0, 4]
    assert torch.equal(sample["video"], again["video"]) and sample["label"] == sample["index"] - 1
    assert [(Path(skip.path).name, skip.bad) for skip in sample["skipped"]] == [("bad.mp4", True)]
    assert "bad.mp4" in sample["skipped"][0].reason and "skipped" not in clips[1, 4]
    with pytest.raises(DataError, match=r"no clip could be read(.|\n)*bad\.mp4"):
        dataset(mixed[[0]])[0]


def test_short_videos_follow_the_policy(folder: Path) -> None:
    videos = list_videos(folder)[[0, 5]]  # 16 and 26 frames
    assert numbers(dataset(videos, num_frames=20, short="loop")[0]["video"]) == [*range(16), 0, 1, 2, 3]
    assert numbers(dataset(videos, num_frames=20, short="pad")[0]["video"]) == [*range(16), 15, 15, 15, 15]
    skipping = dataset(videos, num_frames=20, short="skip")[0]
    assert skipping["index"] == 1 and not skipping["skipped"][0].bad
    assert dataset(videos, num_frames=20)[0]["skipped"][0].bad
    with pytest.raises(DataError, match=r"00\.mp4: the video has 16 frames.*data\.short"):
        dataset(videos[[0]], num_frames=20)[0]


def test_sampling_by_fps(folder: Path) -> None:
    clips = dataset(list_videos(folder), stride=None, fps=2.0, position="uniform", num_frames=3)  # the videos have 8
    assert np.diff(numbers(clips[0]["video"])).tolist() == [4, 4]


# ---------------------------------------------------------------------- cache


def test_the_cache_equals_direct_decoding(folder: Path, tmp_path: Path) -> None:
    videos = list_videos(folder)
    cache = FrameCache.build(videos.paths, (24, 40), tmp_path)
    for settings in ({}, {"stride": None, "fps": 4.0}, {"num_frames": 20, "short": "loop"}):
        direct = dataset(videos, size=[24, 40], **settings)
        cached = dataset(videos, size=[24, 40], cache=cache, **settings)
        for key in [(0, 1), (7, 2), (11, 3)]:
            assert torch.equal(direct[key]["video"], cached[key]["video"])
    again = pickle.loads(pickle.dumps(cache))  # as a spawned worker gets it
    assert np.array_equal(again.frames(videos.paths[2], np.arange(5)), cache.frames(videos.paths[2], np.arange(5)))
    assert len(pickle.dumps(cache)) < 1000


def test_the_cache_is_reused_and_notices_changes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_disc(0, 8), fps=8)
    build = lambda: FrameCache.build([str(path)], (16, 16), tmp_path / "cache")
    first = build()
    stamp = (first.folder / "frames.bin").stat().st_mtime_ns
    assert build().folder == first.folder and (first.folder / "frames.bin").stat().st_mtime_ns == stamp
    write_video(path, moving_disc(1, 9), fps=8)
    second = build()
    assert second.folder != first.folder and second.length(str(path)) == 9
    assert not list((tmp_path / "cache").glob("*partial*"))


def test_the_cache_lists_bad_files_and_keeps_to_its_limit(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    paths = [*list_videos(folder).paths, str(tmp_path / "bad.mp4"), str(tmp_path / "missing.mp4")]
    cache = FrameCache.build(paths, (16, 16), tmp_path / "cache")
    assert sorted(Path(path).name for path in cache.bad) == ["bad.mp4", "missing.mp4"]
    assert all(Path(path).name in reason for path, reason in cache.bad.items())
    with pytest.raises(DataError, match="cache_max_gb"):
        FrameCache.build(paths, (64, 64), tmp_path / "small", max_gb=0.001)
    assert not list((tmp_path / "small").iterdir())


def test_a_full_disk_names_the_cache(folder: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    videos = list_videos(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the next write beyond it fails, as on a full disk
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/[0-9a-f]{16}/frames\.bin'$"):
            FrameCache.build(videos.paths, (32, 32), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache").iterdir()) == []
