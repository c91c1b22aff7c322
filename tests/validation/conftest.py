"""The recorded labelled set: some cells for quick tests, all of them for slow ones."""

from functools import cache

import pytest

from workbench.validation.cells import groups
from workbench.validation.labelled import Times


@pytest.fixture(scope="session")
def set_folder(request):
    """Folder of the labelled set that was recorded on an H200."""
    return request.config.rootpath / "tests" / "data" / "h200-labelled"


@pytest.fixture(scope="session")
def times(set_folder):
    """The times of all recorded groups."""
    return Times.read(set_folder, groups())


@pytest.fixture(scope="session")
def cells_of(times):
    """The recorded cells of a group by its name, by arm; diagnosed once for all tests."""

    @cache
    def found(name):
        group = next(group for group in times.groups if group.name == name)
        return {cell.arm: cell for cell in times.cells(group)}

    return found
