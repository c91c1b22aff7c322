"""Words of the command line, such as `KEY=VALUE` and `INPUT:1,3,224,224`, laid over the options of a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workbench.config.session import RUN_ENTRIES
from workbench.errors import ConfigError


def merge(given: dict[str, Any], section: str, values: dict[str, Any]) -> None:
    """Lay the values of flags over a section of the options, key by key; raises `ConfigError`."""
    if not values:
        return
    known = given.setdefault(section, {})
    if not isinstance(known, dict):
        raise ConfigError(f"Option {section!r} of the configuration file is no mapping: write it as 'key: value'.")
    for name, value in values.items():
        if isinstance(value, dict):
            merge(known, name, value)
        else:
            known[name] = value


def pairs(texts: Iterable[str] | None) -> dict[str, str]:
    """`KEY=VALUE` words; `RunConfig` gives the values their types. Raises `ConfigError`."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{text!r} is no KEY=VALUE pair: write it as key=value.")
        found[key] = value
    return found


def with_entries(options: dict[str, str]) -> dict[str, Any]:
    """Split into fields of the option group and ONNX Runtime's dotted (or run-option) config entries."""
    entries = {key: value for key, value in options.items() if "." in key or key in RUN_ENTRIES}
    fields = {key: value for key, value in options.items() if key not in entries}
    return {**fields, "entries": entries} if entries else fields


def shape(text: str) -> tuple[str, list[int]]:
    """`INPUT:1,3,224,224` as the input's name and its dimensions; raises `ConfigError`."""
    name, colon, sizes = text.rpartition(":")
    try:
        if not colon or not name:
            raise ValueError
        return name, [int(size) for size in sizes.split(",") if size]
    except ValueError:
        raise ConfigError(f"{text!r} is no shape: write it as input:1,3,224,224.") from None


def block(text: str) -> dict[str, list[str]]:
    """`a,b:c` as the tensors that bound a block, inputs before the colon; raises `ConfigError`."""
    inputs, colon, outputs = text.partition(":")
    if not (colon and inputs and outputs):
        raise ConfigError(f"{text!r} is no block: write the tensors that bound it as in1,in2:out.")
    return {"inputs": inputs.split(","), "outputs": outputs.split(",")}
