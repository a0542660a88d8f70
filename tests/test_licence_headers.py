# SPDX-License-Identifier: Apache-2.0
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LICENCE = "# SPDX-License-Identifier: Apache-2.0"


@pytest.fixture(scope="module")
def sources() -> list[Path]:
    """All tracked Python files; in an unpacked source archive, all there are beside the environment."""
    done = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        files = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        files = [file for folder in ("tral_monai", "tests", "scripts") for file in (ROOT / folder).rglob("*.py")]
    return [file for file in files if file.is_file()]


def test_every_source_file_names_its_licence(sources):
    assert ROOT / "tral_monai" / "__init__.py" in sources
    assert [str(file.relative_to(ROOT)) for file in sources if first_line(file) != LICENCE] == []


def first_line(file: Path) -> str:
    """The first line, or the one after ``#!``."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if not line.startswith("#!")), "")
