"""Claims:
1. To training, shards are the folder or table they were made of, but for the paths: the same order, labels, classes,
   columns and held-out videos. Names that WebDataset, `tar` or FFmpeg could misread are packed and read like others.
2. Every frame is the same as from the loose file, for both backends, on real files, and so is every batch, with any
   number of workers, in training, in validation and from the cache, as long as one window holds all shards.
3. With many shards an epoch shows every video exactly once over ranks and workers, a window of shards at a time, in
   another order in each epoch; it can be entered anywhere.
4. A shard that is missing or cut short, an index that is damaged or lies, and changed bytes are each one sentence that
   names the shard and says what to do; in the middle of a training they are skipped and counted.
5. A conversion that was interrupted or killed leaves nothing that looks complete, and going on gives the same bytes as
   one that was not.
6. `tar` and webdataset read the shards, and every video in them is the file's bytes.
7. Videos that cannot be decoded are left out, counted and named; what cannot be meant is refused.
"""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from discs import moving_disc

from data.check import check_folder
from data.config import DataConfig
from data.dataset import VideoList, list_videos
from data.errors import DataError
from data.module import ClipDataModule
from data.reader import decord_installed, open_video
from data.stream import WINDOW, ClipStream
from data.tars import INDEX, Member, check, file_state, read_shards
from data.tars_convert import Packed, ShardConfig, packed_report, shard_videos
from data.writer import write_video

BACKENDS = ["auto", "pyav"] + ["decord"] * decord_installed()


