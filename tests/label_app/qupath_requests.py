# SPDX-License-Identifier: Apache-2.0
"""Requests as QuPath's MONAI Label extension sends them (its ``MonaiLabelClient`` and ``RequestUtils``), byte by byte.

What is particular: JSON bodies come without a ``Content-Type``; before each request ``/auth/`` is asked for; an image's
name is the file name less its last suffix; names of uploaded files are those of temporary files.
"""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit
from xml.etree import ElementTree

PNG, XML = "image/png", "application/xml"
AGENT = "Java-http-client/17.0.15"


class QuPathError(OSError):
    """The extension throws an IOException for every status but 200 and shows it in a dialog."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {body}")
        self.status, self.body = status, body


@dataclass(frozen=True)
class Shape:
    """An annotation object as QuPath's extension writes it: class, outline in level-0 pixels, colour."""

    class_name: str
    points: Sequence[tuple[float, float]]
    color: str = "#c80000"
    roi_name: str = "Polygon"


@dataclass(frozen=True)
class QuPath:
    """The extension with a server's address in its preferences."""

    url: str
    timeout: float = 120.0

    # -- menu entries -------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What every dialog asks for first."""
        return json.loads(self.request("GET", "/info/"))

    def next_image(self, strategy: str, patch_size: Sequence[int] = (1024, 1024)) -> dict[str, Any]:
        """ "Next Sample" with no image open, or with "Next Patch" unticked."""
        return self.next_sample(strategy, "", patch_size, (0, 0))

    def next_patch(
        self, strategy: str, image: str, image_size: Sequence[int], patch_size: Sequence[int] = (1024, 1024)
    ) -> dict[str, Any]:
        """ "Next Sample" on the open image."""
        return self.next_sample(strategy, image, patch_size, image_size)

    def next_sample(
        self, strategy: str, image: str, patch_size: Sequence[int], image_size: Sequence[int]
    ) -> dict[str, Any]:
        """The body is put together as text, with these very spaces."""
        patch, size = (f"[{', '.join(map(str, numbers))}]" for numbers in (patch_size, image_size))
        body = f'{{"image": "{image}", "patch_size": {patch},"image_size": {size}}}'
        return json.loads(self.request("POST", f"/activelearning/{quote_plus(strategy)}", body))

    def image_exists(self, image: str) -> bool:
        """Asked before each inference and submission."""
        try:
            self.request("HEAD", f"/datastore/image?image={quote_plus(image)}")
        except OSError:
            return False
        return True

    def infer(
        self, model: str, image: str, bbox: Sequence[int], *, tile_size: int = 1024, picture: bytes | None = None
    ) -> ElementTree.Element:
        """ "Annotations": of a slide that the server has; of a region's picture otherwise, as the extension decides.

        Args:
            model: the model.
            image: the open image's name.
            bbox: the selected rectangle, level-0 pixels.
            tile_size: of the dialog.
            picture: PNG of the region, uploaded where the server does not know the image.

        Returns:
            The root of the ASAP XML; of an uploaded picture, relative to the region.
        """
        here = self.image_exists(image)
        x, y, width, height = bbox if here else (0, 0, 0, 0)
        wsi = {
            "level": 0,
            "location": [x, y],
            "size": [width, height],
            "tile_size": [tile_size, tile_size],
            "min_poly_area": 30,
            "params": {"foreground": [], "background": [], "max_workers": 1},
        }
        body = json.dumps(wsi, separators=(",", ":"))
        if here:
            path = f"/infer/wsi/{quote_plus(model)}?output=asap&image={quote_plus(image)}"
            return ElementTree.fromstring(self.request("POST", path, body))
        assert picture is not None, "the extension cannot infer on a whole slide that the server does not have"
        files = {"file": (f"patch{_number()}.png", picture, PNG)}
        path = f"/infer/wsi_v2/{quote_plus(model)}?output=asap"
        return ElementTree.fromstring(self.multipart("POST", path, files, {"wsi": body}))

    def submit_slide(self, image: str, shapes: Sequence[Shape]) -> dict[str, Any]:
        """ "Submit Annotations", answered with "No": all classed objects, in place of what was submitted before."""
        assert self.image_exists(image)
        return self.save_label(image, asap_xml(shapes, (0, 0, 0, 0)), image)

    def submit_region(
        self, image: str, bbox: Sequence[int], shapes: Sequence[Shape], picture: bytes
    ) -> tuple[str, dict[str, Any]]:
        """ "Submit Annotations", answered with "Yes": the region's picture as a new image, then its labels.

        Returns:
            The new image's id and the answer to the labels.
        """
        self.image_exists(image)
        x, y, width, height = bbox
        name = f"{image}-patch-{x}_{y}_{width}_{height}"
        xml = asap_xml(shapes, bbox)
        files = {"file": (f"patch{_number()}.png", picture, PNG)}
        path = f"/datastore/image?image={quote_plus(name)}"
        new = json.loads(self.multipart("PUT", path, files, {"params": "{}"}))["image"]
        return new, self.save_label(new, xml, image)

    def save_label(self, image: str, xml: bytes, open_image: str) -> dict[str, Any]:
        """Labels as they lie in a temporary file named after the open image."""
        files = {"label": (f"{open_image}{_number()}.xml", xml, XML)}
        path = f"/datastore/label?image={quote_plus(image)}"
        return json.loads(self.multipart("PUT", path, files, {"params": "{}"}))

    def train(self, model: str, changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """ "Training": only the values that the user changed."""
        body = json.dumps(dict(changed or {}), separators=(",", ":"))
        return json.loads(self.request("POST", f"/train/{quote_plus(model)}", body))

    # -- RequestUtils -------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: str | None = None) -> str:
        """``RequestUtils.request``: no ``Content-Type``, whatever the body.

        Raises:
            QuPathError: any status but 200.
        """
        self._is_auth_enabled()
        return self._send(method, path, None if body is None else body.encode(), None)

    def multipart(
        self, method: str, path: str, files: Mapping[str, tuple[str, bytes, str]], fields: Mapping[str, str]
    ) -> str:
        """``RequestUtils.requestMultiPart``: files first, then fields, and no line end after the last boundary.

        Raises:
            QuPathError: any status but 200.
        """
        self._is_auth_enabled()
        boundary = str(random.getrandbits(128))
        body, content_type = multipart_data(boundary, files, fields)
        return self._send(method, path, body, content_type)

    def _is_auth_enabled(self) -> bool:
        try:
            return bool(json.loads(self._send("GET", "/auth/", None, None))["enabled"])
        except QuPathError:
            return False

    def _send(self, method: str, path: str, body: bytes | None, content_type: str | None) -> str:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=self.timeout)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            connection.putheader("User-Agent", AGENT)
            if content_type is not None:
                connection.putheader("Content-Type", content_type)
            if body is not None or method in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            response = connection.getresponse()
            text = response.read().decode("utf-8")
        finally:
            connection.close()
        if response.status != 200:
            raise QuPathError(response.status, text)
        return text


