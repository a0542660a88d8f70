# SPDX-License-Identifier: Apache-2.0
"""A bundle and a checkpoint become one folder that runs by itself, whole and checked or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tral_monai.errors import ConfigError, OutputError
from tral_monai.file_hash import file_sha256
from tral_monai.inference.early_exit.gate import GATE_FILE, ExitGate
from tral_monai.inference.export.bundle_kind import load_deployable
from tral_monai.inference.export.check_export import TILES_NAME, Floors, check_formats, keep_tiles
from tral_monai.inference.export.config_copy import copy_config
from tral_monai.inference.export.deployable import Deployable, Tiles
from tral_monai.inference.export.formats import FORMATS, chosen_formats
from tral_monai.inference.export.metadata import exported_metadata
from tral_monai.inference.export.model_card import model_card
from tral_monai.inference.export.sums import write_sums
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.inference.nuclei.load_detector import load_auxiliary
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.provenance import provenance

RECORD_NAME = "export.json"
_SEED = 20


def export_bundle(
    bundle: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    formats: Sequence[str] = (),
    auxiliary: str | os.PathLike[str] | None = "auto",
    exit_gate: str | os.PathLike[str] | None = None,
    slides: Sequence[str | os.PathLike[str]] = (),
    mpp: float | None = None,
    tiles: int = 64,
    floors: Floors | None = None,
    tile_px: int | None = None,
    version: str | None = None,
    data_source: str | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Write a self-contained bundle: LICENSE, docs, configs, models, the record of the check, and hashes of all files.

    The folder gets its name when everything in it is written and checked; after an error nothing is left.

    Args:
        bundle: folder of a bundle of this package.
        checkpoint: a checkpoint that it made.
        output_dir: the folder to make; it must not exist, or be empty.
        formats: of ``onnx``, ``openvino``, ``torchscript``, ``pt2``.
        auxiliary: auxiliary detector of a nucleus detector; ``auto`` takes ``auxiliary.pt`` beside the checkpoint, if
            it is there and has prototypes; None or empty takes none.
        exit_gate: early-exit gate of a TriCNN.
        slides: slides whose tissue is checked on too; their tiles stay out of the folder.
        mpp: micrometres per pixel of slides that record none.
        tiles: number of drawn tiles, and of tiles of each slide, that are checked on.
        floors: what every file must reach.
        tile_px: side of the tiles that a detector's ONNX file takes; None takes that of its training.
        version: of the model, for ``metadata.json``.
        data_source: what it was trained on, for ``metadata.json``.
        report: is told what is being done, line by line.

    Returns:
        The folder.

    Raises:
        ConfigError: a setting cannot be used, or a format cannot hold the network.
        CheckpointError: a checkpoint cannot be used, or is of another bundle.
        AgreementError: an exported file does not compute what the checkpoint does.
        MissingExtraError: a format's packages are not installed.
        OutputError: the folder cannot be written.
    """
    source, target = Path(bundle), Path(output_dir)
    floors = floors if floors is not None else Floors()
    deployable = load_deployable(source, checkpoint, tile_px=tile_px)
    formats = chosen_formats(formats, deployable)
    _check_target(target)
    second = _auxiliary(deployable, auxiliary, Path(checkpoint))
    gate = _gate(deployable, exit_gate)
    checked_on, tiles_of = _tiles(deployable, slides, tiles, mpp)

    part = target.with_name(f".part-{uuid.uuid4().hex[:12]}-{target.name}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        for name in ("configs", "docs", "models"):
            (part / name).mkdir(parents=True)
        models, sha256 = part / "models", weights_sha256(deployable.network)
        metadata = _write_descriptions(source, part, deployable, sha256, version, data_source)
        network = deployable.network
        assert isinstance(network, TriCNN | OpenSetRCNN)
        save_checkpoint(models / "model.pt", network)
        if second is not None:
            save_checkpoint(models / "auxiliary.pt", second)
        if gate is not None:
            gate.save(models / GATE_FILE)
        for name in formats:
            report(f"writing {', '.join(FORMATS[name].files)}")
            FORMATS[name].write(deployable, models)
        reloaded = load_deployable(source, models / "model.pt", tile_px=tile_px)
        agreement = check_formats(deployable, reloaded, models, formats, checked_on, floors=floors, report=report)
        keep_tiles(models / TILES_NAME, deployable, seed=_SEED + 1)
        record = {
            "checkpoint": {"name": Path(checkpoint).name, "sha256": file_sha256(checkpoint)},
            "weights_sha256": sha256,
            "contract": network.contract.state_dict(),
            "formats": {name: list(FORMATS[name].files) for name in formats},
            "metadata": deployable.metadata(),
            "tile_px": deployable.tile_px,
            "check": {
                "tiles": tiles_of,
                "min_agreement": floors.min_agreement,
                "max_difference": floors.max_difference,
                "agreement": agreement,
            },
            **{key: provenance()[key] for key in ("versions", "commit", "started_utc")},
        }
        _write_json(part / RECORD_NAME, record)
        (part / "docs" / "README.md").write_text(
            model_card(metadata, record, name=target.name, gate=gate is not None, auxiliary=second is not None),
            encoding="utf-8",
        )
        write_sums(part)
        if target.is_dir():
            target.rmdir()  # empty, as was checked
        part.rename(target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write the exported folder '{target}' ({error.strerror or error}); check that the folder above it "
            "may be written to and has free space"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    report(f"wrote {target}")
    return target


def _check_target(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"'{target}' is there already; give another output_dir, or remove it first")


def _auxiliary(deployable: Deployable, path: str | os.PathLike[str] | None, checkpoint: Path) -> OpenSetRCNN | None:
    if isinstance(deployable.network, OpenSetRCNN):
        found = load_auxiliary(path, beside=checkpoint)
        if found is not None and found.prototypes is None:
            raise ConfigError(f"an auxiliary detector has the role 'prototype', but {path} has {found.role!r}")
        return found
    if path not in (None, "", "auto"):
        raise ConfigError("only a nucleus detector has an auxiliary detector; leave out auxiliary")
    return None


def _gate(deployable: Deployable, path: str | os.PathLike[str] | None) -> ExitGate | None:
    if path is None:
        return None
    if not isinstance(deployable.network, TriCNN):
        raise ConfigError("only a tissue classifier has an early exit; leave out exit_gate")
    gate = ExitGate.load(path)
    gate.check(deployable.network)
    return gate


def _tiles(
    deployable: Deployable, slides: Sequence[str | os.PathLike[str]], count: int, mpp: float | None
) -> tuple[Tiles, dict[str, int]]:
    parts = {"drawn": deployable.generated_tiles(count, seed=_SEED)}
    for number, path in enumerate(slides):
        parts[Path(path).name] = deployable.slide_tiles(Path(path), count, mpp=mpp, seed=_SEED + number)
    return np.concatenate(list(parts.values())), {name: len(found) for name, found in parts.items()}


def _write_descriptions(
    source: Path, part: Path, deployable: Deployable, sha256: str, version: str | None, data_source: str | None
) -> dict[str, Any]:
    shutil.copyfile(source / "LICENSE", part / "LICENSE")
    shutil.copyfile(source / "configs" / "logging.conf", part / "configs" / "logging.conf")
    licence = source / "docs" / "data_license.txt"
    if licence.is_file():
        shutil.copyfile(licence, part / "docs" / "data_license.txt")
    for name in ("inference.yaml", "evaluate.yaml"):
        copy_config(source / "configs" / name, part / "configs" / name)
    described = json.loads((source / "configs" / "metadata.json").read_text(encoding="utf-8"))
    metadata = exported_metadata(described, deployable, weights_sha256=sha256, version=version, data_source=data_source)
    _write_json(part / "configs" / "metadata.json", metadata)
    return metadata


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
