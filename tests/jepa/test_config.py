"""Settings. Claims:

- defaults, then the file, then the words, in that order; nested keys, lists and optional values keep their types.
- an unknown key is refused with the nearest known one, at the top, nested, and inside a list of tables.
- a wrong type, a missing or broken file, a word without `=`, a value that must be given, a reference to nothing:
  one sentence that names the key or the file.
- what `save_config` wrote loads back equal, and is written whole or not at all.
- differences of two settings are named by key and place, with both values, but for those that may differ.
- asking for the settings does not import torch, so that the command answers at once.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jepa.config import ConfigError, EncoderConfig, JEPAConfig, choose, differences, load_config, save_config


@dataclass
class Part:
    kind: str = "block"
    sizes: list[int] = field(default_factory=lambda: [1, 2])


@dataclass
class Schema:
    name: str = "???"
    steps: int = 10
    rate: float = 0.1
    limit: int | None = None
    loud: bool = False
    model: JEPAConfig = field(default_factory=JEPAConfig)
    parts: list[Part] = field(default_factory=lambda: [Part()])


def written(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text)
    return path


def test_defaults_then_file_then_words(tmp_path: Path) -> None:
    text = "steps: 5\nname: file\nmodel:\n  encoder: {depth: 3}\nparts:\n- {kind: tube}\n- {sizes: [9]}\n"
    file = written(tmp_path, text)
    words = ["name=word", "model.encoder.num_heads=2", "rate=1e-3", "loud=true", "limit=4"]
    config = load_config(Schema, file, words)
    assert isinstance(config, Schema) and isinstance(config.model.encoder, EncoderConfig)
    assert (config.steps, config.name, config.rate, config.loud, config.limit) == (5, "word", 1e-3, True, 4)
    assert (config.model.encoder.depth, config.model.encoder.num_heads, config.model.encoder.embed_dim) == (3, 2, 384)
    assert config.parts == [Part("tube"), Part("block", [9])]
    assert load_config(Schema, written(tmp_path, ""), ["name=x"]).name == "x", "an empty file says nothing"
    assert load_config(Schema, None, ["name=x", "limit=null"]).limit is None


WRONG_WORDS = {
    "step=5": r"unknown key step in the command line; did you mean steps\?",
    "model.encoder.dept=5": r"unknown key model\.encoder\.dept .*did you mean model\.encoder\.depth\?",
    "embed_dim=5": r"unknown key embed_dim .*did you mean model\.encoder\.embed_dim\?",
    "zzz=1": r"unknown key zzz .*known are name, steps, rate",
    "steps=many": r"^steps in the command line: Value 'many'.* Integer",
    "loud=perhaps": r"^loud in the command line: .*perhaps",
    "model.encoder=3": r"model\.encoder .*must be a table of settings, not 3",
    "steps.more=1": r"^steps .*",
    "parts=[{kin: tube}]": r"unknown key parts\[0\]\.kin .*did you mean parts\[0\]\.kind\?",
    "parts=[{sizes: [x]}]": r"sizes\[0\] in the command line: Value 'x'",
    "steps": r"'steps' is not of the form key=value",
    "=5": r"'=5' is not of the form key=value",
    "rate=[1,": r"'rate=\[1,' has a value that is not valid YAML",
    "name=": r"^name is empty: it must be given, as name=",
    "name=${nothing}": r"^name: Interpolation key 'nothing' not found",
    "name=${": r"'name=\$\{' has a value that is not valid YAML",
    "parts[0].kind=tube": r"^parts in the command line is a list: give the whole of it, as parts=\[\.\.\.\]",
}


@pytest.mark.parametrize("word", WRONG_WORDS)
def test_a_wrong_word_is_one_sentence_that_names_the_key(word: str) -> None:
    with pytest.raises(ConfigError, match=WRONG_WORDS[word]) as error:
        load_config(Schema, None, ["name=x", word] if "name" not in word else [word])
    assert "\n" not in str(error.value)


WRONG_FILES = {
    "steps: [1": r"some\.yaml is not valid YAML",
    "steps: 1\nsteps: 2\n": r"some\.yaml is not valid YAML: .*duplicate key steps",
    "- a\n- b\n": r"the file in .*some\.yaml must be a table of settings",
    "hello": r"unknown key hello in .*some\.yaml",
    "3": r"some\.yaml must be a table of settings",
    "model: {encoder: {patchsize: 8}}": r"unknown key model\.encoder\.patchsize in .*some\.yaml.*\.patch_size",
    "steps: many": r"^steps in .*some\.yaml: Value 'many'",
    "model: 3": r"model in .*some\.yaml must be a table",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_wrong_file_is_one_sentence_that_names_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=WRONG_FILES[text]) as error:
        load_config(Schema, written(tmp_path, text), ["name=x"])
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load_config(Schema, tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"name must be given, as name=\.\.\."):
        load_config(Schema)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00steps")
    with pytest.raises(ConfigError, match=r"bytes\.yaml is not valid YAML"):
        load_config(Schema, tmp_path / "bytes.yaml")


def test_save_and_load_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Schema("x: [y", 3, 1e-7, 4, True, JEPAConfig(EncoderConfig(depth=2)), [Part("tube", []), Part()])
    save_config(config, tmp_path / "a" / "config.yaml")
    assert load_config(Schema, tmp_path / "a" / "config.yaml") == config

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=r"No space left on device.*config\.yaml"):
        save_config(Schema("other"), tmp_path / "a" / "config.yaml")
    assert load_config(Schema, tmp_path / "a" / "config.yaml") == config
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["config.yaml"], "nothing half-written stays"


def test_choose_names_the_nearest() -> None:
    assert choose("key", "b", ("a", "b")) == "b"
    with pytest.raises(ConfigError, match=r"key is 'forwrad', .* not one of forward, loop; did you mean 'forward'\?"):
        choose("key", "forwrad", ("forward", "loop"))


def test_settings_do_not_import_torch() -> None:
    code = "import sys, jepa, jepa.cli, jepa.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_differences_are_named() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "cache": True, "cache_dir": ""}, "masks": [{"kind": "tube", "ratio": 0.5}]}
    now = {
        "a": 1.0,
        "b": {"c": [1, 3], "cache": False, "cache_dir": "x"},
        "masks": [{"kind": "tube", "ratio": 0.6}],
    }
    found = {"b.c": ([1, 2], [1, 3]), "b.cache": (True, False), "b.cache_dir": ("", "x"), "masks[0].ratio": (0.5, 0.6)}
    assert differences(before, now) == found
    assert differences(before, now, ("b.cache*", "masks*")) == {"b.c": ([1, 2], [1, 3])}
    assert differences(before, before) == differences(now, now) == {}
    more = {"masks": [*before["masks"], {"kind": "future"}], "new": None}  # type: ignore[misc]
    assert differences({"masks": before["masks"]}, more) == {"masks[1].kind": (None, "future")}
    assert differences(more, {"masks": before["masks"]}) == {"masks[1].kind": ("future", None)}
