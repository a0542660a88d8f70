# SPDX-License-Identifier: Apache-2.0
"""The real label server as a process of its own on this machine, started as a lab starts it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

START_S = 150.0
STOP_S = 20.0


class LabelServer:
    """A server that runs: where it is, what it logs, and how to end it gently or at once.

    Args:
        folder: where its app folder and its log go; they stay over restarts.
        studies: folder of the slides.
        conf: settings, as ``--conf`` takes them.
        launcher: start with the ``monailabel`` script instead of ``python -m monailabel.main``.
        port: to listen on; a free one where not given.
        environment: variables on top of this process's.
    """

    def __init__(
        self,
        folder: Path,
        studies: Path,
        conf: Mapping[str, Any],
        *,
        launcher: bool = False,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.studies, self.log_file = studies, folder / "server.log"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        made = subprocess.run(
            [sys.executable, "-m", "tral_monai", "app", "--into", str(folder / "app")],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.app_dir = Path(made.stdout.strip())
        pairs = [word for key, value in conf.items() for word in ("--conf", key, _text(value))]
        program = [launcher_script()] if launcher else [sys.executable, "-m", "monailabel.main"]
        where = ["--app", str(self.app_dir), "--studies", str(studies)]
        own = {"OMP_NUM_THREADS": "1", "MONAILABEL_PYEXE": sys.executable, **(environment or {})}
        begin = time.monotonic()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*program, "start_server", *where, "--port", str(self.port), *pairs],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **own},
                start_new_session=True,  # a process group of its own: trainings die with it
            )
        try:
            self._wait(begin)
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - begin

    @property
    def log(self) -> str:
        """All that this and earlier servers of the folder have printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str, timeout: float = 30.0) -> Any:
        """The JSON answer to a GET, which must be 200."""
        return self.ask("GET", path, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 120.0) -> Any:
        """The JSON answer to a request with a JSON body, which must be 200."""
        status, answer = self.answer(method, path, body, timeout=timeout)
        assert status == 200, f"{method} {path}: {status} {answer!r}\n{self.tail()}"
        return answer

    def answer(self, method: str, path: str, body: Any = None, timeout: float = 120.0) -> tuple[int, Any]:
        """Status and answer (JSON where it is some, else text) of a request with a JSON body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {} if body is None else {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", errors="replace")
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def children(self, method: str = "train") -> list[psutil.Process]:
        """Its processes that train (or do another of MONAI Label's tasks)."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                command = child.cmdline()
            except psutil.NoSuchProcess:
                continue
            if "monailabel.interfaces.utils.app" in command and method in command:
                found.append(child)
        return found

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log.splitlines()[-lines:])

    def stop(self) -> int:
        """End it as a service manager does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """``kill -9`` of the server and all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(STOP_S)

    def _wait(self, begin: float) -> None:
        while True:
            try:
                if self.answer("GET", "/info/", timeout=START_S)[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}\n{self.tail()}")
            if time.monotonic() - begin > START_S:
                raise TimeoutError(f"no /info/ after {START_S:.0f} s\n{self.tail()}")
            time.sleep(0.1)


@contextmanager
def running_server(folder: Path, studies: Path, conf: Mapping[str, Any], **options: Any) -> Iterator[LabelServer]:
    """A server for a ``with`` block; afterwards neither it nor anything that it started runs."""
    server = LabelServer(folder, studies, conf, **options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        server.kill()


def launcher_script() -> str:
    """The ``monailabel`` script of this environment; FileNotFoundError where the installer left it out."""
    beside = Path(sys.executable).with_name("monailabel")
    found = str(beside) if beside.is_file() else shutil.which("monailabel")
    if found is None:
        raise FileNotFoundError("no monailabel script in this environment (uv does not install it)")
    return found


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
