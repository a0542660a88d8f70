# SPDX-License-Identifier: Apache-2.0
"""Makes an exit gate: fits the exit head on training triplets, calibrates it on held-out ones, reports its loss."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.utils import eval_mode
from rich.console import Console
from rich.table import Table

from tral_monai.data.triplet_dataset import TripletDataset
from tral_monai.errors import ConfigError
from tral_monai.inference.early_exit.exit_head import fit_exit_head, fit_temperature
from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.inference.early_exit.low_branches import low_feature_columns, low_scales
from tral_monai.inference.early_exit.threshold import choose_threshold
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.inference.map_classes import MapClasses, decide
from tral_monai.metrics.classification import class_scores, confusion_matrix
from tral_monai.networks.tri_cnn import TriCNN

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class TileAnswers:
    """What the full model says about the tiles of one split.

    Attributes:
        low: (n, F) float32 features of the low-magnification branches.
        probabilities: (n, C) float32 of the full model.
        labels: (n,) int64 true classes, -1 where not known.
    """

    low: torch.Tensor
    probabilities: torch.Tensor
    labels: npt.NDArray[np.int64]


class ExitCalibration:
    """Fits, calibrates and measures an exit gate, and writes it beside the checkpoint.

    A tile *agrees* where the map shows the same value for the early decision as for the full model's, by
    :func:`tral_monai.inference.map_classes.decide`: the same class, or undefined in both. Truth is used only for the
    F1 columns of the report.

    Args:
        network: the full model.
        fit: tiles that the exit head is fitted on; their labels are not looked at.
        val: tiles that temperature and threshold are calibrated on. They must not be among ``fit``.
        test: tiles that are only reported on; None where there are none.
        gate_path: where the gate goes; None writes nothing.
        max_disagreement: largest share of exited tiles that may disagree.
        confidence_level: of the bound, see :func:`tral_monai.inference.early_exit.threshold.choose_threshold`.
        l2: regularisation of the exit head, see :func:`tral_monai.inference.early_exit.exit_head.fit_exit_head`.
        undefined_below: rule of the maps that the gate is for.
        damaged_at_least: rule of the maps that the gate is for.
        device: where the network runs.
        batch_size: tiles per forward pass.
        num_workers: processes that read tiles; 0 reads in the calling one.
        console: where the table goes; standard output by default.

    Raises:
        ConfigError: the network has one magnification only or normalises stain, or ``fit`` or ``val`` has no tiles.
    """

    def __init__(
        self,
        network: TriCNN,
        fit: TripletDataset,
        val: TripletDataset,
        test: TripletDataset | None = None,
        *,
        gate_path: str | os.PathLike[str] | None,
        max_disagreement: float = 0.01,
        confidence_level: float = 0.95,
        l2: float = 0.01,
        undefined_below: float = 0.6,
        damaged_at_least: float = 0.9,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        num_workers: int = 0,
        console: Console | None = None,
    ) -> None:
        low_scales(network)
        for purpose, dataset in (("fit it on (splits train and pool)", fit), ("calibrate it on (split val)", val)):
            if not len(dataset):
                raise ConfigError(f"an exit gate needs tiles to {purpose}, but there are none; check the cohort")
        self.network = network
        self.splits: dict[str, TripletDataset] = {"train": fit, "val": val}
        if test is not None and len(test):
            self.splits["test"] = test
        self.gate_path = Path(gate_path) if gate_path is not None else None
        self.max_disagreement, self.confidence_level, self.l2 = max_disagreement, confidence_level, l2
        self.rules: dict[str, float] = {"undefined_below": undefined_below, "damaged_at_least": damaged_at_least}
        self.device = torch.device(device)
        self.batch_size, self.num_workers = batch_size, num_workers
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._map_classes = MapClasses(network.classes)

    def run(self) -> ExitGate:
        """Make the gate, write it, and show the table.

        Returns:
            The gate; its threshold is None, with a warning, where no threshold keeps ``max_disagreement``.

        Raises:
            OutputError: the gate cannot be written.
        """
        answers = {name: self._answers(dataset) for name, dataset in self.splits.items()}
        gate = self.calibrate(answers)
        if gate.threshold is None:
            logger.warning(
                "no threshold keeps the disagreement with the full model at or below %g with confidence %g on %d "
                "calibration tiles: this gate lets no tile exit. Calibrate on more tiles, or allow a larger "
                "max_disagreement",
                self.max_disagreement,
                self.confidence_level,
                len(answers["val"].labels),
            )
        if self.gate_path is not None:
            gate.save(self.gate_path)
        self._console.print(report_table(gate))
        return gate

    def calibrate(self, answers: Mapping[str, TileAnswers]) -> ExitGate:
        """Make a gate from what the full model says about the tiles of each split (``train``, ``val``, others)."""
        weight, bias = fit_exit_head(answers["train"].low, answers["train"].probabilities, l2=self.l2)
        val = answers["val"]
        temperature = fit_temperature(torch.nn.functional.linear(val.low, weight, bias), val.probabilities)
        network = self.network
        gate = ExitGate(
            classes=network.classes,
            weights_sha256=weights_sha256(network),
            context=str(getattr(network, "context", "tile")),
            magnifications=tuple(network.magnifications[scale] for scale in low_scales(network)),
            weight=weight,
            bias=bias,
            temperature=temperature,
            threshold=None,
            undefined_below=self.rules["undefined_below"],
            damaged_at_least=self.rules["damaged_at_least"],
        )
        early = gate.log_probabilities(val.low).exp().numpy()
        choice = choose_threshold(
            early.max(axis=1),
            self._shown(early) != self._shown(val.probabilities.numpy()),
            max_disagreement=self.max_disagreement,
            confidence_level=self.confidence_level,
        )
        gate = dataclasses.replace(gate, threshold=choice.threshold)
        rows = [self._measured(name, gate, answer) for name, answer in answers.items() if name != "train"]
        return dataclasses.replace(
            gate,
            calibration={
                "max_disagreement": self.max_disagreement,
                "confidence_level": self.confidence_level,
                "upper_bound": choice.upper_bound,
                "l2": self.l2,
                "fit_tiles": len(answers["train"].labels),
                "splits": rows,
            },
        )

    def _answers(self, dataset: TripletDataset) -> TileAnswers:
        loader = torch.utils.data.DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers)
        columns = low_feature_columns(self.network)
        low, probabilities = [], []
        network = self.network.to(self.device)
        with eval_mode(network), torch.inference_mode():
            for batch in loader:
                image = batch["image"].to(self.device)
                features = image if image.ndim == 2 else network.features(image)
                low.append(features[:, columns].float().cpu())
                probabilities.append(network.head(features).float().softmax(dim=1).cpu())
        return TileAnswers(torch.cat(low).clone(), torch.cat(probabilities).clone(), dataset.labels)

    def _shown(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return decide(probabilities, self._map_classes, **self.rules)

    def _measured(self, split: str, gate: ExitGate, answers: TileAnswers) -> dict[str, Any]:
        log_early = gate.log_probabilities(answers.low)
        exits = gate.exits(log_early).numpy()
        early, full = log_early.exp().numpy(), answers.probabilities.numpy()
        gated = np.where(exits[:, None], early, full)
        differs = self._shown(early) != self._shown(full)
        n, exited, wrong = len(exits), int(exits.sum()), int((differs & exits).sum())
        row: dict[str, Any] = {"split": split, "tiles": n, "exited": exited, "coverage": exited / n}
        row |= {"disagreeing": wrong, "disagreement": wrong / exited if exited else None}
        row["disagreement_all_early"] = float(differs.mean())
        for name, probabilities in (("full", full), ("gated", gated), ("early", early)):
            row[f"f1_macro_{name}"] = self._f1_macro(answers.labels, probabilities)
        return row

    def _f1_macro(self, labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> float | None:
        known = labels >= 0
        if not known.any():
            return None
        predicted = probabilities.argmax(axis=1)
        return class_scores(confusion_matrix(labels[known], predicted[known], len(self.network.classes))).f1_macro


def report_table(gate: ExitGate) -> Table:
    """What a gate does on each split, for the terminal."""
    figures = gate.calibration
    threshold = "none: no tile exits" if gate.threshold is None else f"{gate.threshold:.4f}"
    table = Table(
        title=f"Early exit from {' and '.join(f'{m:g}x' for m in gate.magnifications)}: threshold {threshold}, for at "
        f"most {figures['max_disagreement']:.2%} of exited tiles unlike the full model",
        title_justify="left",
    )
    for column in ("split", "tiles", "exit", "differ of these", "F1 full", "gated", "low only"):
        table.add_column(column, justify="left" if column == "split" else "right")
    rows: Sequence[Mapping[str, Any]] = figures["splits"]
    for row in rows:
        exit, differ = f"{row['exited']} ({row['coverage']:.1%})", f"{row['disagreeing']}"
        if row["disagreement"] is not None:
            differ += f" ({row['disagreement']:.1%})"
        scores = (row[f"f1_macro_{name}"] for name in ("full", "gated", "early"))
        table.add_row(row["split"], str(row["tiles"]), exit, differ, *(_percent(score) for score in scores))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
