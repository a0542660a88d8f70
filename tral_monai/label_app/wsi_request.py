# SPDX-License-Identifier: Apache-2.0
"""What a client asks to infer on: the regions of a slide and the limits of a QuPath or DSA request, checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tral_monai.errors import ConfigError
from tral_monai.inference.slide_window import Rectangle
from tral_monai.label_app.joined_rectangles import joined_rectangles

Output = Literal["asap", "dsa", "json"]
OUTPUTS: tuple[Output, ...] = ("asap", "dsa", "json")

_MOST_TILES = 10_000
_MOST_REGIONS = 1_000  # that touch no other: each takes up to a tenth of a second on a large slide besides its tiles
_LARGEST = 1 << 40  # far beyond any slide; larger numbers are nonsense


@dataclasses.dataclass(frozen=True)
class WsiRequest:
    """A checked request.

    Attributes:
        location: (x, y) where the region begins, level-0 px.
        size: (width, height) of the region; None goes to the slide's end.
        tiles: regions in place of this one.
        min_poly_area: shapes with a smaller area are left out, level-0 px squared.
        mpp: micrometres per level-0 pixel, over what the file says.
        options: settings of the model that the request changes: ``undefined_below`` or ``min_score``.
    """

    location: tuple[int, int] = (0, 0)
    size: tuple[int, int] | None = None
    tiles: tuple[Rectangle, ...] = ()
    min_poly_area: int = 0
    mpp: float | None = None
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def regions(self, dimensions: tuple[int, int]) -> list[Rectangle | None]:
        """The regions to look at, cut at the slide's border, neighbours joined; None is the whole slide.

        Args:
            dimensions: (width, height) of the slide, level-0 px.

        Raises:
            ConfigError: nothing of what is asked for lies on the slide, or it is scattered over too many places.
        """
        size = self.size if self.size is not None else dimensions
        asked = self.tiles or ((*self.location, *size),)
        found = [part for part in (_cut(rectangle, dimensions) for rectangle in asked) if part is not None]
        if not found:
            x, y, width, height = asked[0]
            raise ConfigError(
                f"the region of {width} x {height} px at ({x}, {y}) lies outside of the slide, which has "
                f"{dimensions[0]} x {dimensions[1]} px; give level-0 coordinates"
            )
        found = joined_rectangles(found)
        if len(found) > _MOST_REGIONS:
            raise ConfigError(
                f"wsi_tiles may ask for {_MOST_REGIONS} separate regions, but asks for {len(found)} that are not side "
                "by side; ask for fewer at a time, or for one region by location and size"
            )
        whole = (0, 0, *dimensions)
        return [None] if whole in found else list(found)


def parse_wsi_request(request: Mapping[str, Any], *, options: Sequence[str] = ()) -> WsiRequest:
    """Check a request as QuPath (``location``, ``size``) or DSA (``wsi_tiles``) sends it.

    A size of 0 x 0, and DSA's -1 x -1, is everything from the location to the slide's end. ``level`` and ``tile_size``
    are checked and without effect: a model has its own resolution and tiles. Unknown keys are left to others.

    Args:
        request: the request, with the client's ``params`` merged into it.
        options: names of the model's settings that it may change, numbers from 0 to 1.

    Raises:
        ConfigError: a value is not what it should be; the message names it.
    """
    location = _pair(request, "location", (0, 0))
    size: tuple[int, int] | None = _pair(request, "size", (0, 0))
    if size in ((0, 0), (-1, -1)):
        # DSA writes "no region" as -1 everywhere.
        location, size = (max(location[0], 0), max(location[1], 0)), None
    elif size is not None and min(size) < 1:
        raise ConfigError(
            f"size must be two numbers of level-0 px of at least 1, or [0, 0] for all of the slide, but is {list(size)}"
        )
    level = _whole("level", request.get("level") or 0)
    if level < 0:
        raise ConfigError(f"level must be 0 or more, but is {level}")
    tile_size = _pair(request, "tile_size", (1024, 1024))
    if min(tile_size) < 1:
        raise ConfigError(f"tile_size must be two numbers of at least 1, but is {list(tile_size)}")
    area = _whole("min_poly_area", request.get("min_poly_area") or 0)
    if area < 0:
        raise ConfigError(f"min_poly_area must be 0 or more level-0 px squared, but is {area}")
    return WsiRequest(
        location=location,
        size=size,
        tiles=_tiles(request.get("wsi_tiles")),
        min_poly_area=area,
        mpp=_mpp(request.get("mpp")),
        options={name: _share(name, request[name]) for name in options if request.get(name) is not None},
    )


def output_of(value: Any) -> Output:
    """The form of an answer; JSON where none is named, as MONAI Label does it.

    Raises:
        ConfigError: there is no such form.
    """
    name = str(getattr(value, "value", value) or "json")
    for output in OUTPUTS:
        if output == name:
            return output
    raise ConfigError(f"output must be asap, dsa or json, but is '{name}'")


def _cut(rectangle: Rectangle, dimensions: tuple[int, int]) -> Rectangle | None:
    x, y, width, height = rectangle
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, dimensions[0]), min(y + height, dimensions[1])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def _tiles(value: Any) -> tuple[Rectangle, ...]:
    if not value:
        return ()
    if not isinstance(value, Sequence) or not all(isinstance(tile, Mapping) for tile in value):
        raise ConfigError('wsi_tiles must be a list of {"location": [x, y], "size": [width, height]}')
    if len(value) > _MOST_TILES:
        raise ConfigError(
            f"wsi_tiles may hold {_MOST_TILES} regions, but holds {len(value)}; give one region by location and size, "
            "or none for all of the slide"
        )
    tiles = []
    for number, tile in enumerate(value):
        if "location" not in tile or "size" not in tile:
            raise ConfigError(f"wsi_tiles[{number}] must have location and size, but has {sorted(map(str, tile))}")
        size = _pair(tile, "size", (0, 0), f"wsi_tiles[{number}].size")
        if min(size) < 1:
            raise ConfigError(f"wsi_tiles[{number}].size must be two numbers of at least 1, but is {list(size)}")
        tiles.append((*_pair(tile, "location", (0, 0), f"wsi_tiles[{number}].location"), *size))
    return tuple(tiles)


def _pair(values: Mapping[str, Any], name: str, default: tuple[int, int], shown: str | None = None) -> tuple[int, int]:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or len(value) != 2:
        raise ConfigError(f"{shown or name} must be two whole numbers of level-0 px, but is {_short(value)}")
    return _whole(shown or name, value[0]), _whole(shown or name, value[1])


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} must hold whole numbers, but holds {_short(value)}")
    if int(value) != value or abs(value) > _LARGEST:
        raise ConfigError(f"{name} must hold whole numbers of a sensible size, but holds {_short(value)}")
    return int(value)


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, but is {_short(value)}")
    return float(value)


def _mpp(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.01 <= value <= 100:
        raise ConfigError(
            f"mpp must be micrometres per level-0 pixel between 0.01 and 100, such as 0.25 for a 40x scan, but is "
            f"{_short(value)}"
        )
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
