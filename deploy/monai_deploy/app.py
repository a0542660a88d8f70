# SPDX-License-Identifier: Apache-2.0
"""A MONAI Deploy application: a folder of slides in, what an exported bundle makes of them out.

    python app.py --input slides --model exported/my_tissue_model --output results

Needs `monai-deploy-app-sdk` beside `tral_monai`. A GPU is used where there is one and not needed.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec

_log = logging.getLogger(__name__)


class BundleOperator(Operator):
    """Runs `inference.yaml` of an exported bundle on every slide of a folder, once.

    Output `results` is the folder with a class map (or nuclei), a GeoJSON, an overlay and a JSON record per slide.
    Slides that cannot be used are reported and left out; if that is all of them, the application ends with an error.

    Args:
        fragment: the application.
        input_path: folder of slides, or one slide.
        model_path: folder that `scripts/export.py` wrote, or the folder above it, as a MAP has it.
        output_path: folder of the results.
        options: further options of `inference.yaml`, such as `mpp`.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        input_path: Path,
        model_path: Path,
        output_path: Path,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.input_path, self.output_path = Path(input_path), Path(output_path)
        self.bundle = find_bundle(Path(model_path))
        self.options = dict(options or {})
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """One output."""
        spec.output("results")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Map the slides."""
        from monai.bundle import ConfigParser

        from tral_monai.rounds.bundle_run import run_workflow

        config = self.bundle / "configs" / "inference.yaml"
        takes = "slides" if "slides" in ConfigParser.load_config_file(config) else "images"
        options = {takes: str(self.input_path.resolve()), "output_dir": str(self.output_path.resolve()), **self.options}
        run_workflow([config], bundle_root=str(self.bundle.resolve()), **options)
        op_output.emit(self.output_path, "results")


class SummaryOperator(Operator):
    """Logs the table that a run leaves: mm2 per class of each slide, or its nuclei."""

    def setup(self, spec: OperatorSpec) -> None:
        """One input."""
        spec.input("results")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Read the table."""
        folder = Path(op_input.receive("results"))
        for table in (folder / "areas.csv", folder / "counts.csv"):
            if table.is_file():
                with table.open(newline="", encoding="utf-8") as file:
                    for row in csv.DictReader(file):
                        _log.info("%s: %s", table.name, row)


def find_bundle(folder: Path) -> Path:
    """The exported bundle in a folder: the folder itself, or the only one below it.

    Raises:
        FileNotFoundError: there is none, or more than one.
    """
    found = [path.parent for path in (folder / "export.json", *sorted(folder.glob("*/export.json"))) if path.is_file()]
    if len(found) != 1:
        raise FileNotFoundError(
            f"--model must be one folder that scripts/export.py wrote, but '{folder}' holds {len(found)} of them"
        )
    return found[0]


class SlideApp(Application):
    """Slides to tissue maps, or to nuclei, by whichever bundle the model folder holds."""

    def compose(self) -> None:
        """Two operators, one after the other."""
        context: AppContext = Application.init_app_context(self.argv)
        maps = BundleOperator(
            self,
            CountCondition(self, 1),
            input_path=Path(context.input_path),
            model_path=Path(context.model_path),
            output_path=Path(context.output_path),
            name="bundle",
        )
        self.add_flow(maps, SummaryOperator(self, name="summary"), {("results", "results")})


if __name__ == "__main__":
    SlideApp().run()
