"""Fixtures that several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def h200() -> Path:
    """Folder of the runs recorded on an H200 by tests/gpu/record_runs.py."""
    return Path(__file__).parent / "data" / "h200"
