"""A JupyterLab of its own, and notebooks in it driven through Chromium."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

import nbformat

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS: Final = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
_KERNEL: Final = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
_START_S: Final = 60.0
_OPEN_MS: Final = 90_000
_HARMLESS: Final = ("favicon", "/api/contents/workspaces", "Failed to load resource")
"""JupyterLab's own complaints, which a page without any widget has too."""


@contextmanager
def jupyter_lab(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a server whose root is `folder`, with a token; ended with its kernels afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {
        name: str(folder / ".jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR",
                                                    "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.token={token}", f"--port={port}",
        "--ServerApp.port_retries=0", "--allow-root", f"--ServerApp.root_dir={folder}",
        "--expose-app-in-browser", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    notices = folder / ".jupyter" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notices.parent.mkdir(parents=True, exist_ok=True)
    notices.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **own, **environment}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        _until_answers(f"{address}/api?token={token}", server)
        yield f"{address}/lab/tree/{{}}?token={token}&reset"
    finally:
        server.terminate()
        server.wait(30)


def _until_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def write_notebook(file: Path, *cells: str) -> Path:
    """A notebook of code cells, with the kernel named so that JupyterLab does not ask for one."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, file)
    return file


class NotebookPage:
    """An open notebook. complaints: what the browser's console said of errors."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: message.type == "error" and self._complain(message.text))
        page.on("pageerror", lambda error: self._complain(str(error)))
        page.goto(url)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=_OPEN_MS)
        page.wait_for_function(f"{_KERNEL}?.status === 'idle'", timeout=_OPEN_MS)  # without one, it asks which to start

    def _complain(self, said: str) -> None:
        if not any(words in said for words in _HARMLESS):
            self.complaints.append(said)

    def run_all(self) -> None:
        """Run every cell."""
        self.page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def execute(self, code: str) -> str:
        """How the kernel answers to some code of its own, outside every cell: `ok` or `error`."""
        return str(
            self.page.evaluate(f"code => {_KERNEL}.requestExecute({{code}}).done.then(r => r.content.status)", code)
        )

    def button(self, name: str) -> Any:
        """The widget's button of that name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def dark(self) -> None:
        """Switch to JupyterLab's dark theme."""
        command = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
        self.page.evaluate(command)
        self.page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