def pack(source: Path, out: Path, **settings: Any) -> Packed:
    base = ShardConfig(str(source), str(out), shard_mb=0.05, check=False, progress=False)
    return shard_videos(replace(base, **settings))


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 12 videos of `folder` in several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    packed = pack(folder, out, check=True)
    assert packed.videos == 12 and 2 < packed.shards <= WINDOW and not packed.left_out
    return out


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """Shards to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "copied"))


def below(videos: VideoList) -> list[str]:
    """Paths below the source, or inside the tar."""
    names = [Path(path).relative_to(videos.root).as_posix() for path in videos.paths]
    return [name.partition("/")[2] for name in names] if videos.shards else names


def same_list(one: VideoList, two: VideoList) -> bool:
    return (below(one), one.labels, one.classes) == (below(two), two.labels, two.classes)


def test_shards_are_what_they_were_made_of(folder: Path, shards: Path, tmp_path: Path) -> None:
    for labels in ("auto", "folder", "none"):
        assert same_list(list_videos(folder, labels), list_videos(shards, labels))
    backwards = list_videos(shards, "folder", classes=["right", "left"])
    assert backwards.labels == list_videos(folder, "folder", classes=["right", "left"]).labels
    parts = zip(list_videos(folder).split(0.3), list_videos(shards).split(0.3), strict=True)
    assert all(below(loose) == below(packed) and loose.shards != packed.shards for loose, packed in parts)
    names = below(list_videos(folder))[::-1]  # a table keeps its own order
    (folder / "lines.txt").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    for table in ("videos.csv", "lines.txt"):
        pack(folder / table, tmp_path / table)
        for labels in ("auto", "none"):
            assert same_list(list_videos(folder / table, labels), list_videos(tmp_path / table, labels))
    shapes = list_videos(tmp_path / "videos.csv", label_column="shape")
    assert same_list(shapes, list_videos(folder / "videos.csv", label_column="shape")) and len(shapes.classes) == 3
    with pytest.raises(DataError, match="no column 'colour'; its columns are path, label, shape"):
        list_videos(tmp_path / "videos.csv", label_column="colour")


def test_difficult_names(folder: Path, tmp_path: Path) -> None:
    names = [
        *("clip.v1.mp4", "clip.v2.mp4", "clip_v1.mp4", "CLIP_V1.mp4", "a.b/c,,: d.mp4", "vidéo #1 %d.MP4", "no_suffix"),
        f"{'long' * 20}/{'longer' * 20}/{'x' * 150}.mp4",
    ]
    source = tmp_path / "a, b:c.tar"
    for i, name in enumerate(names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{('left', 'right')[i % 2]}/{i:02d}.mp4", source / name)
    (tmp_path / "elsewhere").mkdir()
    rows = [
        f'"{os.path.relpath(source / name, tmp_path / "elsewhere")}",{i}' for i, name in enumerate([*names, names[0]])
    ]
    (tmp_path / "elsewhere" / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    pack(tmp_path / "elsewhere" / "table.csv", tmp_path / "out, put:x", shard_mb=100, root="/")
    packed = list_videos(tmp_path / "out, put:x")
    assert packed.labels == list(range(9)) and len({name.casefold() for name in below(packed)}) == 9
    for path, name in zip(packed.paths, [*names, names[0]], strict=True):
        for backend in BACKENDS:
            assert np.array_equal(open_video(path, backend).frames([0, 9]), open_video(source / name).frames([0, 9]))
    tar = tmp_path / "out, put:x" / "shard-000000.tar"
    with tarfile.open(tar) as members:
        members.extractall(tmp_path / "unpacked", filter="data")  # refuses names that lead out of the folder
    samples = list(webdataset.WebDataset(["file:" + str(tar)], shardshuffle=False))
    assert len({sample["__key__"] for sample in samples}) == 9
    assert all(len({"mp4", "video"} & sample.keys()) == 1 and "json" in sample for sample in samples)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_frame_is_the_same_on_real_files(backend: str, shared: Path, tmp_path: Path) -> None:
    packed = pack(shared / "toy_shapes", tmp_path / "shards", shard_mb=0.3)
    assert packed.videos == 135 and packed.shards > 2
    videos = list_videos(shared / "toy_shapes").paths, list_videos(tmp_path / "shards").paths
    for loose, inside in list(zip(*videos, strict=True))[::9]:
        one, two = open_video(loose, backend), open_video(inside, backend)
        assert (len(one), one.fps, one.codec, one.backend) == (len(two), two.fps, two.codec, two.backend)
        assert np.array_equal(one.frames([31, 0, 7]), two.frames([31, 0, 7])) and str(two.path) == inside


@pytest.mark.slow
def test_difficult_files_read_the_same(shared: Path, tmp_path: Path) -> None:
    packed = pack(shared / "hostile", tmp_path / "shards", shard_mb=4)
    assert [Path(path).name for path in packed.left_out] == ["SYNTH_zero_length.mp4"]
    loose = [r for r in check_folder(shared / "hostile", progress=False) if r.path not in packed.left_out]
    inside = check_folder(tmp_path / "shards", progress=False)
    assert len(loose) == len(inside) == packed.videos == 110
    for one, two in zip(loose, inside, strict=True):
        broken = "truncated" in one.path  # where decord gives up a little earlier, and PyAV goes on
        told = replace(two, path=one.path, reason=two.reason.replace(two.path, one.path))
        assert told == (replace(one, backend=two.backend) if broken else one)


def config(source: Path, **settings: Any) -> DataConfig:
    base = DataConfig(train=str(source), num_frames=4, size=[16, 16], batch_size=4, workers=0, val_fraction=0.25)
    return replace(base, labels="folder", **settings)


def take(module: ClipDataModule, count: int) -> list[dict[str, Any]]:
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def same(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> bool:
    keys = ("video", "index", "seed", "label")
    return len(one) == len(two) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, two, strict=True) for key in keys
    )


@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"cache": True}, {"backend": "pyav"}])
def test_every_batch_is_the_same(folder: Path, shards: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = {"cache_dir": str(tmp_path), **settings}
    loose = ClipDataModule(config(folder, **{**settings, "workers": 0}))
    packed = ClipDataModule(config(shards, **settings))
    batches = take(loose, 7)
    assert same(batches, take(packed, 7))
    assert same(batches[4:], take(ClipDataModule(config(shards, **settings), start=4), 3))
    assert same(list(loose.val_dataloader()), list(packed.val_dataloader()))


def test_an_epoch_shows_everything_once() -> None:
    number = 5 * WINDOW + 3  # shards; not a whole number of windows
    shards = np.random.default_rng(0).integers(0, number, 700).tolist()
    whole = [index for index, _ in ClipStream(700, 10, seed=1, shards=shards).at(range(2100))]
    epochs = [whole[first : first + 700] for first in (0, 700, 1400)]
    assert all(sorted(epoch) == list(range(700)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    for epoch in epochs:
        order = [shards[index] for index in epoch]
        begun = [order.index(shard) for shard in range(number)]
        ended = [699 - order[::-1].index(shard) for shard in range(number)]
        most = max(sum(a <= place <= b for a, b in zip(begun, ended, strict=True)) for place in range(700))
        assert most <= WINDOW
    ranks = [ClipStream(700, 10, seed=1, rank=rank, world_size=7, shards=shards) for rank in range(7)]
    shared_out = [index for step in range(10) for stream in ranks for index, _ in stream.batch(step)]
    assert shared_out == whole[:700]
    assert ClipStream(700, 10, seed=1, shards=shards).at([1234])[0][0] == whole[1234]


def test_ranks_and_workers_lose_nothing(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.stream.WINDOW", 2)
    alone = take(ClipDataModule(config(shards, val_fraction=0.0)), 6)
    whole = ClipDataModule(config(shards, val_fraction=0.0))
    assert same(alone[1:4], list(whole.clips_at([range(4 * i, 4 * i + 4) for i in (1, 2, 3)])))
    for workers in (1, 2):
        shares = []
        for rank in range(2):
            module = ClipDataModule(config(shards, val_fraction=0.0, batch_size=2, workers=workers))
            monkeypatch.setattr(module, "_rank", lambda rank=rank: (rank, 2))
            shares.append(take(module, 6))
        turns = [batch for pair in zip(*shares, strict=True) for batch in pair]
        for key in ("video", "index", "seed", "label"):
            assert torch.equal(torch.cat([batch[key] for batch in turns]), torch.cat([batch[key] for batch in alone]))
    epoch = torch.cat([batch["index"] for batch in alone[:3]])
    assert sorted(epoch.tolist()) == list(range(12))


def test_a_video_of_more_than_a_header_can_say(tmp_path: Path) -> None:
    large = tarfile.TarInfo(f"{'é' * 200}.mp4")
    large.size = 8**11 + 5
    header = large.tobuf(tarfile.PAX_FORMAT)
    tar = tmp_path / "shard-000000.tar"
    tar.write_bytes(header)
    member = Member(tar, large.name, len(header), large.size)
    with pytest.raises(DataError, match="does not lie where"):
        check(member, tar)
    os.truncate(tar, len(header) + large.size)  # takes no room on the disk
    check(member, tar)
    with pytest.raises(DataError, match="does not lie where"):
        check(member._replace(size=large.size - 6), tar)


def lose(tar: Path) -> None:
    tar.unlink()


def cut(tar: Path) -> None:
    os.truncate(tar, tar.stat().st_size // 2)


def garble(tar: Path) -> None:
    (tar.parent / INDEX).write_text("{")


def shorten(tar: Path) -> None:
    edit(tar.parent / INDEX, lambda index: index["videos"]["offset"].pop())


def exceed(tar: Path) -> None:
    edit(tar.parent / INDEX, lambda index: index["videos"]["size"].__setitem__(0, 10**9))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "name", "why"),
    [
        (lose, "shard-000001.tar", "is missing"),
        (cut, "shard-000001.tar", "bytes and not the"),
        (garble, INDEX, "is damaged"),
        (shorten, INDEX, "is damaged"),
        (exceed, INDEX, "is damaged"),
    ],
)
def test_damage_is_found_at_once(copied: Path, damage: Callable[[Path], None], name: str, why: str) -> None:
    list_videos(copied)
    damage(copied / "shard-000001.tar")
    with pytest.raises(DataError, match=f"{why}.*copy it again, or make the shards anew with `jepa shard`") as caught:
        list_videos(copied)
    assert str(caught.value).startswith(f"{copied / name} ") and "\n" not in str(caught.value)


def test_an_index_that_lies(copied: Path) -> None:
    videos = list_videos(copied)
    edit(copied / INDEX, lambda index: index["videos"]["offset"].__setitem__(0, index["videos"]["offset"][0] + 512))
    with pytest.raises(DataError, match=r"does not lie where shards\.json says.*shard-\d+\.tar was changed: copy it"):
        open_video(videos.paths[0])
    open_video(videos.paths[1])

    def swap(index: dict[str, Any]) -> None:  # two videos for one another: right places, wrong names
        table = index["videos"]
        table["offset"][1], table["size"][1] = table["offset"][2], table["size"][2]
        table["shard"][1] = table["shard"][2]

    edit(copied / INDEX, swap)
    with pytest.raises(DataError, match="does not lie where"):
        open_video(list_videos(copied).paths[1])
    with pytest.raises(DataError, match=f"nothing.mp4 is not in {copied}"):
        open_video(copied / "shard-000000.tar" / "nothing.mp4")


def test_changed_bytes(copied: Path) -> None:
    packed, target = read_shards(copied), 3
    tar = copied / packed.shards[packed.shard[target]].name
    with tar.open("r+b") as stream:
        stream.seek(packed.offset[target])
        stream.write(bytes(int(packed.size[target])))
    with pytest.raises(DataError, match=f"other bytes than were written are in {tar.name} .*copy them again"):
        check_folder(copied, progress=False)
    module = ClipDataModule(config(copied, val_fraction=0.0, max_bad_fraction=0.1, workers=2))
    assert all(len(batch["index"]) == 4 for batch in take(module, 6))
    assert list(module.skipped) == [packed.paths[target]] and module.skipped[packed.paths[target]].bad


def test_a_shard_that_is_lost_on_the_way(copied: Path) -> None:
    module = ClipDataModule(config(copied, val_fraction=0.0, max_bad_fraction=0.05))
    module.setup()
    (copied / "shard-000000.tar").unlink()
    with pytest.raises(DataError, match=r"more than data\.max_bad_fraction(.|\n)*shard-000000\.tar"):
        take(module, 6)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupt() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("end", [interrupt, kill])
def test_an_interrupted_conversion(
    folder: Path, shards: Path, tmp_path: Path, end: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    class Ending(webdataset.TarWriter):  # type: ignore[misc]
        written = 0

        def write(self, obj: dict[str, Any]) -> int:
            Ending.written += 1
            if Ending.written == 6:
                end()
            return int(super().write(obj))

    def convert() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(webdataset, "TarWriter", Ending)
            pack(folder, tmp_path / "out")

    child = multiprocessing.get_context("fork").Process(target=convert)
    child.start()
    child.join()
    assert child.exitcode not in (0, None)
    done = sorted(path.name for path in (tmp_path / "out").glob("shard-*.tar"))
    assert done and not (tmp_path / "out" / INDEX).exists()
    with pytest.raises(DataError, match="as an interrupted `jepa shard` leaves them: run that again"):
        list_videos(tmp_path / "out")
    for settings in ({"seed": 1}, {"shard_mb": 0.001}):  # not what is there
        with pytest.raises(DataError, match=r"shard-\d+\.tar is not of these videos.*remove it, or name another out="):
            pack(folder, tmp_path / "out", **settings)
    before = file_state(str(tmp_path / "out" / done[0]))
    capfd.readouterr()
    pack(folder, tmp_path / "out")
    assert f"where {len(done)} of" in capfd.readouterr().out
    assert bytes_of(tmp_path / "out") == bytes_of(shards)
    assert file_state(str(tmp_path / "out" / done[0])) == before  # not written again


def test_others_read_the_shards(folder: Path, shards: Path, tmp_path: Path) -> None:
    found: dict[str, bytes] = {}
    tars = sorted(shards.glob("*.tar"))
    for tar in tars:
        listed = subprocess.run(["tar", "tf", tar], capture_output=True, text=True, check=True).stdout.split()
        subprocess.run(["tar", "xf", tar, "-C", tmp_path], check=True)
        assert listed and all((tmp_path / name).is_file() for name in listed)
    for sample in webdataset.WebDataset([f"file:{tar}" for tar in tars], shardshuffle=False):
        found[f"{sample['__key__']}.mp4"] = sample["mp4"]
        assert json.loads(sample["json"]) == {"path": f"{sample['__key__']}.mp4"}
    for name in below(list_videos(folder)):
        assert found.pop(name) == (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert not found


def test_what_cannot_be_read_is_left_out(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder / "left", source)
    (source / "text.mp4").write_text("no video")
    (source / "empty.mp4").touch()
    write_video(source / "cut.mp4", moving_disc(0, 60), fps=8)
    names = [path.name for path in sorted(source.iterdir())]
    (tmp_path / "table.csv").write_text("path\n" + "".join(f"source/{name}\n" for name in [*names, "gone.mp4"]))
    packed = pack(tmp_path / "table.csv", tmp_path / "out", check=True)
    assert packed.videos == 7 and sorted(Path(path).name for path in packed.left_out) == [
        "empty.mp4",
        "gone.mp4",
        "text.mp4",
    ]
    report = packed_report(packed)
    assert "7 videos" in report and "left out 3 of 10" in report and "gone.mp4 does not exist" in report
    assert json.loads((tmp_path / "out" / INDEX).read_text())["left_out"] == packed.left_out
    assert same_list(
        list_videos(tmp_path / "out"),
        VideoList(
            [str(tmp_path / "source" / n) for n in names if n not in ("text.mp4", "empty.mp4")],
            [-1] * 7,
            [],
            str(tmp_path),
        ),
    )
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"none of the 1 videos of .*bad can be read:\n.*a\.mp4"):
        pack(tmp_path / "bad", tmp_path / "none", check=True)
    assert not (tmp_path / "none" / INDEX).exists()


def test_what_cannot_be_meant(folder: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="already holds shards: name another out="):
        pack(folder, shards)
    with pytest.raises(DataError, match="holds shards already"):
        pack(shards, tmp_path / "again")
    with pytest.raises(DataError, match="shard_mb=0 must be positive"):
        pack(folder, tmp_path / "none", shard_mb=0)
    with pytest.raises(DataError, match=f"it holds tar shards in {shards}, which is the folder to name"):
        list_videos(shards.parent)
