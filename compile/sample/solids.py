"""Viewpoints, and how the planes and solids of a sample kitchen look from them, as Pillow polygons.

    view = look_at(eye, target, roll, size)                 # or above(...), which has no perspective
    warp(image, surface, view, corner, right, down)         # a plane: wall or worktop
    prism(draw, view, floor, low, high, colour)             # boxes and blocks
    lathe(draw, view, x, y, turns)                          # bowls, mugs, lamps: discs from the bottom up
    limb(draw, view, a, b, ra, rb, colour)                  # round bars

Nothing is sorted by depth: later paint hides earlier paint. Pixels are the same on every
machine, so sums are written out (from Python 3.12 on, `sum` rounds floats differently).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from PIL import Image
from PIL.ImageDraw import ImageDraw

Colour = tuple[int, ...]
Point = tuple[float, float, float]

CIRCLE = tuple((math.cos(math.tau * k / 28), math.sin(math.tau * k / 28)) for k in range(28))
"""Corners of the polygon that stands in for a circle of radius 1."""

_TILT = 0.4
"""Tilt of the wrist camera: a unit of z moves a point as far as this much of y."""
_FACES = (
    ((0, 1, 5, 4), 0.62),
    ((1, 2, 6, 5), 0.8),
    ((2, 3, 7, 6), 0.55),
    ((3, 0, 4, 7), 0.7),
    ((4, 5, 6, 7), 1.0),
)
"""Visible faces of a box: four corners, counter-clockwise from outside, and brightness."""


class Viewpoint(NamedTuple):
    """A camera: a 3 x 4 projection to pixels, and the pixels of a unit at depth 1."""

    rows: tuple[tuple[float, float, float, float], ...]
    focal: float

    def at(self, p: Point) -> Point:
        """Pixel x, pixel y and pixels per unit of a point in table coordinates."""
        (a, b, c, d), (e, f, g, h), (i, j, k, m) = self.rows
        x, y, z = p
        w = i * x + j * y + k * z + m
        return (a * x + b * y + c * z + d) / w, (e * x + f * y + g * z + h) / w, self.focal / w

    def outline(self, points: list[Point]) -> list[tuple[float, float]]:
        """Pixels of a polygon's corners."""
        return [self.at(p)[:2] for p in points]


def look_at(eye: Point, target: Point, roll: float, size: int) -> Viewpoint:
    """A pinhole camera with a square image, about 45 degrees wide; `roll` is its lean in radians."""
    f = _unit((target[0] - eye[0], target[1] - eye[1], target[2] - eye[2]))
    r = _unit((f[1], -f[0], 0.0))
    d = _cross(f, r)
    c, s, focal = math.cos(roll), math.sin(roll), 1.2 * size
    axes = (
        [focal * (c * r[k] + s * d[k]) + size / 2 * f[k] for k in range(3)],
        [focal * (c * d[k] - s * r[k]) + size / 2 * f[k] for k in range(3)],
        f,
    )
    return Viewpoint(tuple((x, y, z, -(x * eye[0] + y * eye[1] + z * eye[2])) for x, y, z in axes), focal)


def above(scale: float, left: float, far: float) -> Viewpoint:
    """The wrist's view, without perspective: a window of one large image serves any position of the arm."""
    return Viewpoint(
        ((scale, 0, 0, -scale * left), (0, -scale, -scale * _TILT, scale * far), (0, 0, 0, 1)), scale
    )


def warp(
    canvas: Image.Image, surface: Image.Image, view: Viewpoint, corner: Point, right: Point, down: Point
) -> None:
    """Paint a flat surface as the camera sees it; `right` and `down` are one of its pixels in space."""
    # Columns of the 3 x 3 matrix from pixels of the surface to those of the canvas, then its inverse.
    u, v, o = (
        tuple(a * x + b * y + c * z + d * w for a, b, c, d in view.rows)
        for (x, y, z), w in ((right, 0), (down, 0), (corner, 1))
    )
    adjugate = (*_cross(v, o), *_cross(o, u), *_cross(u, v))
    inverse = tuple(value / adjugate[8] for value in adjugate[:8])
    seen = (canvas.size, Image.Transform.PERSPECTIVE, inverse)
    mask = Image.new("L", surface.size, 255).transform(*seen)
    canvas.paste(surface.transform(*seen, resample=Image.Resampling.BILINEAR), mask=mask)


