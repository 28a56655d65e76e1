"""Settings that the Hub's ``unc-nlp/frcnn-vg-finetuned`` keeps in a ``config.yaml`` beside its weights. Free of torch.

In: the file. Out: overrides of ``DetectorConfig``. Only what decides numbers and cannot be seen in the weights is
taken; keys may be written in any case, as in the code that reads them (transformers' LXMERT example).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regionvlp.config import read_yaml
from regionvlp.errors import WeightsError

# key in the file -> section and key here
_KEYS = {
    "input.min_size_test": ("input", "short_side"),
    "input.max_size_test": ("input", "long_side"),
    "model.pixel_mean": ("input", "mean_bgr"),
    "proposal_generator.min_size": ("rpn", "min_side"),
    "rpn.nms_thresh": ("rpn", "nms"),
    "rpn.pre_nms_topk_test": ("rpn", "candidates"),
    "rpn.post_nms_topk_test": ("rpn", "proposals"),
    "roi_heads.nms_thresh_test": ("selection", "nms"),
    "max_detections": ("selection", "regions"),
}


def read_hub_config(path: Path) -> dict[str, Any]:
    """The settings in a ``config.yaml``; what it leaves out keeps the family's value, and another's file gives none.

    Raises:
        WeightsError: it asks for an input that is divided by something else than 1.
        InputError, ConfigError: it cannot be read, or is not YAML.
    """
    content = read_yaml(path)
    # detectron2 dumps a config.yaml as well, with other defaults; there these two sit below MODEL.
    if not {str(key).lower() for key in content} & {"rpn", "roi_heads"}:
        return {}
    values = _flat(content)
    std = values.get("model.pixel_std")
    if std is not None and any(value != 1 for value in (std if isinstance(std, list) else [std])):
        raise WeightsError(f"{path} wants its input divided by {std}", "only a pixel_std of 1 is known")
    settings: dict[str, Any] = {}
    for theirs, (section, ours) in _KEYS.items():
        if theirs in values:
            settings.setdefault(section, {})[ours] = values[theirs]
    if "selection" in settings and not isinstance(settings["selection"].get("nms", []), list):
        settings["selection"]["nms"] = [settings["selection"]["nms"]]
    if "model.max_pool" in values:
        # The stem's pool: Caffe's rounding up where it is true, detectron2's otherwise.
        caffe = bool(values["model.max_pool"])
        settings["backbone"] = {"pool_padding": 0 if caffe else 1, "pool_ceil": caffe}
    return settings


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with lower-case dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}".lower()
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
