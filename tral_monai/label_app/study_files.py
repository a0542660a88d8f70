# SPDX-License-Identifier: Apache-2.0
"""Which files of a studies folder are images and labels, and which id each has; none of them lies outside."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from tral_monai.annotations.nuclei.files import IMAGE_SUFFIXES
from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError, UnknownItemError
from tral_monai.label_app.safe_names import check_name, check_tag, inside
from tral_monai.rounds.regions.catalog import SlideCatalog, SlideListing, slide_id
from tral_monai.rounds.regions.label_file import label_stem


class StudyFiles:
    """The images and labels of a studies folder.

    Args:
        root: the folder, absolute.
        catalog: its slides.
    """

    def __init__(self, root: Path, catalog: SlideCatalog) -> None:
        self.root, self.catalog = root, catalog

    def images(self) -> dict[str, tuple[Path, list[int] | None]]:
        """File of each image by id, and [x, y, width, height] on its slide where it is the picture of a region."""
        listing = self.catalog.listing()
        found: dict[str, tuple[Path, list[int] | None]] = {
            listing.client_id(name): (entry.path, None) for name, entry in listing.entries.items()
        }
        for path in sorted(self.root.iterdir()):
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
            if is_image and path.name not in listing.entries:
                region = _region(listing, slide_id(path.name))
                if region is not None and path.is_file() and inside(path, self.root):
                    found.setdefault(slide_id(path.name), (path, region))
        return found

    def find(self, image_id: str, *, strict: bool = True) -> tuple[str, Path] | None:
        """Id and file of an image, by anything that a client may call it.

        Args:
            image_id: id, file name, or an id with an inner suffix (``.ome``) left out.
            strict: raise where there is none; else return None.

        Raises:
            ConfigError: the name is not allowed.
            UnknownItemError: there is no such image.
        """
        listing = self.catalog.listing()
        try:
            entry = listing.find(image_id)
            return listing.client_id(entry.name), entry.path
        except UnknownItemError:
            if check_name(image_id, strict=strict) and _region(listing, image_id) is not None:
                for suffix in IMAGE_SUFFIXES:
                    path = self.root / f"{image_id}{suffix}"
                    if path.is_file() and inside(path, self.root):
                        return image_id, path
            if strict:
                raise
            return None

    def refuse_to_replace(self, name: str, source: Path) -> None:
        """Hold an upload against the slides.

        Args:
            name: file name that it is to have.
            source: the upload.

        Raises:
            ConfigError: another slide has that id.
        """
        for entry in self.catalog.entries().values():
            if entry.id == slide_id(name) and not (
                entry.name == name and filecmp.cmp(entry.path, source, shallow=False)
            ):
                raise ConfigError(
                    f"there is a slide '{entry.name}' already, and slides are not replaced; choose another name"
                )

    def label_dir(self, tag: str) -> Path:
        """Folder of the labels of a tag."""
        return self.root / "labels" / tag

    def labels(self) -> dict[str, dict[str, list[str]]]:
        """Names of the label files by tag and by the id that they are called after."""
        folder = self.root / "labels"
        found: dict[str, dict[str, list[str]]] = {}
        if not folder.is_dir() or not inside(folder, self.root):
            return found
        for tag in sorted(folder.iterdir()):
            if tag.is_dir() and check_tag(tag.name, strict=False) and inside(tag, self.root):
                names = sorted(path.name for path in tag.iterdir() if path.is_file())
                of_tag = found.setdefault(tag.name, {})
                for name in names:
                    stem = label_stem(name)
                    if stem is not None:
                        of_tag.setdefault(stem, []).append(name)
        return found

    def delete_labels(self, image_id: str, tag: str) -> bool:
        """Delete all label files of an image under a tag; whether there was any."""
        names = self.labels().get(tag, {}).get(image_id, [])
        for name in names:
            (self.label_dir(tag) / name).unlink(missing_ok=True)
        return bool(names)


def _region(listing: SlideListing, image_id: str) -> list[int] | None:
    """[x, y, width, height] of the region that a picture shows, by its id; None for anything else."""
    try:
        region = listing.patch_origin(image_id)
    except (UnknownItemError, ConfigError):  # called like one, but its slide is not there, or it has no area
        return None
    return None if region is None else list(region.bbox_level0)


def own_id(listing: SlideListing, name: str) -> str:
    """The id of the slide that a label file is called after, or the name itself."""
    try:
        return listing.client_id(listing.find(name).name)
    except UnknownItemError:
        return name


def label_suffix(name: str) -> str:
    """Suffix of a label file, with the ``.gz`` of a packed one (``a.b.GeoJSON.gz`` -> ``.geojson.gz``)."""
    packed = ".gz" if name.lower().endswith(".gz") else ""
    return Path(name[: len(name) - len(packed)]).suffix.lower() + packed


def store(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all; a link in its place is replaced, not followed.

    Raises:
        OutputError: it cannot be written, such as on a full disk; what was there before stays.
    """
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
