"""The attentive classifier, trained as V-JEPA's evaluation does. Claims:

- one optimizer with a group for each head leaves, bit for bit, what an optimizer for each head leaves, with decay on
  everything and with biases and 1-D tensors spared; recomputing activations changes nothing.
- the encoder gets no gradient, is unchanged, and is no part of the checkpoint.
- learning rates fall along a cosine from each head's own to zero; weight decays stay.
- a head learns what can be learnt, one that cannot learn stays at chance, and the first is chosen, on held-out videos;
  of equals the one with the smaller loss; one that diverges neither spoils the others nor is chosen.
- settings that cannot be meant are refused by name.
- `jepa probe` with `classifier` treats all representations alike, leaves classifiers that load and give the answers it
  scored, chooses without a look at data.val, goes on where it was stopped as if it had not been, trains nothing twice.
- pixel tokens say which moment they are, and a layer norm does not take their brightness.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from tiny import tiny_config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.dataset import list_videos
from data.module import make_dataset
from data.writer import write_video
from jepa import JEPA, ConfigError
from jepa.attentive import AttentiveClassifier, ClassifierConfig
from jepa.config import load_config
from jepa.heads import HeadsConfig, HeadsModule, PixelTokens, check_heads, heads_adamw, train_heads
from jepa.probe_run import ProbeConfig, probe
from jepa.schedules import cosine
from jepa.weights import read_checkpoint

SIZE = ClassifierConfig(embed_dim=12, num_heads=2, depth=1, num_classes=3)


@pytest.mark.parametrize("decay_all", [True, False])
def test_one_optimizer_is_many(decay_all: bool) -> None:
    rates = [(1e-2, 0.5), (1e-3, 0.0), (1e-4, 0.8)]
    heads = nn.ModuleList(AttentiveClassifier(SIZE) for _ in rates)
    alone = copy.deepcopy(heads)
    together = heads_adamw(heads, rates, decay_all)
    single = [heads_adamw(nn.ModuleList([head]), [rate], decay_all) for head, rate in zip(alone, rates, strict=True)]
    for _ in range(4):
        tokens, label = torch.randn(5, 7, 12), torch.randint(3, (5,))
        together.zero_grad()
        torch.stack([F.cross_entropy(head(tokens), label) for head in heads]).sum().backward()
        together.step()
        for head, optimizer in zip(alone, single, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(head(tokens), label).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), alone.parameters(), strict=True))


def test_what_decays() -> None:
    head = AttentiveClassifier(SIZE)
    both = {all_: heads_adamw(nn.ModuleList([head]), [(1e-3, 0.4)], all_).param_groups for all_ in (True, False)}
    assert [group["weight_decay"] for group in both[True]] == [0.4]
    spared, decayed = both[False]
    assert (spared["weight_decay"], decayed["weight_decay"]) == (0.0, 0.4)
    assert all(p.ndim == 1 for p in spared["params"]) and all(p.ndim > 1 for p in decayed["params"])
    assert any(p is head.pooler.query_tokens for p in decayed["params"]), "the query is no 1-D tensor"
    assert len(spared["params"] + decayed["params"]) == len(list(head.parameters())) == len(both[True][0]["params"])


class Toy(pl.LightningDataModule):
    """Tokens (N, D) whose mean over one channel says the class, as the "video" of an encoder that is one matrix."""

    def __init__(self, count: int = 60) -> None:
        super().__init__()
        noise, label = torch.randn(count, 4, 12), torch.arange(count) % 3
        noise[torch.arange(count), :, label] += 3
        self.clips = [{"video": x, "label": y} for x, y in zip(noise, label, strict=True)]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.clips[:48], 8)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.clips[48:], 8)  # type: ignore[arg-type]


def trained(out: Path, encoder: nn.Module | None = None, **changes: Any) -> HeadsModule:
    config = HeadsConfig(**{"lrs": [0.0, 1e-2], "weight_decays": [0.1], "depth": 1, "epochs": 5, **changes})
    return train_heads(encoder or nn.Linear(12, 12), SIZE, config, Toy(), (6, 2), out, progress=False)


def test_the_head_that_learns_is_chosen_and_the_encoder_is_left_alone(tmp_path: Path) -> None:
    encoder = nn.Linear(12, 12)
    nn.init.eye_(encoder.weight)
    before = copy.deepcopy(encoder.state_dict())
    module = trained(tmp_path, encoder, weight_decays=[0.1, 0.8])
    assert module.rates == [(0.0, 0.1), (0.0, 0.8), (1e-2, 0.1), (1e-2, 0.8)] and module.chosen in (2, 3)
    assert module.held_out is not None and module.held_out.shape == (4, 2)
    assert module.held_out[module.chosen, 0] > 0.9 and module.held_out[:2, 0].max() < 0.7
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    stored = read_checkpoint(tmp_path / "last.ckpt")
    assert {key.split(".")[0] for key in stored["state_dict"]} == {"heads"} and stored["global_step"] == 30
    for (lr, decay), group in zip(module.rates, stored["optimizer_states"][0]["param_groups"], strict=True):
        assert group["lr"] == cosine(29, 30, lr, 0.0) and group["weight_decay"] == decay
    assert not (tmp_path / "best.ckpt").exists()
    again = trained(tmp_path, encoder, weight_decays=[0.1, 0.8])
    assert torch.equal(again.held_out, module.held_out), "a complete run is not trained again"
    assert all(torch.equal(a, b) for a, b in zip(again.heads.parameters(), module.heads.parameters(), strict=True))


def test_a_head_that_diverges_spoils_no_other(tmp_path: Path) -> None:
    torch.manual_seed(3)
    alone = trained(tmp_path / "alone", lrs=[1e-2])
    torch.manual_seed(3)
    module = trained(tmp_path / "both", lrs=[1e-2, 1e30])
    assert not all(p.isfinite().all() for p in module.heads[1].parameters()), "the test needs one that diverges"
    same = zip(module.heads[0].parameters(), alone.heads[0].parameters(), strict=True)
    assert module.chosen == 0 and all(torch.equal(a, b) for a, b in same)
    assert alone.held_out is not None and alone.held_out[0, 0] > 0.9


def test_of_equals_the_surer_is_chosen() -> None:
    module = HeadsModule(nn.Identity(), SIZE, HeadsConfig(), 1)
    with pytest.raises(RuntimeError, match="before the held-out"):
        _ = module.chosen
    module.held_out = torch.tensor([[0.5, 0.1], [0.75, 0.9], [0.75, float("nan")], [0.75, 0.4], [0.75, 0.6]])
    assert module.chosen == 3


def test_recomputing_changes_nothing() -> None:
    gradients = []
    module = HeadsModule(nn.Identity(), SIZE, HeadsConfig(lrs=[1e-3]), 1)
    module.log = lambda *_, **__: None  # type: ignore[assignment, method-assign]
    batch = Toy(6).clips
    stacked = {key: torch.stack([clip[key] for clip in batch]) for key in ("video", "label")}
    for again in (False, True):
        module.config.activation_checkpointing = again
        module.zero_grad()
        module.held_out = torch.ones(4, 2)
        module.training_step(stacked, 0).backward()
        assert module.held_out is None, "what was known of the heads is no longer true"
        gradients.append([p.grad.clone() for p in module.heads.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_what_cannot_be_meant_is_refused() -> None:
    check_heads(HeadsConfig())
    assert len(HeadsConfig().lrs) * len(HeadsConfig().weight_decays) == 20
    for key, value in (("lrs", []), ("lrs", [-1.0]), ("weight_decays", []), ("epochs", 0), ("held_out", 1.0)):
        with pytest.raises(ConfigError, match=rf"heads\.{key} is"):
            check_heads(HeadsConfig(**{key: value}))


def test_pixel_tokens_say_when_and_how_bright() -> None:
    pixels = PixelTokens(tiny_config().encoder)
    video = torch.randn(2, 3, 8, 16, 24)
    assert pixels(video).shape == (2, 4, 384) and pixels.dim == 384
    still = pixels(torch.zeros(1, 3, 8, 16, 24))[0]
    assert torch.cdist(still, still).fill_diagonal_(9).min() > 0.1
    later = video.flip(2)
    assert torch.allclose(pixels(later) - still, (pixels(video) - still).flip(1), atol=1e-5), "pixels follow time"
    dark, light = (F.layer_norm(pixels(torch.full((1, 3, 8, 16, 24), value)), (384,)) for value in (-1.0, 1.0))
    assert (dark - light).abs().mean() > 0.5


# ------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that are dark or light, 15 to learn from and 5 to test, and a test table with the wrong answers."""
    root = tmp_path_factory.mktemp("bright")
    tables: dict[str, list[str]] = {"train": [], "test": [], "wrong": []}
    for i in range(20):
        write_video(root / f"{i}.mp4", np.full((6, 16, 16, 3), 40 + 150 * (i % 2) + i // 2, np.uint8), fps=4)
        tables["train" if i < 15 else "test"].append(f"{i}.mp4,{('dark', 'light')[i % 2]}")
        if i >= 15:
            tables["wrong"].append(f"{i}.mp4,{('light', 'dark')[i % 2]}")
    for name, rows in tables.items():
        (root / f"{name}.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    torch.manual_seed(0)
    JEPA(tiny_config()).save_pretrained(root / "jepa")
    return root


def words(root: Path, out: Path, *more: str) -> ProbeConfig:
    data = "{num_frames: 4, size: [16, 16], batch_size: 4, workers: 0"
    base = [f"checkpoint={root / 'jepa'}", f"out={out}", "probes=[classifier]", "progress=false"]
    base += [f"data={data}, train: {root / 'train.csv'}, val: {root / 'test.csv'}}}"]
    heads = "heads={lrs: [0.0, 0.01], weight_decays: [0.1], depth: 1, epochs: 4}"
    return load_config(ProbeConfig, None, [*base, heads, *more])


def test_the_command_asks_all_representations_alike(bright: Path, tmp_path: Path, capsys: Any) -> None:
    found = probe(words(bright, tmp_path))["label"]
    assert set(found) == {"jepa", "random", "pixels"} and all(set(kinds) == {"classifier"} for kinds in found.values())
    pixels = found["pixels"]["classifier"]["1"]
    assert (pixels.accuracy, pixels.lr, pixels.weight_decay, pixels.held_out) == (1.0, 0.01, 0.1, 1.0)
    stored = json.loads((tmp_path / "probe.json").read_text())["label"]
    assert all(stored[name]["classifier"]["1"]["clips"] == 5 for name in found)
    printed = capsys.readouterr().out
    assert "classifier" in printed and "random" in printed
    videos = list_videos(bright / "test.csv")
    video = torch.stack([sample["video"] for sample in make_dataset(words(bright, tmp_path).data, videos)])
    encoders: dict[str, nn.Module] = {"jepa": JEPA.load(bright / "jepa").target_encoder}
    encoders["pixels"] = PixelTokens(tiny_config().encoder)
    for name, encoder in encoders.items():
        head = AttentiveClassifier.from_pretrained(tmp_path / "classifier" / "label" / name)
        heads = {24: 12, 384: 16}[head.config.embed_dim]  # the most of 16 that divide the width
        assert head.config.num_heads == heads and head.config.num_classes == 2
        with torch.no_grad():
            right = (head(encoder(video)).argmax(1) == torch.tensor(videos.labels)).float().mean()
        assert abs(right - found[name]["classifier"]["1"].accuracy) <= 0.2, "of five clips, one that bf16 may turn"
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "heads").glob("*/last.ckpt")}
    assert len(runs) == 3 and probe(words(bright, tmp_path))["label"] == found
    assert runs == {path: path.stat().st_mtime_ns for path in (tmp_path / "heads").glob("*/last.ckpt")}, "trained twice"
    table = (bright / "train.csv").read_text()
    for text in (table, table.replace("\n0.mp4,dark", "\n0.mp4,light")):  # but with another label, it is
        (bright / "corrected.csv").write_text(text)
        probe(words(bright, tmp_path, f"data.train={bright / 'corrected.csv'}", "representations=[pixels]"))
    assert len(list((tmp_path / "heads").iterdir())) == 3 + 2


def test_the_choice_does_not_look_at_the_test(bright: Path, tmp_path: Path) -> None:
    only = "representations=[pixels]"
    right = probe(words(bright, tmp_path / "right", only))["label"]["pixels"]["classifier"]["1"]
    wrong = words(bright, tmp_path / "wrong", only, f"data.val={bright / 'wrong.csv'}")
    found = probe(wrong)["label"]["pixels"]["classifier"]["1"]
    assert (found.lr, found.held_out) == (right.lr, right.held_out) and found.accuracy == 1 - right.accuracy == 0
    states = [
        AttentiveClassifier.from_pretrained(tmp_path / side / "classifier/label/pixels") for side in ("right", "wrong")
    ]
    assert all(torch.equal(a, b) for a, b in zip(states[0].parameters(), states[1].parameters(), strict=True))


def test_it_goes_on_where_it_stopped(bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = "representations=[jepa]"
    whole = probe(words(bright, tmp_path / "whole", only))
    step = HeadsModule.training_step

    def stop(module: HeadsModule, batch: dict[str, Tensor], index: int) -> Tensor:
        if module.global_step == 7:
            raise KeyboardInterrupt
        return step(module, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(HeadsModule, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            probe(words(bright, tmp_path / "cut", only))
    steps: list[int] = []
    monkeypatch.setattr(HeadsModule, "training_step", lambda m, b, i: steps.append(m.global_step) or step(m, b, i))
    assert probe(words(bright, tmp_path / "cut", only)) == whole and steps == list(range(7, 12))
    heads = [
        AttentiveClassifier.from_pretrained(tmp_path / side / "classifier/label/jepa") for side in ("whole", "cut")
    ]
    assert all(torch.equal(a, b) for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True))


def test_it_stands_beside_the_cached_probes(bright: Path, tmp_path: Path) -> None:
    more = ["representations=[pixels]", "probes=[knn, classifier]", "label_fractions=[0.5]", "heads.epochs=1"]
    found = probe(words(bright, tmp_path, *more))["label"]
    assert set(found) == {"pixels"} and set(found["pixels"]["knn"]) == {"0.5"}
    assert set(found["pixels"]["classifier"]) == {"1"}, "on all labels"
    for word, match in (
        ("representations=[]", "representations is empty"),
        ("representations=[pixel]", "did you mean 'pixels'"),
        ("probes=[classifer]", "did you mean 'classifier'"),
        ("heads.depth=-1", r"heads\.depth is -1"),
    ):
        with pytest.raises(ConfigError, match=match):
            probe(words(bright, tmp_path, word))
