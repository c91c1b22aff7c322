"""`python -m workbench.capture.ceilings --kind cuda --out FILE`: the ceilings as JSON, from a process of their own.

Each measurement is named on stdout as it starts. An error that the user can cure ends the process with
code 2 and `{"kind": …, "message": …}` as the last line of stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from workbench.capture.ceilings import cache, load_or_measure
from workbench.errors import ConfigError, WorkbenchError
from workbench.runs.manifest import Ceilings


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for an error that the user can cure."""
    parser = argparse.ArgumentParser(prog="python -m workbench.capture.ceilings", description="Measure ceilings.")
    parser.add_argument("--kind", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--device-id", type=int, default=0)
    parser.add_argument("--threads", type=int, help="intra-op threads of the CPU (default: ONNX Runtime's choice)")
    parser.add_argument("--refresh", action="store_true", help="measure even if the cache knows the ceilings")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    try:
        ceilings = load_or_measure(
            options.kind,
            device_id=options.device_id,
            threads=options.threads,
            progress=lambda what: print(what, flush=True),
            refresh=options.refresh,
        )
        _write(ceilings, options.out)
    except WorkbenchError as error:
        print(json.dumps({"kind": type(error).__name__, "message": str(error)}), file=sys.stderr)
        return 2
    return 0


def _write(ceilings: Ceilings, path: Path) -> None:
    try:
        cache.store(ceilings, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): give --out another place.") from error


if __name__ == "__main__":
    sys.exit(main())
