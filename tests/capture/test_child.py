"""What the parent says of a child process: its own words, a signal, the time limit, or its last words."""

import pytest

from workbench.capture.child import run_child
from workbench.errors import FeedError, OutOfMemoryError, WorkerError, WorkerTimeoutError

SAYS = """
import sys
from workbench.capture.child import say_failed
from workbench.errors import FeedError
print("a library talks", end="")
status = say_failed(FeedError(sys.argv[1] + sys.stdin.read()))
print("and talks on", file=sys.stderr)
print("to the end")
sys.exit(status)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(code, *arguments, timeout_s=30.0, given=""):
        (tmp_path / "work_of_a_child.py").write_text(code)
        run_child(
            "work_of_a_child", arguments, given=given, what="The work", otherwise="leave it out", timeout_s=timeout_s
        )

    return run


def test_a_child_that_ends_well_is_silent(child):
    child("import sys; assert (sys.argv[1:], sys.stdin.read()) == (['a'], 'b')", "a", given="b")


def test_what_a_child_says_is_raised_whatever_its_libraries_print(child):
    with pytest.raises(FeedError, match=r"^It is so\.$"):
        child(SAYS, "It is", given=" so.")


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", OutOfMemoryError, "^The work was killed, .* or leave it out.$"),
        ("import os; os.kill(os.getpid(), 11)", WorkerError, r"ended with SIGSEGV and no result \(no message\)"),
        ("import sys; sys.exit('deep in\\nthe tool')", WorkerError, r"status 1 and no result \(deep in the tool\)"),
        ("import sys; sys.exit(3)", WorkerError, "status 3 and no result"),
        ("import time; time.sleep(60)", WorkerTimeoutError, r"^The work reached its limit of 0\.5 s: .*it out\.$"),
    ],
)
def test_a_child_that_dies_is_reported(child, code, error, words):
    with pytest.raises(error, match=words) as raised:
        child(code, timeout_s=0.5 if "sleep" in code else 30.0)
    assert type(raised.value) is error