def multipart_data(
    boundary: str, files: Mapping[str, tuple[str, bytes, str]], fields: Mapping[str, str]
) -> tuple[bytes, str]:
    """Body and content type as the extension's ``MultipartData`` builds them."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, (file, content, kind) in files.items()
    ]
    parts += [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    return b"".join([*parts, f"--{boundary}--".encode()]), f"multipart/form-data; boundary={boundary}"


def asap_xml(shapes: Sequence[Shape], bbox: Sequence[int]) -> bytes:
    """The labels as ``SubmitLabel.getAnnotationsXml`` writes them.

    Args:
        shapes: classed objects, level-0 pixels. With a region, only those whose bounds are centred in it go along (the
            extension takes the centroid).
        bbox: (x, y, w, h) of the region, whose corner becomes the origin; zeros for the whole slide.

    Returns:
        The file's bytes. The extension refuses to send no object at all, and so does this.
    """
    x0, y0, width, height = bbox
    root = ElementTree.Element("ASAP_Annotations")
    box = {"Description": "", "H": height, "Name": "", "W": width, "X": x0, "Y": y0}
    annotations = ElementTree.SubElement(root, "Annotations", {key: str(value) for key, value in box.items()})
    colors: dict[str, str] = {}
    for shape in shapes:
        if not shape.class_name or (width > 0 and not _centre_inside(shape, bbox)):
            continue
        colors[shape.class_name] = shape.color
        attributes = {"Color": shape.color, "Name": shape.class_name, "PartOfGroup": shape.class_name}
        element = ElementTree.SubElement(annotations, "Annotation", {**attributes, "Type": shape.roi_name})
        coordinates = ElementTree.SubElement(element, "Coordinates")
        for order, (x, y) in enumerate(shape.points):
            place = {"Order": str(order), "X": str(int(x) - x0), "Y": str(int(y) - y0)}
            ElementTree.SubElement(coordinates, "Coordinate", place)
    if not colors:
        raise ValueError("ZERO annotations found (nothing to save/submit)")
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    for name, color in colors.items():
        ElementTree.SubElement(groups, "Group", {"Color": color, "Name": name, "PartOfGroup": "None"})
    ElementTree.indent(root, "    ")
    head = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>'
    return (head + ElementTree.tostring(root, encoding="unicode") + "\n").encode()


def _centre_inside(shape: Shape, bbox: Sequence[int]) -> bool:
    (x0, y0, width, height), (xs, ys) = bbox, zip(*shape.points, strict=True)
    x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    return bool(x0 <= x < x0 + width and y0 <= y < y0 + height)


def _number() -> int:
    return random.getrandbits(63)  # as Java's Files.createTempFile
