# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.rounds.regions.colour_site import make_slides, nuclei_site, tissue_site
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.train_config import open_settings, train_values, training_options


@pytest.fixture
def task(tmp_path):
    return tissue_site(make_slides(tmp_path / "slides", ("a",)))


def test_the_overlay_lies_over_the_bundle(task):
    values = train_values(task)
    assert (values["max_epochs"], values["backbone"]) == (8, "timm:mobilenetv3_small_050")
    assert values["val_interval"] == 1  # the bundle's own


@pytest.mark.parametrize("site", [tissue_site, nuclei_site])
def test_nothing_that_names_a_place_or_holds_code_is_open(site, tmp_path):
    known = open_settings(site(make_slides(tmp_path / "slides", ("a",))))
    assert {"max_epochs", "learning_rate", "batch_size", "augment", "optimizer_name"} <= set(known)
    closed = {"output_dir", "dataset_dir", "bundle_root", "pretrained_path", "checkpoint", "device", "classes", "role"}
    assert not closed & set(known)
    assert not [name for name, value in known.items() if isinstance(value, str) and set(value) & set("$@%/")]


def test_values_come_in_the_type_of_their_setting(task):
    asked = {"max_epochs": "3", "learning_rate": "1e-3", "augment": "True", "batch_size": 4.0, "optimizer_name": "SGD"}
    values = training_options(task, asked)
    assert values == {
        "max_epochs": 3,
        "learning_rate": 0.001,
        "augment": True,
        "batch_size": 4,
        "optimizer_name": "SGD",
    }
    assert isinstance(values["batch_size"], int)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_epoch": 3},
            r"a training has no option 'max_epoch'; did you mean 'max_epochs'\? \(options: .*batch_size",
        ),
        ({"output_dir": "elsewhere"}, "a training has no option 'output_dir'"),
        ({"pretrained_path": "w.pt"}, "a training has no option 'pretrained_path'"),
        ({"optimizer_name": "$__import__('os').abort()"}, "optimizer_name must be one plain word, such as 'AdamW'"),
        ({"optimizer_name": "%/etc/passwd"}, "optimizer_name must be one plain word"),
        ({"backbone": "@network"}, "backbone must be one plain word"),
        ({"max_epochs": 0}, "max_epochs must be 1 or more, but is 0"),
        ({"max_epochs": 2.5}, "max_epochs must be a whole number, but is 2.5"),
        ({"max_epochs": True}, "max_epochs must be a number, such as 8, but is True"),
        ({"learning_rate": "$1"}, r"learning_rate must be a number, such as 0.03, but is '\$1'"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"learning_rate": -1}, "learning_rate must be 0 or more, but is -1"),
        ({"augment": 1}, "augment must be true or false, but is 1"),
    ],
)
def test_a_request_that_is_refused(task, options, message):
    with pytest.raises(ConfigError, match=message):
        training_options(task, options)
