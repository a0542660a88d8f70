# SPDX-License-Identifier: Apache-2.0
"""The studies folder as MONAI Label's datastore: slides and plain images, their label files, nothing else.

MONAI Label's own local datastore takes every file of a listed suffix for an image, cuts names at their first dot, and
writes wherever a name leads. This one lists what the site's catalogue lists, lets no name leave the folder, replaces
files only once they are whole, and reads a label before it stores it. Pictures of regions that QuPath uploads
(``<slide>-patch-<x>_<y>_<w>_<h>.png``) are images that can be downloaded and labelled, but they are not offered.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock, local
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag

from tral_monai.annotations.nuclei.files import IMAGE_SUFFIXES
from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError, OutputError, UnknownItemError
from tral_monai.label_app.label_map import is_label_map, label_map_as_geojson
from tral_monai.label_app.safe_names import check_mapping, check_name, check_tag, inside
from tral_monai.label_app.study_files import StudyFiles, label_suffix, own_id, store
from tral_monai.label_app.study_watcher import StudyWatcher
from tral_monai.rounds.regions.catalog import slide_id
from tral_monai.rounds.regions.intake import check_submission, sync_labels
from tral_monai.rounds.regions.label_file import LABEL_SUFFIXES, label_stem
from tral_monai.rounds.regions.site import AnnotationSite

logger = logging.getLogger(__name__)

RESERVED = ("id", "bbox", "score", "path")
"""Keys that an image's stored information may not hold: MONAI Label copies it over the answer of a next sample."""
PATCH = "region_level0"
"""Key in the information of an uploaded picture of a region: [x, y, width, height] on its slide."""


