# SPDX-License-Identifier: Apache-2.0
"""The slides of a run: from patterns, folders and files to a list in which every slide has its own output name."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from tral_monai.errors import ConfigError

# What a folder is searched for. A slide of another kind can be named itself; of a DICOM slide, which is a folder of
# files, one of them.
SLIDE_SUFFIXES = (
    ".bif", ".btf", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu",
)  # fmt: skip
FIELD_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")


class SlideListDataset(Dataset[dict[str, Any]]):
    """Slides as MONAI's data lists have them: ``{"image": path}``, one per slide, sorted by path.

    Args:
        data: a path, a pattern such as ``slides/*.tif`` (``**`` goes through folders; a pattern without a suffix takes
            slide files only), a folder (every slide file directly in it), or a list of these or of ``{"image": path}``.
        fields: plain images (PNG, JPEG, BMP) count as slide files too. Overlays that an earlier run wrote do not.

    Raises:
        ConfigError: a pattern matches nothing, a file is not there, or two slides would write the same files.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | Mapping[str, Any]],
        *,
        fields: bool = False,
    ) -> None:
        suffixes = (*SLIDE_SUFFIXES, *FIELD_SUFFIXES) if fields else SLIDE_SUFFIXES
        entries = [data] if isinstance(data, str | os.PathLike) else list(data)
        if not entries:
            raise ConfigError("no slides were given; give a path or a pattern, such as 'slides/*.tif'")
        found: dict[Path, dict[str, Any]] = {}
        for entry in entries:
            rest = dict(entry) if isinstance(entry, Mapping) else {"image": entry}
            if "image" not in rest:
                raise ConfigError(f"a slide's entry must have the key 'image', but has {sorted(rest)}")
            # A file goes before links to it, whatever the folder's order: its name is that of the results.
            slides = sorted(_expand(os.fspath(rest["image"]), suffixes), key=lambda path: (path.is_symlink(), path))
            for path in slides:
                found.setdefault(path.resolve(), {**rest, "image": str(path)})
        self.data = [found[path] for path in sorted(found)]
        _check_names(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.data[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(entry) for entry in self.data)


def output_stem(path: str | os.PathLike[str]) -> str:
    """First part of the names of a slide's files: its file name without the last suffix (``a.b.svs`` -> ``a.b``).

    Args:
        path: the slide's path.
    """
    return Path(path).stem


def _expand(entry: str, suffixes: tuple[str, ...]) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir() and path.suffix.lower() not in suffixes:
        slides = [file for file in path.iterdir() if file.suffix.lower() in suffixes and not _is_result(file)]
        if not slides:
            raise ConfigError(
                f"the folder '{entry}' holds no slide ({', '.join(suffixes)}); give a pattern for other files"
            )
        return slides
    if path.exists():  # a name with brackets is a file first, then a pattern
        return [path]
    if not glob.has_magic(entry):
        hint = "; in a configuration '#' becomes '::', use a pattern with '?' instead" if "::" in entry else ""
        raise ConfigError(f"there is no slide '{entry}'; check the path{hint}")
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207, Path.glob takes no pattern from the root
    slides = [Path(match) for match in matches if not Path(match).is_dir() and not _is_result(Path(match))]
    if path.suffix in ("", ".*", ".**"):  # "slides/*" is meant without the annotations that lie beside the slides
        slides = [slide for slide in slides if slide.suffix.lower() in suffixes]
    if not slides:
        raise ConfigError(
            f"no slide matches '{entry}' (looked from '{Path.cwd()}'); check the pattern, and quote it in the shell"
        )
    return slides


def _is_result(path: Path) -> bool:
    """Whether a picture was written beside its image by an earlier run: ``a_overlay.png`` where ``a.json`` lies."""
    for ending in ("_overlay.png", "_classes.png"):
        if path.name.endswith(ending):
            return path.with_name(path.name.removesuffix(ending) + ".json").is_file()
    return False


def _check_names(data: list[dict[str, Any]]) -> None:
    first: dict[str, str] = {}
    for entry in data:
        stem = output_stem(entry["image"])
        # Names that differ only in case are one file on Windows and macOS.
        other = first.setdefault(stem.casefold(), entry["image"])
        if other != entry["image"]:
            raise ConfigError(
                f"'{other}' and '{entry['image']}' would both write '{stem}.geojson'; "
                "run them with different output folders, or rename one"
            )
