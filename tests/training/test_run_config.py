"""One configuration class a system: which keys each knows, the old form, what may change in a resumed run."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Literal

import pytest

from regionvlp.config import HARMLESS, Config, resumable_keys
from regionvlp.data.settings import DataSettings
from regionvlp.errors import ConfigError
from regionvlp.losses import REGION_WORD_PRESETS
from regionvlp.systems.registry import SYSTEMS
from regionvlp.training.config import RUN_CONFIGS, DemoVLPConfig, RunConfig, run_config


class OtherModel(Config):
    patch: int = 16


class OtherConfig(RunConfig):
    task: Literal["other"] = "other"
    data: DataSettings = DataSettings()
    model: OtherModel = OtherModel()
    loss: Config = Config()


def test_every_system_has_a_configuration_and_the_reverse() -> None:
    assert set(RUN_CONFIGS) == set(SYSTEMS)
    assert all(config().task == name for name, config in RUN_CONFIGS.items())  # type: ignore[call-arg]


def test_a_key_of_another_system_names_that_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUN_CONFIGS, "other", OtherConfig)
    assert run_config({"task": "other", "model": {"patch": 32}}).model.patch == 32
    with pytest.raises(ConfigError) as caught:
        run_config({"model": {"patch": 32}}, source="old.yaml")
    assert caught.value.message == "unknown key 'model.patch' in old.yaml"
    assert caught.value.hint == "'model.patch' is a key of other: set task=other, or leave it out"
    with pytest.raises(ConfigError, match=r"'data.clips.regions' is a key of demovlp"):
        run_config({"task": "other", "data": {"regions": 3}})


def test_the_old_form_is_read_and_both_forms_at_once_must_agree() -> None:
    old = {"frames": 4, "regions": 6, "loc_dim": 6, "padding": "edge", "sampling": "legacy", "in_memory": True}
    config = run_config({"data": {**old, "text_length": 9}})
    assert config.data.clips.model_dump().items() >= old.items()
    assert config.data.text_length == 9
    # A later layer wins, whatever the forms.
    assert run_config({"data": {"clips": {"frames": 4}}}, {"data": {"frames": 2}}).data.clips.frames == 2
    assert run_config({"data": {"frames": 4}}, {"data": {"clips": {"frames": 2}}}).data.clips.frames == 2
    with pytest.raises(ConfigError, match=r"data.frames = 4 and data.clips.frames = 2"):
        run_config({"data": {"frames": 4, "clips": {"frames": 2}}})


def test_what_is_misspelt_is_found_further_in() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'data.clips.frames'"):
        run_config({"data": {"framse": 2}})
    with pytest.raises(ConfigError, match=r"no system 'demovpl'.*did you mean 'demovlp'"):
        run_config({"task": "demovpl"})


def test_sections_that_do_not_fit() -> None:
    for values, message in (
        ({"data": {"loc_dim": 6}}, r"data.clips.loc_dim 6 is not model.video.loc_dim 7"),
        ({"eval": {"frames": 4}}, r"4 frames do not fit model.video.frames 1"),
        ({"model": {"text": {"max_length": 20}}}, r"data.text_length 100 does not fit model.text.max_length 20"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_config(values).check_sizes()


def test_what_may_change_is_marked_where_it_is_defined() -> None:
    every, harmless = resumable_keys(DemoVLPConfig), resumable_keys(DemoVLPConfig, (HARMLESS,))
    assert {"train.epochs", "train.max_steps", "train.best_metric"} <= every - harmless
    assert {"train.device", "train.workers", "data.clips.in_memory", "train.log_every"} <= harmless < every
    assert not {"optim.lr", "train.batch_size", "train.seed", "data.clips.frames"} & every


def test_settings_import_no_torch() -> None:
    code = "import sys, regionvlp.training.config, regionvlp.extract.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def of_batch(**values: Any) -> RunConfig:
    """A configuration whose batches are 128 pairs in 2 parts."""
    return run_config({"train": {"batch_size": 128, "accumulate": 2}}, values)


def test_groups_fit_into_what_is_contrasted_at_a_time() -> None:
    for group in (64, 32, 2):
        of_batch(loss={"negatives": {"group": group}}).check_sizes()
    for group in (128, 48):
        message = rf"group {group} does not divide the 64 pairs .*a batch of 128 / train.accumulate 2"
        with pytest.raises(ConfigError, match=message):
            of_batch(loss={"negatives": {"group": group}}).check_sizes()
    with pytest.raises(ConfigError, match=r"negatives.group 1: a contrast of one pair learns nothing"):
        of_batch(loss={"negatives": {"group": 1}}).check_sizes()


@pytest.mark.parametrize(("processes", "group"), [(None, 64), ("1", 64), ("8", 8)])
def test_what_one_process_held_is_a_group_now(
    processes: str | None, group: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("WORLD_SIZE", processes)
    config = of_batch(loss={"negatives": "local", "temperature": 0.1})
    assert config.loss.contrasts == group
    assert config.loss.temperature == 0.1
    assert f"'local' of the configuration is read as {{group: {group}}}" in caplog.text
    caplog.clear()
    assert of_batch(loss={"negatives": "global"}).loss.contrasts == "global"
    assert of_batch().loss.contrasts == "global"
    assert not caplog.messages


def test_a_loss_that_counts_padding_demands_it() -> None:
    public = {"region_word": REGION_WORD_PRESETS["public"].model_dump()}
    padded = {"pad_text": True, "clips": {"padding": "edge"}}
    of_batch(loss=public, data=padded).check_sizes()
    with pytest.raises(ConfigError, match=r"counts padding, but data.pad_text is off") as caught:
        of_batch(loss=public, data={**padded, "pad_text": False}).check_sizes()
    assert "data.pad_text=true" in caught.value.hint
    with pytest.raises(ConfigError, match=r"data.clips.padding is zeros") as caught:
        of_batch(loss=public, data={"pad_text": True}).check_sizes()
    assert "data.clips.padding=edge" in caught.value.hint
    # A threshold that counts the width does not read what stands in it.
    counting = {"region_word": {"form": "public", "threshold_count": "padded"}}
    of_batch(loss=counting, data={"pad_text": True}).check_sizes()
    # What is not in use demands nothing.
    of_batch(loss={**public, "local": "filip"}).check_sizes()
    of_batch(loss={**public, "use_local": False}).check_sizes()