def darken(image: Image.Image, mask: Image.Image, at: tuple[int, int] = (0, 0)) -> None:
    """Cast a shadow as deep as the mask is bright; its upper left corner is the pixel `at`."""
    image.paste((18, 16, 24), (*at, at[0] + mask.width, at[1] + mask.height), mask)


def shade(colour: Colour, factor: float) -> Colour:
    """A colour in more or less light."""
    return tuple(min(round(part * factor), 255) for part in colour)


def prism(
    draw: ImageDraw,
    view: Viewpoint,
    floor: list[tuple[float, float]],
    low: float,
    high: float,
    colour: Colour,
) -> None:
    """A box over four corners that run counter-clockwise; faces that look away are not drawn."""
    pixels = view.outline([(x, y, z) for z in (low, high) for x, y in floor])
    for corners, light in _FACES:
        face = [pixels[k] for k in corners]
        (ax, ay), (bx, by), (cx, cy) = face[:3]
        if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0:
            draw.polygon(face, fill=shade(colour, light), outline=shade(colour, light * 0.86))


def limb(draw: ImageDraw, view: Viewpoint, a: Point, b: Point, ra: float, rb: float, colour: Colour) -> None:
    """A round bar from a (radius ra) to b (radius rb), with a highlight along it."""
    (ax, ay, sa), (bx, by, sb) = view.at(a), view.at(b)
    ra, rb = ra * sa, rb * sb
    length = math.hypot(bx - ax, by - ay) or 1.0
    nx, ny = (ay - by) / length, (bx - ax) / length
    for wide, fill in ((1.0, shade(colour, 0.7)), (0.62, colour), (0.2, shade(colour, 1.3))):
        p, q, shift = ra * wide, rb * wide, 0.25 * (1 - wide)
        # The highlight lies on the upper side whichever way the bar points.
        up = -shift if ny > 0 else shift
        ox, oy, ex, ey = ax + nx * ra * up, ay + ny * ra * up, bx + nx * rb * up, by + ny * rb * up
        bar = [
            (ox + nx * p, oy + ny * p),
            (ex + nx * q, ey + ny * q),
            (ex - nx * q, ey - ny * q),
            (ox - nx * p, oy - ny * p),
        ]
        draw.polygon(bar, fill=fill)
        draw.ellipse((ox - p, oy - p, ox + p, oy + p), fill=fill)
        draw.ellipse((ex - q, ey - q, ex + q, ey + q), fill=fill)


def lathe(
    draw: ImageDraw, view: Viewpoint, x: float, y: float, turns: Sequence[tuple[float, float, Colour]]
) -> None:
    """A turned body, painted as discs from the bottom up; its profile is `turns`: (z, radius, colour)."""
    for (z0, r0, _), (z1, r1, colour) in pairwise(turns):
        count = max(int(abs(z1 - z0) * 90), 1)
        for k in range(count + 1):
            z, r = z0 + (z1 - z0) * k / count, r0 + (r1 - r0) * k / count
            for wide, shift, light in ((1.0, 0.0, 0.74), (0.78, -0.2, 0.9), (0.45, -0.4, 1.04)):
                ring = [(x + r * (c * wide + shift), y + r * (s * wide), z) for c, s in CIRCLE]
                draw.polygon(view.outline(ring), fill=shade(colour, light))


def _unit(v: Point) -> Point:
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / length, v[1] / length, v[2] / length


def _cross(a: tuple[float, ...], b: tuple[float, ...]) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
