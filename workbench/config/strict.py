"""A pydantic base that answers a misspelt field with the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from workbench.errors import ConfigError


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or all of them when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}."


class Strict(BaseModel):
    """Unknown fields and impossible values raise `ConfigError`, one sentence each; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name in data:
                if name not in cls.model_fields:
                    hint = nearest(str(name), cls.model_fields)
                    raise ConfigError(f"Unknown option {name!r}{_section(cls.__name__)}: {hint}")
        return data

    def changed(self, **changes: Any) -> Self:
        """A validated copy with `changes` applied; raises `ConfigError` like the constructor."""
        return type(self)(**{**self.model_dump(exclude_unset=True), **changes})


def _section(group: str) -> str:
    return "" if group == "RunConfig" else f" of {group}"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    got = f" (got {first['input']!r})" if not isinstance(first["input"], dict) else ""
    return f"Option {where!r}{_section(error.title)} cannot be used: {first['msg']}{got}."
