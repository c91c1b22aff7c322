"""Whether what a lever asked for is in force, and whether it changed anything: asked, read back, observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from workbench.analysis.subject import WholeRun
from workbench.config import CudaOptions, TensorrtOptions
from workbench.tuning.blocks import Block
from workbench.tuning.observed import Observed, host_copies, observed, some

Options = Mapping[str, Mapping[str, Any]]
State = Literal["in force", "not in force", "not observable"]

_CUDA: Final = "CUDAExecutionProvider"
_TENSORRT: Final = "TensorrtExecutionProvider"
_PROVIDERS: Final = {"cuda": _CUDA, "tensorrt": _TENSORRT, "cpu": "CPUExecutionProvider"}
_GROUPS: Final = ("cuda", "tensorrt", "session", "run")
_UNREADABLE: Final = {
    "session": "ONNX Runtime gives no session option back and takes unknown config keys in silence",
    "run": "ONNX Runtime gives no run option back",
}


@dataclass(frozen=True)
class Evidence:
    """What is known of one arm. options: of each provider, as `get_provider_options` gave them; run: its traced run."""

    providers: list[str]
    options: Options
    run: WholeRun | None = None

    @classmethod
    def of_block(cls, block: Block, run: WholeRun | None = None) -> Evidence:
        """What a measuring process read back, with the tables of a traced run of the same configuration."""
        return cls(block.providers, block.options, run)

    @classmethod
    def of_run(cls, run: WholeRun) -> Evidence:
        """What a recorded run read back and traced."""
        return cls(run.manifest.providers, run.manifest.provider_options, run)


@dataclass(frozen=True)
class Change:
    """One changed option. read_back: what is in force, in ONNX Runtime's words, None where nothing says it."""

    option: str
    asked: str
    state: State
    read_back: str | None
    reason: str

    @property
    def sentence(self) -> str:
        """Asked, and read back or why not."""
        if self.state == "not observable":
            return f"{self.option} = {self.asked} cannot be read back: {self.reason}."
        return f"{self.option}: asked {self.asked}, read back {self.read_back}: {self.state} ({self.reason})."


@dataclass(frozen=True)
class Readback:
    """What became of a lever's changes.

    other_options: provider options that differ and were not asked for. observed: None without a traced run of both.
    changed_nothing: neither other options, nodes, kernels, host copies nor replays differ; None where not all of these
    are known. findings: what a user has to know, such as nodes that fell to the CPU.
    """

    changes: list[Change]
    other_options: list[str]
    observed: Observed | None
    changed_nothing: bool | None
    findings: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """Everything, for a reader, the findings first."""
        seen = self.observed.sentences if self.observed else ["No traced run of both: what changed was not observed."]
        changes = [change.sentence for change in self.changes if change.state != "not in force"]  # those are findings
        others = [f"Option {text}, which was not asked for." for text in self.other_options]
        return [*self.findings, *changes, *others, *seen]


def readback(lever_changes: Mapping[str, Any], base: Evidence, variant: Evidence) -> Readback:
    """Hold a lever's changes, a mapping laid over `RunConfig`, against what the two arms read back and traced.

    Raises `RunFolderError` when a table of a run is damaged, `ConfigError` when a change is no option.
    """
    seen = observed(base.run, variant.run) if base.run is not None and variant.run is not None else None
    changes = [_checked(option, value, variant) for option, value in _flat(lever_changes)]
    others = _other_options(lever_changes, base.options, variant.options)
    nothing = _changed_nothing(others, seen)
    findings = [change.sentence for change in changes if change.state == "not in force"]
    if lever_changes.get("cuda_graph") and seen is not None and seen.replays is False:
        findings.append("The traced calls replay no more CUDA graphs than those of the base: none was captured.")
    if seen is not None and seen.on_cpu:
        findings.append(_fell(seen.on_cpu))
    in_force = [change.option for change in changes if change.state == "in force"]
    if nothing and in_force:
        findings.append(
            f"{' and '.join(in_force)} in force, but nodes, kernels, host copies and replays are those of the base."
        )
    return Readback(changes, others, seen, nothing, findings)


