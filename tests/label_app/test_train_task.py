# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

import pytest

pytest.importorskip("monailabel")

from tests.rounds.regions.colour_site import annotate, make_slides, tissue_site
from tral_monai.errors import ConfigError
from tral_monai.label_app.train_task import SiteTrainTask
from tral_monai.rounds.regions.region import Region
from tral_monai.strategies.registry import strategy_names

ROW = (0, 256, 1024, 128)
OF_MONAI_LABEL = {"model": "tissue", "client_id": "someone", "device": "cuda", "gpus": "all", "local_rank": 0}

APP = """
from monailabel.interfaces.app import MONAILabelApp
from tests.rounds.regions.colour_site import tissue_site
from tral_monai.label_app.train_task import SiteTrainTask


class App(MONAILabelApp):
    def __init__(self, app_dir, studies, conf):
        self.task = tissue_site(studies)
        super().__init__(app_dir, studies, {"sam2": "false"}, name="app")

    def init_trainers(self):
        return {"tissue": SiteTrainTask(self.task)}

    def on_init_complete(self):
        pass
"""


@pytest.fixture
def studies(tmp_path):
    return make_slides(tmp_path / "slides")


def test_what_a_client_may_choose(studies):
    config = SiteTrainTask(tissue_site(studies)).config()
    assert config["strategy"][0] == "random"
    assert sorted(config["strategy"]) == sorted(strategy_names("tissue"))
    assert {key: value for key, value in config.items() if key != "strategy"} == {
        "max_epochs": 8,
        "warm_start": True,
        "force": False,
        "rollback": False,
    }


def test_a_request_as_clients_send_it_trains_a_round(studies, caplog):
    annotate(studies, Region("a.tif", *ROW))
    annotate(studies, Region("c.tif", *ROW))
    task = SiteTrainTask(tissue_site(studies))
    assert task.stats()["round"] == 0
    # The whole config comes back from some clients, and lists with it.
    with caplog.at_level("INFO"):
        result = task({**OF_MONAI_LABEL, **task.config(), "max_epochs": 2}, None)
    assert (result["round"], result["epochs"], result["query"]["open"]) == (1, 2, 2)
    json.dumps(result, allow_nan=False)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("target: epoch 2/2, val_loss") for line in lines)
    assert lines[-1] == "round 1 is open: 2 regions to annotate"
    assert task.stats()["round"] == 1
    with pytest.raises(ConfigError, match="there is no tissue model to roll back to"):
        task({"model": "tissue", "rollback": True}, None)
    with pytest.raises(ConfigError, match="rollback must be true or false, but is 'maybe'"):
        task({"rollback": "maybe"}, None)
    with pytest.raises(ConfigError, match="nothing was annotated since the training of round 1"):
        task(OF_MONAI_LABEL, None)
    # Roll-back works on files: a second model is there as soon as somebody brought one.
    site = task._task
    site.previous_path.write_bytes(site.model_path.read_bytes() + b" ")
    assert task({"rollback": True}, None) == {"task": "tissue", "rolled_back": True, "published_round": 0, "before": 1}
    assert task.stats()["published_round"] == 0


def test_a_training_process_that_fails_ends_with_what_is_wrong(studies, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text(APP)
    command = [sys.executable, "-m", "monailabel.interfaces.utils.app", "-a", str(tmp_path / "app"), "-s", str(studies)]
    done = subprocess.run(
        [*command, "-m", "train", "-r", json.dumps(OF_MONAI_LABEL)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert "ConfigError: nothing is annotated for 'tissue' yet: ask for the next sample" in last
    assert "Traceback" not in done.stdout
