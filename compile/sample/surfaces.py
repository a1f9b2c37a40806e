"""How the sample kitchens differ: a table of themes, and the flat images of their worktops and walls.

    theme = THEMES["toykitchen1"]                     # or random_theme(rng), for kitchens beyond the table
    draw_top(theme, rng, unit)                        # the worktop from above, with sink or stove
    draw_wall(theme, rng, unit)                       # the wall, with the furniture on and before it

The worktop is x in [LEFT, RIGHT] by y in [NEAR, FAR]; the wall stands on y = FAR, up to z = HIGH. `unit` is
the number of pixels per unit of the table. A texture is a grey image of a pattern, coloured from dark to
light. All of it is Pillow's integer arithmetic, so it is the same on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageOps

LEFT, RIGHT, NEAR, FAR, HIGH = -1.0, 2.0, -0.6, 1.28, 1.3

# environment         wall    its colours       worktop its colours       furniture         light
_THEMES = """
toykitchen1           tiles   #8cc8c4 #eef4f0   wood    #96602f #d8a868   shelf,stove       #ffeed2
toykitchen2           paint   #e07a6c #f09484   stone   #b4b0ac #f4f0ec   window,sink       #fafaff
toysink1              tiles   #b4bec8 #f6f8fa   steel   #8a949e #c4ccd4   cabinet,sink      #d2e6ff
tabletop_dark_wood    paint   #1e5a42 #2e7456   wood    #3a1e10 #744426   poster,lamp       #ffdca8
laundry_machine       panels  #8ea8c8 #c0d2e8   plain   #4c5870 #5e6c88   washer,boxes      #dce8ff
realkitchen1_counter  brick   #d2c0ac #b0523c   stone   #16181c #60626a   window,microwave  #ffecce
toysink2              tiles   #c88c10 #fcd04c   butcher #a87644 #ecc48c   shelf,sink        #fff6dc
tabletop_white        paint   #98a2ae #b4bec8   plain   #e6e6e4 #fcfcfa   monitor           #fffffc
folding_table         stripes #b89cdc #eee4f8   cloth   #ce363a #fcf6f0   window,lamp       #fff2ea
tool_chest            pegs    #c8a068 #dcb886   steel   #7a1e1c #b43c34   tools,boxes       #ecffe0
toykitchen3           tiles   #e4e2dc #203c7c   butcher #74543a #b48c62   cabinet,stove     #ffe0b4
robot_desk            panels  #282438 #463e5c   cloth   #1c7c80 #46a6a4   monitor,boxes     #ccdaff
"""
_WALLS = ("tiles", "paint", "panels", "brick", "stripes", "pegs")
_TOPS = ("wood", "stone", "steel", "plain", "butcher", "cloth")
_FURNITURE = ("shelf,stove", "window,sink", "cabinet,sink", "poster,lamp", "monitor", "window,microwave")

_GRIDS = {
    "tiles": (0.17, 0.17, 0.0, 0.014),
    "brick": (0.21, 0.08, 0.5, 0.014),
    "butcher": (0.46, 0.09, 0.37, 0.005),
    "panels": (0.15, 9.0, 0.0, 0.012),
}
"""Patterns of cells: width, height, offset of each row in cells, width of the joint; in table units."""

_BRIGHT = ("#d8483c", "#3c7ad8", "#f0c040", "#48a868", "#f4f0e4", "#8a5cc0", "#e88438")


class Theme(NamedTuple):
    """What makes a kitchen recognisable; colours are hexadecimal or hsl()."""

    wall: str
    wall_dark: str
    wall_light: str
    top: str
    top_dark: str
    top_light: str
    furniture: str
    """Pieces of furniture, comma-separated."""
    tint: str
    """Colour of the light."""

    def placed(self) -> list[tuple[str, float]]:
        """Each piece of furniture, and x of its middle."""
        pieces = self.furniture.split(",")
        if len(pieces) == 1:
            return [(pieces[0], 0.5)]
        return [(piece, 0.12 + 0.76 * k / (len(pieces) - 1)) for k, piece in enumerate(pieces)]


THEMES = {name: Theme(*cells) for name, *cells in map(str.split, _THEMES.strip().splitlines())}


def random_theme(rng: Generator) -> Theme:
    """A kitchen beyond the table of themes."""

    def colours(low: int, high: int) -> tuple[str, str]:
        hue, much = rng.integers(360), rng.integers(10, 60)
        dark, light = rng.integers(20, low), rng.integers(low, high)
        return f"hsl({hue}, {much}%, {dark}%)", f"hsl({hue}, {much}%, {light}%)"

    wall, top = _WALLS[rng.integers(len(_WALLS))], _TOPS[rng.integers(len(_TOPS))]
    tint = "#{:02x}{:02x}{:02x}".format(*(255 - rng.integers(0, 45, 3)))
    wall_colours, top_colours = colours(50, 92), colours(45, 90)
    return Theme(wall, *wall_colours, top, *top_colours, _FURNITURE[rng.integers(len(_FURNITURE))], tint)


def draw_top(theme: Theme, rng: Generator, unit: int) -> Image.Image:
    """The bare worktop from above, with sink or stove set in it."""
    image = _texture(theme.top, theme.top_dark, theme.top_light, rng, RIGHT - LEFT, FAR - NEAR, unit)
    paint = _Paint(ImageDraw.Draw(image), unit, FAR)
    for kind, x in theme.placed():
        if kind == "sink":
            for inset, colour in ((0.0, "#d8dde2"), (0.02, "#868e98"), (0.035, "#aab2ba"), (0.07, "#bcc4cc")):
                paint.box(x - 0.26 + inset, 0.97 + inset, x + 0.26 - inset, 1.19 - inset, colour)
            paint.disc(x, 1.08, 0.022, "#5a6068")
        if kind == "stove":
            rings = ((0.075, "#5c6066"), (0.062, "#1a1a1c"), (0.05, "#c8402c"), (0.04, "#1a1a1c"))
            paint.box(x - 0.28, 0.95, x + 0.28, 1.27, "#24262a")
            for k in range(4):
                for radius, colour in rings:
                    paint.disc(x - 0.13 + 0.26 * (k % 2), 1.03 + 0.16 * (k // 2), radius, colour)
    # Less light arrives where the wall meets the worktop.
    shadow = ImageDraw.Draw(image, "RGBA")
    for k in range(12):
        shadow.rectangle((0, 0, image.width, round((0.012 * (k + 1)) * unit)), fill=(10, 8, 14, 12))
    return image


def draw_wall(theme: Theme, rng: Generator, unit: int) -> Image.Image:
    """The wall, with the furniture on it."""
    image = _texture(theme.wall, theme.wall_dark, theme.wall_light, rng, RIGHT - LEFT, HIGH, unit)
    paint = _Paint(ImageDraw.Draw(image), unit, HIGH)
    for kind, x in theme.placed():
        _hang(kind, x, paint, rng)
    return image


class _Paint(NamedTuple):
    """Draws on the image of a plane in table units: u to the right from LEFT, v up to `top`."""

    draw: ImageDraw.ImageDraw
    unit: int
    top: float

    def box(self, u0: float, v0: float, u1: float, v1: float, colour: str) -> None:
        """A filled rectangle."""
        edges = (u0 - LEFT, self.top - v1, u1 - LEFT, self.top - v0)
        self.draw.rectangle([round(edge * self.unit) for edge in edges], fill=colour)

    def disc(self, u: float, v: float, radius: float, colour: str) -> None:
        """A filled circle."""
        x, y, r = (u - LEFT) * self.unit, (self.top - v) * self.unit, radius * self.unit
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _hang(kind: str, x: float, paint: _Paint, rng: Generator) -> None:
    """A piece of furniture on the wall around u = x."""
    if kind == "window":
        paint.box(x - 0.32, 0.1, x + 0.32, 0.86, "#f8f6f0")
        for k in range(16):
            low, high, sky = 0.14 + 0.0425 * k, 0.14 + 0.0425 * (k + 1), f"hsl(206, 80%, {88 - 2 * k}%)"
            paint.box(x - 0.28, low, x + 0.28, high, sky)
        paint.disc(x + 0.14, 0.62, 0.05, "#fffbe0")
        for k in range(5):
            paint.disc(x - 0.24 + 0.12 * k, 0.13, rng.uniform(0.08, 0.15), ("#4c9a54", "#3c8048")[k % 2])
        paint.box(x - 0.34, 0.0, x + 0.34, 0.13, "#f8f6f0")
        paint.box(x - 0.012, 0.1, x + 0.012, 0.86, "#f8f6f0")
        paint.box(x - 0.38, 0.1, x + 0.38, 0.14, "#d8d4c8")
    elif kind == "shelf":
        for v in (0.2, 0.52):
            paint.box(x - 0.34, v - 0.05, x + 0.34, v, "#4a3826")
            paint.box(x - 0.36, v, x + 0.36, v + 0.03, "#a87848")
            u = x - 0.32
            while u < x + 0.26:
                wide, high = rng.uniform(0.04, 0.1), rng.uniform(0.1, 0.22)
                paint.box(u, v + 0.03, u + wide - 0.012, v + 0.03 + high, _BRIGHT[rng.integers(len(_BRIGHT))])
                paint.box(u, v + 0.06, u + wide - 0.012, v + 0.08, "#fbf8f0")
                u += wide
    elif kind == "cabinet":
        for k in (-1, 0):
            paint.box(x + 0.34 * k, 0.24, x + 0.34 * k + 0.33, 0.9, "#8a5a34")
            paint.box(x + 0.34 * k + 0.02, 0.26, x + 0.34 * k + 0.31, 0.88, "#c08a54")
            paint.box(x + 0.34 * k + 0.05, 0.3, x + 0.34 * k + 0.28, 0.84, "#ac7844")
            paint.disc(x + 0.04 + 0.25 * k + (0.17 if k else 0), 0.4, 0.016, "#f0e0b0")
    elif kind == "poster":
        paint.box(x - 0.24, 0.12, x + 0.24, 0.78, "#2a2420")
        paint.box(x - 0.21, 0.15, x + 0.21, 0.75, "#f6ead0")
        for colour in _BRIGHT:
            at = x + rng.uniform(-0.13, 0.13), rng.uniform(0.25, 0.65)
            paint.disc(*at, rng.uniform(0.03, 0.08), colour)
    elif kind == "monitor":
        paint.box(x - 0.05, 0.0, x + 0.05, 0.2, "#3a3c42")
        paint.box(x - 0.42, 0.12, x + 0.42, 0.66, "#1c1e22")
        paint.box(x - 0.39, 0.15, x + 0.39, 0.63, "#1c4a7a")
        for k in range(9):
            u, v, colour = x - 0.35 + 0.03 * (k % 3), 0.043 * k, ("#8ce0c0", "#f0d080", "#a0c8ff")[k % 3]
            paint.box(u, 0.2 + v, u + rng.uniform(0.15, 0.5), 0.22 + v, colour)
    elif kind == "washer":
        paint.box(x - 0.4, 0.0, x + 0.4, 0.98, "#f2f4f6")
        paint.box(x - 0.4, 0.78, x + 0.4, 0.8, "#b0b8c0")
        for radius, colour in ((0.29, "#aab2bc"), (0.25, "#e6eaee"), (0.22, "#2c3640"), (0.15, "#46586a")):
            paint.disc(x, 0.4, radius, colour)
        paint.disc(x + 0.28, 0.88, 0.05, "#8890a0")
        paint.box(x - 0.34, 0.84, x - 0.1, 0.92, "#1c3a50")
    elif kind == "tools":
        for k in range(6):
            u, high = x - 0.3 + 0.13 * k, rng.uniform(0.2, 0.34)
            paint.box(u - 0.014, 0.6 - high, u + 0.014, 0.6, _BRIGHT[k * 3 % 7])
            paint.box(u - 0.03 - 0.02 * (k % 2), 0.6, u + 0.03, 0.66 + 0.03 * (k % 3), "#70767e")


def _texture(
    kind: str, dark: str, light: str, rng: Generator, wide: float, high: float, unit: int
) -> Image.Image:
    """A surface of wide x high units: a grey image of its pattern, coloured from dark to light."""
    w, h = round(wide * unit), round(high * unit)
    if kind in _GRIDS:
        cell, row, offset, joint = _GRIDS[kind]
        grey = Image.new("L", (w, h))
        draw = ImageDraw.Draw(grey)
        for r in range(int(high / row) + 1):
            start = (r * offset) % 1 * cell
            for c in range(int(wide / cell) + 2):
                u, v = start + (c - 1) * cell, r * row
                edges = (u, v, u + cell - joint, v + row - joint)
                draw.rectangle([round(edge * unit) for edge in edges], fill=int(rng.integers(150, 246)))
    elif kind == "wood":
        coarse, fine = _grain(rng, w, h, 2 * wide, 22 * high), _grain(rng, w, h, 5 * wide, 90 * high)
        grey = Image.blend(coarse, fine, 0.4)
        draw = ImageDraw.Draw(grey)
        for k in range(1, int(high / 0.3) + 1):
            draw.line((0, 0.3 * k * unit, w, 0.3 * k * unit), fill=10, width=max(unit // 90, 1))
    elif kind == "stripes":
        grey = Image.new("L", (w, h), 255)
        draw = ImageDraw.Draw(grey)
        for left, right in _bands(wide, unit):
            draw.rectangle((left, 0, right, h), fill=20)
    elif kind == "cloth":
        grey, rows = Image.new("L", (w, h), 128), Image.new("L", (w, h))
        for left, right in _bands(wide, unit):
            ImageDraw.Draw(grey).rectangle((left, 0, right, h), fill=0)
        for upper, lower in _bands(high, unit):
            ImageDraw.Draw(rows).rectangle((0, upper, w, lower - 1), fill=127)
        grey = ImageChops.add(grey, rows)
    elif kind == "pegs":
        grey, gap, hole = Image.new("L", (w, h), 210), 0.07, 0.018 * unit
        draw = ImageDraw.Draw(grey)
        for r in range(int(high / gap)):
            for c in range(int(wide / gap)):
                x, y = c * gap * unit, r * gap * unit
                draw.ellipse((x, y, x + hole, y + hole), fill=0)
    elif kind == "stone":
        coarse, fine = _grain(rng, w, h, 5 * wide, 5 * high), _grain(rng, w, h, 60 * wide, 60 * high)
        grey = Image.blend(coarse, fine, 0.6)
    else:
        grey = _grain(rng, w, h, 2 * wide, (160 if kind == "steel" else 2) * high)
    grey = Image.blend(grey, _grain(rng, w, h, 8 * wide, 70 * high), 0.1)
    return ImageOps.colorize(grey, dark, light)


def _bands(length: float, unit: int) -> list[tuple[int, int]]:
    """First and last pixel of every other band of a striped surface."""
    step = 0.14
    even = range(0, int(length / step) + 1, 2)
    return [(round(k * step * unit), round((k + 1) * step * unit)) for k in even]


def _grain(rng: Generator, w: int, h: int, across: float, down: float) -> Image.Image:
    """Smooth random grey [h, w] with `across` by `down` cells."""
    cells = rng.integers(0, 256, (max(round(down), 2), max(round(across), 2)), dtype=np.uint8)
    return Image.fromarray(cells).resize((w, h), Image.Resampling.BICUBIC)