def _flat(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(`cuda.use_tf32`, False), … : groups and their config entries one by one, everything else as it is."""
    for name, value in changes.items():
        if name in _GROUPS and isinstance(value, Mapping):
            for key, inner in value.items():
                if key == "entries":
                    yield from ((f"{name}.entries.{entry}", text) for entry, text in inner.items())
                else:
                    yield f"{name}.{key}", inner
        else:
            yield name, value


def _checked(option: str, value: Any, variant: Evidence) -> Change:
    group, _, key = option.partition(".")
    if value is None or value == "auto":
        return Change(option, "the default", "not observable", None, "the default was asked for, whatever it is")
    if group in ("cuda", "tensorrt") and key:
        return _provider_option(option, group, key, value, variant.options)
    if option == "provider":
        read = variant.providers[0] if variant.providers else None
        return _answer(option, _PROVIDERS[value], read, "the first provider of the session")
    if option == "cuda_graph":
        asked = CudaOptions(enable_cuda_graph=value).to_provider_options()["enable_cuda_graph"]
        read = variant.options.get(_CUDA, {}).get("enable_cuda_graph")
        return _answer(option, asked, read, "as enable_cuda_graph; replays are what shows that a graph was captured")
    if option == "binding":
        return _binding(value, variant.run)
    reason = _UNREADABLE.get(group, "it is no option of ONNX Runtime's providers; what changed is what shows it")
    return Change(option, str(value), "not observable", None, reason)


def _provider_option(option: str, group: str, key: str, value: Any, options: Options) -> Change:
    kind, provider = (CudaOptions, _CUDA) if group == "cuda" else (TensorrtOptions, _TENSORRT)
    asked = kind(**{key: value}).to_provider_options()[key]
    return _answer(option, asked, options.get(provider, {}).get(key), f"by {provider}")


def _answer(option: str, asked: str, read: Any, source: str) -> Change:
    if read is None:
        return Change(option, asked, "not observable", None, f"nothing was read back {source}")
    same = _plain(asked) == _plain(str(read))
    return Change(option, asked, "in force" if same else "not in force", str(read), source)


def _plain(text: str) -> str:
    """Booleans in one spelling: providers differ in theirs."""
    return {"true": "1", "false": "0"}.get(text.lower(), text)


def _binding(asked: str, run: WholeRun | None) -> Change:
    """The memory that the traced calls copied between: page-locked, pageable, or none because nothing was copied."""
    copied = host_copies(run) if run is not None else None
    if copied is None:
        return Change("binding", asked, "not observable", None, "no traced run shows the copies")
    if any("pinned" in kind for kind in copied):
        read = "pinned"
    elif any("pageable" in kind for kind in copied):
        read = "numpy"
    else:
        read = "device"
    if asked == "device" and read != "device":
        return Change("binding", asked, "not observable", None, "Memcpy nodes in the graph copy to the host as well")
    if asked != "device" and read == "device":
        return Change("binding", asked, "not observable", None, "no call copied anything between host and device")
    return _answer("binding", asked, read, "from the memory that host copies used")


def _other_options(lever_changes: Mapping[str, Any], base: Options, variant: Options) -> list[str]:
    asked = {
        (_PROVIDERS[group], key) for group in ("cuda", "tensorrt") for key in dict(lever_changes.get(group) or {})
    }
    if "cuda_graph" in lever_changes:
        asked.add((_CUDA, "enable_cuda_graph"))
    return [
        f"{provider}.{key} {base[provider][key]} → {variant[provider][key]}"
        for provider in sorted(base.keys() & variant.keys())
        for key in sorted(base[provider].keys() & variant[provider].keys())
        if (provider, key) not in asked and base[provider][key] != variant[provider][key]
    ]


def _changed_nothing(other_options: list[str], seen: Observed | None) -> bool | None:
    parts = [None] if seen is None else [seen.nodes, seen.kernels, seen.copies, seen.replays]
    if other_options or any(parts):
        return False
    return None if None in parts else True


def _fell(on_cpu: Mapping[str, list[str]]) -> str:
    """Nodes that left the GPU. The CUDA provider has no kernel for most integer operators."""
    count = sum(map(len, on_cpu.values()))
    operators = ", ".join(f"{op} ×{len(names)} ({some(names)})" for op, names in on_cpu.items())
    return f"{count} nodes run on the CPU that the base does not have there: {operators}."
