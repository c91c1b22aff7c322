"""Which device a run is made on, and which source records its work."""

import pytest

from workbench.capture import resolve as module
from workbench.capture.resolve import check_activity, resolve_activity, resolve_device
from workbench.config import RunConfig
from workbench.errors import ConfigError, NoDriverError, SourceError


@pytest.fixture
def gpu(monkeypatch):
    """Make this machine claim a GPU, or none."""
    return lambda present: monkeypatch.setattr(module, "gpu_present", lambda: present)


@pytest.mark.parametrize(
    ("present", "options", "device"),
    [
        (True, {}, "cuda"),
        (True, {"provider": "cuda"}, "cuda"),
        (True, {"provider": "cpu"}, "cpu"),
        (False, {}, "cpu"),
        (False, {"provider": "cpu"}, "cpu"),
        (False, {"provider": "cuda", "allow_cpu": True}, "cpu"),
        (False, {"binding": "pinned", "allow_cpu": True}, "cpu"),
    ],
)
def test_the_device_follows_the_machine_and_the_configuration(gpu, present, options, device):
    gpu(present)
    assert resolve_device(RunConfig(model="m", **options)) == device


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"provider": "cuda"}, "provider 'cuda' needs"),
        ({"binding": "device", "cuda_graph": True}, "cuda_graph needs"),
        ({"binding": "pinned"}, "binding 'pinned' needs"),
    ],
)
def test_what_needs_a_gpu_says_so_where_there_is_none(gpu, options, said):
    gpu(False)
    with pytest.raises(NoDriverError, match=said):
        resolve_device(RunConfig(model="m", **options))


@pytest.mark.parametrize(
    ("cupti", "nsys", "activity", "source"),
    [
        ("", "", "auto", "cupti"),
        ("no cupti", "", "auto", "nsys"),
        ("no cupti", "no nsys", "auto", "none"),
        ("", "", "nsys", "nsys"),
        ("", "no nsys", "cupti", "cupti"),
        ("", "", "none", "none"),
    ],
)
def test_the_best_source_that_answers_is_taken(monkeypatch, cupti, nsys, activity, source):
    monkeypatch.setattr(module, "cupti_problem", lambda: cupti)
    monkeypatch.setattr(module, "nsys_problem", lambda: nsys)
    found, reason = resolve_activity(activity, "cuda")
    assert found == source
    assert bool(reason) == (source == "none")
    if activity == "auto" and source == "none":
        assert "no cupti" in reason
        assert "no nsys" in reason
    assert resolve_activity(activity, "cpu") == ("none", "the run is on the CPU")


@pytest.mark.parametrize("activity", ["cupti", "nsys"])
def test_a_source_that_was_asked_for_and_is_missing_is_an_error(monkeypatch, activity):
    monkeypatch.setattr(module, f"{activity}_problem", lambda: "it is not there")
    with pytest.raises(SourceError, match="it is not there"):
        resolve_activity(activity, "cuda")


def test_an_unknown_source_is_a_configuration_error():
    assert check_activity("nsys") == "nsys"
    with pytest.raises(ConfigError, match="cupti, none, nsys"):
        check_activity("perf")
