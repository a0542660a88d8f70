# SPDX-License-Identifier: Apache-2.0
"""``docs/README.md`` of an exported folder: what the model is, how it was checked, how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tral_monai.inference.early_exit.gate import GATE_FILE

_COMMANDS = {
    "tral_monai.TriCNN": ("slides", "'slides/*.tif'", "a class map, a QuPath GeoJSON, an overlay and a JSON record"),
    "tral_monai.OpenSetRCNN": ("images", "'fields/*.png'", "a QuPath GeoJSON, a CSV, an overlay and a JSON record"),
}
_FORMAT_NOTES = {
    "onnx": "`model.onnx`: ONNX Runtime and others; input, output and metadata by name",
    "openvino": (
        "`model.xml`, `model.bin`: OpenVINO, weights in fp32. On a CPU with bf16 instructions OpenVINO computes in "
        "bf16 unless `INFERENCE_PRECISION_HINT` is `f32`; it was checked with `f32`"
    ),
    "torchscript": "`model.ts`: TorchScript, `torch.jit.load`; metadata and configuration lie in the file",
    "pt2": "`model.pt2`: `torch.export.load(...).module()`",
}


def model_card(
    metadata: Mapping[str, Any], record: Mapping[str, Any], *, name: str, gate: bool, auxiliary: bool
) -> str:
    """The text.

    Args:
        metadata: ``metadata.json`` of the folder.
        record: ``export.json`` of the folder.
        name: of the folder.
        gate: it has an early-exit gate.
        auxiliary: it has an auxiliary detector.
    """
    contract = record["contract"]
    option, example, written = _COMMANDS[contract["format"]]
    image = metadata["network_data_format"]["inputs"]["image"]
    sections = [
        f"# {metadata['name']}: {name}",
        f"{metadata['description']}\n\nOne trained model, exported from `{record['checkpoint']['name']}`. "
        f"{metadata['intended_use']}.",
        "## The model",
        "\n".join(
            [
                "| | |",
                "|---|---|",
                f"| Version | {metadata['version']} |",
                f"| Classes | {', '.join(contract['classes'])} |",
                f"| Input | {metadata['image_classes']}; {image['num_channels']} channels, 0 to 255 |",
                f"| Output | {metadata['pred_classes']} |",
                f"| Backbone | {contract['backbone']} |",
                f"| Trained on | {metadata['data_source']} |",
                f"| Weights, SHA-256 | `{record['weights_sha256']}` |",
                f"| Checkpoint, SHA-256 | `{record['checkpoint']['sha256']}` |",
            ]
        ),
        "## Run it",
        f"With `tral_monai` {metadata['required_packages_version']['tral_monai']} installed, from any folder, "
        f"offline; per slide {written}:",
        f"```\npython -m monai.bundle run --bundle_root {name} --config_file {name}/configs/inference.yaml \\\n"
        f"    --{option} {example} --output_dir results\n```",
        "`configs/inference.yaml` lists every option at its top. `configs/evaluate.yaml` measures the model on "
        "annotated data. The run stops if a file `models/*.pt` is not the one that was exported; "
        "`sha256sum -c SHA256SUMS` in this folder checks all files.",
    ]
    if gate:
        sections.append(
            f"Early exit, which computes fewer tiles at the highest magnification, is off. `--early_exit {name}/models/"
            f"{GATE_FILE}` turns it on."
        )
    if auxiliary:
        sections.append(
            "`models/auxiliary.pt` gives every nucleus its distances to the prototypes; it is used by itself."
        )
    sections += [
        "In MONAI Label, copy this folder to `model/` of the stock `monaibundle` app and start it with "
        f"`--conf models {name} --conf zoo_source local --conf sam2 false`.",
        *_files(record),
        "## Licence",
        f"{metadata['copyright']}. `LICENSE`; data and pretrained weights have their own: `docs/data_license.txt`.",
    ]
    return "\n\n".join(sections) + "\n"


def _files(record: Mapping[str, Any]) -> list[str]:
    lines = [f"- {_FORMAT_NOTES[name]}" for name in record["formats"]]
    check = record["check"]
    rows = [
        f"| {name} | {100 * found['class_agreement']:.2f} % of {found['tiles']} | "
        f"{found['largest_probability_difference']:.1e} |"
        for name, found in check["agreement"].items()
    ]
    sources = ", ".join(f"{count} {name}" for name, count in check["tiles"].items())
    table = "\n".join(["| file | same class | largest difference of a probability |", "|---|---|---|", *rows])
    found = ["## Other formats", "\n".join(lines)] if lines else []
    return [
        *found,
        "## Checked",
        f"Every file was compared with the source checkpoint when it was exported (tiles: {sources}):",
        table,
        "`models/check_tiles.npz` holds drawn tiles with the source's outputs, to repeat that elsewhere; `export.json` "
        "is the record.",
    ]
