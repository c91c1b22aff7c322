"""Configurations as text that a reader may copy: YAML without the folders of the machine that measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from workbench.report.redact import file_name

_FILES = ("model", "feeds")


def as_yaml(options: Mapping[str, Any]) -> str:
    """Options as `workbench profile --config` takes them; of each path its last part."""
    return yaml.safe_dump(_without_folders(options), sort_keys=False, allow_unicode=True).rstrip()


def changed(options: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not so in the base; of a group, those inside it."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        old = base.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = changed(value, old)  # noqa: PLW2901
            if not value:
                continue
        elif name in base and value == old:
            continue
        found[name] = value
    return found


def _without_folders(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and (name in _FILES or _is_path(value)):
        return file_name(value)
    return value


def _is_path(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~")
