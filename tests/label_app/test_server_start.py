# SPDX-License-Identifier: Apache-2.0
"""The server starts, soon, without network, for this machine only, also by MONAI Label's own script, and stops."""

import subprocess
import sys

import psutil
import pytest

from tests.label_app.server_process import launcher_script, running_server
from tests.label_app.sites import make_studies

pytest.importorskip("monailabel")


@pytest.fixture
def studies(tiny_cohort, tmp_path):
    return make_studies(tmp_path / "studies", tiny_cohort, {"A-01": "train", "A-02": "val"})


def test_the_script_starts_it_without_network_for_this_machine_only_and_a_signal_ends_it(studies, tmp_path):
    try:
        launcher_script()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    # The script takes values apart at spaces: classes whose names have some go into a file.
    settings = tmp_path / "settings.yaml"
    settings.write_text("tasks: tissue\ntissue_classes: [Smooth muscle, Stroma]\n")
    conf = {"config": str(settings)}
    # Whoever asks for an address outside gets an error at once.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    nowhere |= {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
    with running_server(tmp_path, studies, conf, launcher=True, environment=nowhere) as server:
        assert server.start_seconds < 60  # 20 s is the aim; test machines are shared
        family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        listening = [c.laddr for process in family for c in process.net_connections("inet") if c.status == "LISTEN"]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert server.port in {address.port for address in listening}
        info = server.get("/info/")
        assert list(info["trainers"]) == ["tissue"]
        assert info["models"] == {}, "before the first training there is no model to offer"
        assert info["labels"] == ["Smooth muscle", "Stroma"]
        assert info["datastore"]["total"] == 2
        server.stop()
        assert not psutil.pid_exists(server.process.pid)
        assert all(not process.is_running() for process in family)
    assert "Traceback" not in server.log


def start(app, studies, *pairs):
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    conf = [word for pair in pairs for word in ("--conf", *pair)]
    return subprocess.run([*command, "--port", "0", *conf], capture_output=True, text=True, timeout=60)


def test_a_mistyped_setting_ends_the_start_with_a_hint(studies, tmp_path):
    app = tmp_path / "app"
    subprocess.run([sys.executable, "-m", "tral_monai", "app", "--into", str(app)], check=True, capture_output=True)
    ended = start(app, studies, ("tissue_buget", "5"))
    assert ended.returncode != 0
    assert "there is no setting 'tissue_buget'; did you mean 'tissue_budget'?" in ended.stdout + ended.stderr
    assert not (studies / "active_learning").exists()
