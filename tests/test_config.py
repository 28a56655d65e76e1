"""Configuration: layers, unknown keys, bad values, bad files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

from regionvlp.config import Config, dump_yaml, load_config, merge, parse_assignments, read_yaml, validate
from regionvlp.errors import ConfigError, InputError
from regionvlp.extract.settings import ExtractConfig


def test_later_layers_win_and_neighbours_stay() -> None:
    config = load_config(
        ExtractConfig,
        {"video": {"frames": 4, "decoder": "decord"}},
        parse_assignments(["video.frames=2"]),
        parse_assignments(["shards.format=parquet", "detector.proposals=null"]),
    )
    assert (config.video.frames, config.video.decoder) == (2, "decord")
    assert (config.shards.format, config.detector.proposals) == ("parquet", None)


def test_a_misspelt_key_in_a_list_is_named_as_well() -> None:
    class Item(Config):
        colour: str = "red"

    class Box(Config):
        items: tuple[Item, ...] = ()

    with pytest.raises(ConfigError) as caught:
        validate(Box, {"items": [{"color": "blue"}]}, "x.yaml")
    assert "items.0.color" in caught.value.message
    assert "did you mean 'colour'?" in caught.value.hint


def test_merge_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"vidoe": {}}, "unknown key 'vidoe'", "did you mean 'video'?"),
        ({"video": {"frame": 3}}, "unknown key 'video.frame'", "did you mean 'frames'?"),
        ({"video": {"zzz": 3}}, "unknown key 'video.zzz'", "known keys: attempts, decoder, frames"),
        ({"video": {"frames": 0}}, "video.frames = 0", "correct 'video.frames'"),
        ({"video": {"frames": "many"}}, "video.frames = 'many'", "correct 'video.frames'"),
        ({"shards": {"format": "hdf"}}, "'hdf5' or 'parquet'", "correct 'shards.format'"),
        ({"video": 3}, "video = 3", "correct 'video'"),
    ],
)
def test_a_bad_value_is_one_line_with_a_hint(values: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(ExtractConfig, values, "x.yaml")
    assert message in caught.value.message
    assert "x.yaml" in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("assignment", ["video", "=3", "video.=3", "a=[1"])
def test_an_unreadable_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError):
        parse_assignments([assignment])


def test_yaml_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_yaml(tmp_path / "missing.yaml")
    for name, data, message in (
        ("list.yaml", b"- 1\n", "not a mapping"),
        ("broken.yaml", b"a: [1\nb: 2\n", "line 2"),
        ("binary.yaml", b"\xff\xfe\x00", "not a text file"),
        ("tagged.yaml", b"a: !!python/object/apply:os.getcwd []\n", "tag"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises((ConfigError, InputError), match=message):
            read_yaml(tmp_path / name)
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_the_shipped_default_is_the_default() -> None:
    text = (resources.files("regionvlp.configs") / "extract" / "default.yaml").read_text(encoding="utf-8")
    assert validate(ExtractConfig, yaml.safe_load(text), "default.yaml") == ExtractConfig()


def test_dumped_yaml_reads_back(tmp_path: Path) -> None:
    config = validate(ExtractConfig, {"video": {"frames": 3}}, "test")
    (tmp_path / "c.yaml").write_text(dump_yaml(config))
    assert validate(ExtractConfig, read_yaml(tmp_path / "c.yaml"), "c.yaml") == config
