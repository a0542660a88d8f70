# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.errors import ConfigError
from tral_monai.rounds.bundle_run import run_workflow

CONFIG = """
imports: [$import pathlib]
folder: null
size: {width: 2, height: 3}
area: $@size#width * @size#height
publisher: {_target_: tral_monai.rounds.publish_handler.PublishHandler, which: best}
initialize: ["$pathlib.Path(@folder, 'initialised').touch()"]
run: ["$pathlib.Path(@folder, 'area').write_text(str(@area))", $@publisher]
finalize: ["$pathlib.Path(@folder, 'finalised').touch()"]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_it_initialises_runs_and_finalises(config, tmp_path):
    workflow = run_workflow([config], folder=str(tmp_path))
    assert (tmp_path / "area").read_text() == "6"
    assert (tmp_path / "initialised").is_file()
    assert (tmp_path / "finalised").is_file()
    assert workflow.parser.get_parsed_content("area") == 6


def test_later_files_and_overrides_win(config, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("size: {width: 5, height: 3}\n")
    run_workflow([str(config), overlay], folder=str(tmp_path))
    assert (tmp_path / "area").read_text() == "15"
    run_workflow([config, overlay], folder=str(tmp_path), **{"size#height": 4})
    assert (tmp_path / "area").read_text() == "20"


def test_a_file_that_is_not_there(config, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no configuration \['.*none.yaml'\]; expected YAML or JSON"):
        run_workflow([config, tmp_path / "none.yaml"])


def test_an_override_that_changes_nothing(config, tmp_path):
    with pytest.raises(ConfigError, match=r"\['config.yaml'\] have no id 'sise#width'; did you mean 'size'\?"):
        run_workflow([config], folder=str(tmp_path), **{"sise#width": 4})
    assert not (tmp_path / "initialised").exists()


def test_an_error_of_ours_comes_without_the_wrappers(config, tmp_path):
    with pytest.raises(ConfigError, match="which must be 'best' or 'last', but is 'first'"):
        run_workflow([config], folder=str(tmp_path), **{"publisher#which": "first"})


def test_an_error_of_others_comes_as_it_is(config, tmp_path):
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        run_workflow([config], folder=str(tmp_path / "no" / "folder"))
