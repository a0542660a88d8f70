# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.command_line import check_command_line
from tral_monai.errors import ConfigError

PROGRAM = "somewhere/monai/bundle/__main__.py"


@pytest.fixture
def configs(tmp_path):
    (tmp_path / "a.yaml").write_text("budget: 5\nnested: {inner: 1}\n")
    (tmp_path / "b.yaml").write_text("rounds: 3\n")
    return f"['{tmp_path}/a.yaml','{tmp_path}/b.yaml']"


@pytest.mark.parametrize(
    "options",
    [
        ["--budget", "7", "--rounds=2"],
        ["--nested#inner", "2"],
        ["--nested::inner", "2"],
        ["--meta_file", "x.json", "--bundle_root", "here"],
        ["--budget", "-3"],
        ["--budget", "$None"],
    ],
)
def test_known_options_pass(configs, options):
    check_command_line([PROGRAM, "run", "--config_file", configs, *options])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--bugdet", "unknown option --bugdet: did you mean --budget"),
        ("--zzz=1", "unknown option --zzz: .*first lines"),
        ("--budget=None", r"MONAI ignores --budget None; write --budget '\$None'"),
    ],
)
def test_a_mistyped_option_is_refused(configs, option, message):
    with pytest.raises(ConfigError, match=message):
        check_command_line([PROGRAM, "run", "--config_file", configs, option, "7"])


@pytest.mark.parametrize("option", ["output_dir", "images"])
def test_a_path_that_monai_would_change_is_refused(tmp_path, option):
    """A run once wrote to ``runs/a::1`` without a word."""
    (tmp_path / "a.yaml").write_text("output_dir: runs\nimages: x\nname: y\n")
    start = [PROGRAM, "run", "--config_file", f"{tmp_path}/a.yaml"]
    with pytest.raises(ConfigError, match=rf"MONAI turns '#' into '::', so --{option} runs/a#1 would be another path"):
        check_command_line([*start, f"--{option}", "runs/a#1"])
    check_command_line([*start, "--name", "Lym #1", f"--{option}", "@name#0"])


def test_one_config_file_is_a_plain_string(tmp_path):
    (tmp_path / "a.yaml").write_text("budget: 5\n")
    with pytest.raises(ConfigError, match="--rounds"):
        check_command_line([PROGRAM, "run", f"--config_file={tmp_path}/a.yaml", "--rounds", "1"])


@pytest.mark.parametrize("argv", [["pytest", "run", "--x"], [PROGRAM, "ckpt_export", "--x"], [PROGRAM], []])
def test_other_processes_are_left_alone(argv):
    check_command_line(argv)
