"""A lever: one named change of a configuration, declared with what it treats, when it applies and what it may cost.

To undo a lever, take the base configuration again: `applied` returns a new one and leaves the base as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from workbench.config import Conversion, RunConfig
from workbench.diagnosis.prediction.formula import Formula
from workbench.diagnosis.situation import Situation
from workbench.errors import ConfigError

Treats = Literal[
    "host", "launch latency", "under-filled", "framework overhead", "pcie", "memory", "compute", "cold start",
    "capacity",
]  # fmt: skip
"""Sub-causes of the class `launch`, the other classes, and what is no share of T."""

Objective = Literal["latency", "throughput", "memory", "cold start"]
Cost = Literal["accuracy", "memory", "cold start", "latency"]

Changes = Mapping[str, Any]
"""Options as `RunConfig` takes them; a mapping inside is laid over the group of options of that name."""

ALREADY_SO: Final = "It is already so."
# What is in force where an option says nothing and nothing was read back (ONNX Runtime's and CUDA's defaults).
_UNSAID: Final[dict[tuple[str, ...], Any]] = {
    ("cuda_module_loading",): "LAZY",
    ("session", "entries", "session.intra_op.allow_spinning"): "1",
    ("session", "entries", "session.inter_op.allow_spinning"): "1",
    ("session", "execution_mode"): "sequential",
    ("session", "enable_mem_pattern"): True,
    ("cuda", "do_copy_in_default_stream"): True,
    ("cuda", "use_tf32"): True,
    ("cuda", "prefer_nhwc"): False,
    ("cuda", "cudnn_conv_algo_search"): "EXHAUSTIVE",
    ("cuda", "cudnn_conv_use_max_workspace"): True,
    ("cuda", "cudnn_conv1d_pad_to_nc1d"): False,
    ("cuda", "fuse_conv_bias"): False,
    ("cuda", "sdpa_kernel"): 0,
    ("cuda", "arena_extend_strategy"): "kNextPowerOfTwo",
}


def no_reason(_: Situation) -> str | None:
    """The condition of a lever that always applies."""
    return None


@dataclass(frozen=True)
class Lever:
    """One change of the configuration.

    name: in kebab case. title: what is done, for people. treats: what it works on. serves: objectives that it may
    improve. changes: the options, or a function that works them out in a situation. condition: when it applies, in
    words; unless: the same as a function, which returns None or a sentence why it does not. effect: what it should do
    to which piece of T. costs, cost: what it may cost, and how. formula: predicts T_variant; where it is None,
    unknown_because says why nothing can.
    """

    name: str
    title: str
    treats: tuple[Treats, ...]
    serves: tuple[Objective, ...]
    changes: Changes | Callable[[Situation], Changes]
    condition: str
    effect: str
    cost: str
    costs: tuple[Cost, ...] = ()
    unless: Callable[[Situation], str | None] = no_reason
    formula: Formula | None = None
    unknown_because: str = "Other kernels are chosen, and what they take is not known before they have run."

    def why_not(self, situation: Situation) -> str | None:
        """None where the lever applies, else one sentence why it does not.

        Beside the lever's own condition: what is already in force, or what the configuration refuses.
        """
        reason = self.unless(situation)
        if reason is not None:
            return reason
        changes = self.changes_in(situation)
        try:
            variant = RunConfig(**laid_over(situation.config.model_dump(exclude_unset=True), changes))
        except ConfigError as error:
            return str(error)
        same = variant == situation.config or all(
            _in_force(situation, path) == _value(variant, path) for path in _leaves(changes)
        )
        return ALREADY_SO if same else None

    def changes_in(self, situation: Situation) -> Changes:
        """The options that the lever sets in this situation."""
        return self.changes(situation) if callable(self.changes) else self.changes


def applied(lever: Lever, situation: Situation) -> RunConfig:
    """The configuration with the lever; raises `ConfigError` with the reason where it does not apply."""
    reason = lever.why_not(situation)
    if reason is not None:
        raise ConfigError(f"Lever {lever.name!r} does not apply: {reason}")
    return RunConfig(**laid_over(situation.config.model_dump(exclude_unset=True), lever.changes_in(situation)))


def custom(name: str, changes: Changes) -> Lever:
    """A lever of the user's own: `changes` is laid over the base. Misspelt options are found where it is applied."""
    return Lever(
        name=name,
        title=name,
        treats=(),
        serves=(),
        changes=changes,
        condition="always",
        effect="not known",
        cost="not known",
        costs=("accuracy", "memory", "cold start", "latency"),
        unknown_because="It is a change of your own, of which only a measurement can tell the effect.",
    )


def converting(conversion: Conversion) -> Callable[[Situation], Changes]:
    """The change that adds a conversion: after those made already, but before `optimized`, which saves what is run."""

    def changes(situation: Situation) -> Changes:
        made = [*situation.config.conversions, conversion]
        return {"conversions": sorted(made, key=lambda each: each == "optimized")}

    return changes


def laid_over(options: Changes, changes: Changes) -> dict[str, Any]:
    """`options` with `changes`: mappings are merged, anything else is replaced."""
    merged = dict(options)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = laid_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _leaves(changes: Changes, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, value in changes.items():
        found += _leaves(value, (*above, name)) if isinstance(value, Mapping) else [(*above, name)]
    return found


def _in_force(situation: Situation, path: tuple[str, ...]) -> Any:
    """What a run in this situation has: as configured, else as read back from the provider, else the default."""
    if path[0] == "cuda" and len(path) == 2 and path[1] in situation.cuda_options:
        return type(situation.config.cuda)(**{path[1]: situation.cuda_options[path[1]]}).model_dump()[path[1]]
    value = situation.batch if path == ("batch",) else _value(situation.config, path)
    return _UNSAID.get(path) if value is None else value


def _value(config: RunConfig, path: tuple[str, ...]) -> Any:
    value: Any = config.model_dump()
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