class SlideDatastore(LocalDatastore):
    """Slides and plain images that lie directly in the studies folder, and labels in ``labels/<tag>``.

    Args:
        studies: the folder.
        site: the site that it belongs to.
        auto_reload: watch the folder for files that are dropped in.
    """

    def __init__(self, studies: str, site: AnnotationSite, *, auto_reload: bool = True) -> None:
        self._site, self._guard = site, RLock()
        self._root = Path(studies).absolute()
        self._files = StudyFiles(self._root, site.catalog)
        self._config_ts = 0
        self._stored = local()
        self._watcher = StudyWatcher(
            site, remarks=self._init_from_datastore_file, remarks_name="datastore_v2.json", refresh=self.refresh
        )
        patterns = [f"*{suffix}" for suffix in (*IMAGE_SUFFIXES, *LABEL_SUFFIXES, ".gz") if suffix != ".json"]
        super().__init__(str(self._root), extensions=patterns, auto_reload=auto_reload)
        handler = getattr(self, "_handler", None)
        if handler is not None:
            handler.on_moved = self._on_any_event

    # -- what there is ------------------------------------------------------------------------------------------------

    def list_images(self) -> list[str]:
        """Ids of the slides and plain images; pictures of regions are left out."""
        with self._guard:
            return [name for name, one in self._datastore.objects.items() if PATCH not in one.image.info]

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Those of them that have a label of the tag."""
        tag = label_tag or DefaultLabelTag.FINAL.value
        with self._guard:
            return [name for name in self.list_images() if tag in self._datastore.objects[name].labels]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Those of them that have none. On a slide this says little: its regions are what is labelled."""
        labelled = set(self.get_labeled_images(label_tag, labels))
        return [name for name in self.list_images() if name not in labelled]

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Image and label file of everything that has a submitted label."""
        pairs = []
        with self._guard:
            for name in list(self._datastore.objects):
                image, label = self.get_image_uri(name), self.get_label_uri(name, DefaultLabelTag.FINAL.value)
                if image and label:
                    pairs.append({"image": image, "label": label})
        if full_path:
            return pairs
        return [{key: str(Path(path).relative_to(self._root)) for key, path in pair.items()} for pair in pairs]

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image, under the name that it has in the folder also where it is a link; nothing if unknown."""
        found = self._files.find(image_id, strict=False)
        return "" if found is None else str(found[1])

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, with its ``path``.

        Raises:
            ConfigError: the name is not allowed.
            UnknownItemError: there is no such image.
        """
        identifier, path = self._found(image_id)
        with self._guard:
            stored = self._datastore.objects.get(identifier)
            info = copy.deepcopy(stored.image.info) if stored is not None else {}
        return {**_without(info, RESERVED), "path": str(path)}

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label; nothing if there is none, or if it is a link out of the studies folder."""
        if not check_tag(label_tag, strict=False):
            return ""
        identifier = self._id(label_id)
        with self._guard:
            label = self._datastore.label(identifier, label_tag)
        path = self._files.label_dir(label_tag) / f"{identifier}{label.ext if label else ''}"
        return str(path) if label is not None and path.is_file() and inside(path, self._root) else ""

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Label id by tag."""
        with self._guard:
            return dict(super().get_labels_by_image_id(self._id(image_id)))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label."""
        with self._guard:
            return copy.deepcopy(super().get_label_info(self._id(label_id), label_tag))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A ZIP file of everything that has a submitted label.

        Raises:
            UnknownItemError: nothing has one.
        """
        if not self.datalist():
            raise UnknownItemError("there is no submitted label yet, so there is nothing to pack")
        return str(super().get_dataset_archive(limit_cases))

    def status(self) -> dict[str, Any]:
        """How many images there are, and how many have labels."""
        with self._guard:
            return dict(super().status())

    def json(self) -> Any:
        """Everything that the datastore's file says."""
        with self._guard:
            return super().json()

    # -- what changes -------------------------------------------------------------------------------------------------

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store an uploaded image.

        Raises:
            ConfigError: its name or suffix is not allowed, a slide has that name, or ``image_info`` is no mapping.
            UnknownItemError: it is called like the picture of a region of a slide that is not there.
            OutputError: it cannot be written.
        """
        image_info = check_mapping(image_info, "the information on an image")
        source = Path(image_filename)
        suffix = source.suffix.lower()
        name = f"{check_name(image_id or slide_id(source.name))}{suffix}"
        if suffix not in IMAGE_SUFFIXES:
            raise ConfigError(f"expected an image that ends in {', '.join(IMAGE_SUFFIXES)}, but '{source.suffix}' came")
        with self._guard:
            is_region = self._site.catalog.patch_origin(slide_id(name)) is not None
            if not is_region:
                self._files.refuse_to_replace(name, source)
            if is_region or not (self._root / name).exists():
                store(source, self._root / name)
            info = {**_without(image_info, (*RESERVED, PATCH)), "ts": int(time.time())}
            with self._update():
                self._scan()
                self._datastore.objects[slide_id(name)].image.info.update(info)
        logger.info("image %s stored", name)
        return slide_id(name)

    def remove_image(self, image_id: str) -> None:
        """Delete an image and its labels; of a link, the link alone.

        Raises:
            ConfigError: the name is not allowed.
            UnknownItemError: there is no such image.
        """
        identifier, path = self._found(image_id)
        with self._guard:
            for tag in self._files.labels():
                self._files.delete_labels(identifier, tag)
            sync_labels(self._site)  # while the slide is there: labels of slides that are gone are kept
            path.unlink(missing_ok=True)
            self.refresh()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label in place of an earlier one of the same kind, once it has been read.

        Args:
            image_id: the slide, or the picture of a region of it.
            label_filename: the file that came; a label map is stored as GeoJSON.
            label_tag: ``final`` for what people submit, ``original`` for what models find.
            label_info: what else is to be known of it.

        Raises:
            ConfigError: a name or tag is not allowed, or ``label_info`` is no mapping.
            UnknownItemError: there is no such image.
            AnnotationError: nothing in the file can be used.
            OutputError: it cannot be written; the earlier label stays.
        """
        check_tag(label_tag)
        label_info = check_mapping(label_info, "the parameters of a label")
        if is_label_map(label_filename):
            with label_map_as_geojson(self._site, image_id, Path(label_filename), label_info) as converted:
                return self.save_label(image_id, str(converted), label_tag, label_info)
        found = self._files.find(image_id, strict=False)
        identifier = found[0] if found is not None else check_name(image_id)
        source = Path(label_filename)
        if label_stem(source.name) is None or label_tag == DefaultLabelTag.FINAL.value:
            check_submission(self._site, image_id, source, name=f"{identifier}{label_suffix(source.name)}")
        elif found is None:
            self._found(image_id)
        folder = self._files.label_dir(label_tag)
        if not inside(folder, self._root):
            raise ConfigError(f"labels/{label_tag} is a link out of the studies folder; make it a folder")
        suffix = label_suffix(source.name)
        info = {**label_info, "ts": int(time.time()), "name": f"{identifier}{suffix}"}
        with self._guard:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make the folder labels/{label_tag} ({error.strerror})") from error
            store(source, folder / f"{identifier}{suffix}")
            self._stored.source = f"labels/{label_tag}/{identifier}{suffix}"
            with self._update():
                self._scan()
                if identifier in self._datastore.objects:
                    self._datastore.objects[identifier].labels[label_tag] = DataModel(info=info, ext=suffix)
        logger.info("label %s%s stored under %s", identifier, suffix, label_tag)
        return identifier

    def stored_label(self) -> str:
        """The label file that the calling thread stored last, relative to the studies folder; empty without one."""
        return str(getattr(self._stored, "source", ""))

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Delete an image's label files of one tag, and forget what they said.

        Raises:
            ConfigError: a name or tag is not allowed.
            UnknownItemError: there is no such label.
        """
        check_tag(label_tag)
        found = self._files.find(label_id, strict=False)
        identifier = found[0] if found is not None else check_name(label_id)  # of a slide that is gone, too
        with self._guard:
            if not self._files.delete_labels(identifier, label_tag):
                raise UnknownItemError(f"there is no label of '{label_id}' under the tag '{label_tag}'")
            self.refresh()
        sync_labels(self._site)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image.

        Raises:
            ConfigError: ``info`` is no mapping.
            UnknownItemError: there is no such image.
        """
        info = check_mapping(info, "the information on an image")
        identifier, _ = self._found(image_id)
        with self._guard, self._update():
            self._scan()
            self._datastore.objects[identifier].image.info.update(_without(info, (*RESERVED, PATCH)))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what is known of a label.

        Raises:
            ConfigError: ``info`` is no mapping.
            UnknownItemError: there is no such label.
        """
        info = check_mapping(info, "the information on a label")
        with self._guard, self._update():
            label = self._datastore.label(self._id(label_id), label_tag)
            if label is None:
                raise UnknownItemError(f"there is no label of '{label_id}' under the tag '{label_tag}'")
            label.info.update(info)

    # -- the datastore's file -----------------------------------------------------------------------------------------

    @contextmanager
    def _update(self) -> Iterator[None]:
        """Change the datastore's file: read what other processes have written, change, write, as one step."""
        with FileLock(self._lock_file):
            self._load()
            before = self._text()
            yield
            if self._text() != before or not Path(self._datastore_config_path).is_file():
                self._write()

    def _reconcile_datastore(self) -> None:
        with self._guard, self._update():
            self._scan()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._guard, FileLock(self._lock_file):
            self._load()

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._guard:
            if lock:
                with FileLock(self._lock_file):
                    self._write()
            else:
                self._write()

    def _load(self) -> None:
        path = Path(self._datastore_config_path)
        try:
            stamp = path.stat().st_mtime_ns
            if stamp == self._config_ts:
                return
            self._datastore = LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError as error:
            raise ConfigError(
                f"{path.name} in the studies folder is damaged ({str(error).splitlines()[0]}); it only holds "
                "remarks on images: delete it, and it is made anew"
            ) from error
        self._datastore.base_path = str(self._root)
        self._config_ts = stamp

    def _text(self) -> str:
        return json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)

    def _write(self) -> None:
        path = Path(self._datastore_config_path)
        with atomic_path(path) as temporary:
            temporary.write_text(self._text(), encoding="utf-8")
        self._config_ts = path.stat().st_mtime_ns

    def _scan(self) -> None:
        """Bring what is known in line with the files."""
        old = self._datastore.objects
        found: dict[str, ImageLabelModel] = {}
        for identifier, (path, region) in self._files.images().items():
            info = _without(
                old[identifier].image.info if identifier in old else {"ts": int(time.time())}, (*RESERVED, PATCH)
            )
            info["name"] = path.name
            if region is not None:
                info[PATCH] = region
            found[identifier] = ImageLabelModel(image=DataModel(ext=path.name[len(identifier) :], info=info))
        listing = self._site.catalog.listing()
        for tag, of_tag in self._files.labels().items():
            for stem, names in of_tag.items():
                identifier = stem if stem in found else own_id(listing, stem)
                if identifier in found:
                    before = old[identifier].labels.get(tag) if identifier in old else None
                    if before is None or f"{identifier}{before.ext}" not in names:
                        before = DataModel(
                            ext=label_suffix(names[-1]), info={"ts": int(time.time()), "name": names[-1]}
                        )
                    found[identifier].labels[tag] = before
        if found != old:
            old.clear()
            old.update(found)

    def _found(self, image_id: str) -> tuple[str, Path]:
        found = self._files.find(image_id)
        assert found is not None
        return found

    def _id(self, name: str) -> str:
        """The id that a name means (``x.ome`` for ``x``), or the name itself."""
        if name in self._datastore.objects:
            return name
        found = self._files.find(name, strict=False)
        return name if found is None else found[0]

    # -- the watcher --------------------------------------------------------------------------------------------------

    def _on_any_event(self, event: Any) -> None:
        self._watcher.changed(event)

    def _on_modify_event(self, event: Any) -> None:
        self._watcher.modified(event)


def _without(info: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key not in keys}
