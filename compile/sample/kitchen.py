"""The sample kitchens: small simulated tabletops with an arm that pushes coloured blocks, and two cameras.

    kitchen = build_kitchen("toykitchen1", size=96)            # worktop and wall, drawn once per kitchen
    session = open_session(kitchen, 0)                         # clutter, light, camera: once per session
    world = begin(session, episode=0)                          # what is where at first; nothing is drawn
    draw_main(session, world), draw_wrist(session, world)      # Pillow images of any world of the session

`surfaces` knows how kitchens differ, `world` how things move, and `solids` how things look through a
camera; this module sets the table with them and draws the frames.

Table coordinates: x to the right and y away from the main camera, both in [0, 1] where blocks may be; z up.
Things that stand still are drawn once, at twice the size. A frame only adds the blocks, the arm, their shadow
and the sensor's noise, so frames are cheap: a step of both cameras, encoded, takes about 2.5 ms of one core
at 96 pixels and 7 ms at 256. The noise of a frame follows from the episode and the step alone.

Every random stream is a PCG64 whose key is the sha256 of its purpose, so one more kitchen or episode changes
none of the others. Geometry is plain Python floats, and textures are Pillow's integer arithmetic: nothing
uses BLAS or vectorised transcendentals, whose last bits differ between processors.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

from oxcart.compile.sample.expert import perturb
from oxcart.compile.sample.solids import (
    CIRCLE,
    Colour,
    Point,
    Viewpoint,
    above,
    darken,
    lathe,
    limb,
    look_at,
    prism,
    shade,
    warp,
)
from oxcart.compile.sample.surfaces import (
    FAR,
    HIGH,
    LEFT,
    THEMES,
    Theme,
    draw_top,
    draw_wall,
    random_theme,
)
from oxcart.compile.sample.world import (
    COLOURS,
    FINGERTIPS,
    HALF_BLOCK,
    Pose,
    PushTask,
    Spot,
    World,
    new_world,
    pick_task,
)

Thing = tuple[str, float, float]
Block = tuple[Pose, Colour]

# thing    from the bottom up: z, radius, colour
_TURNED = """
bowl       0 0.04 #e8eef4    0.07 0.095 #f4f8fc   0.071 0.08 #7aa6cc
plate      0 0.06 #f4f0ec    0.02 0.115 #fcfaf6   0.021 0.075 #d8e0ea
pot        0 0.085 #5c6470   0.09 0.085 #7a8490   0.091 0.073 #2c3036
mug        0 0.042 #f4f4f0   0.1 0.046 #fcfcf8    0.101 0.036 #5a3420
cup        0 0.034 #30a0a8   0.085 0.046 #38b4bc  0.086 0.038 #1c6c74
apple      0 0.02 #b82020    0.03 0.05 #d42c2c    0.06 0.05 #e03c34    0.09 0.02 #e85044
lemon      0 0.02 #d0b010    0.025 0.045 #ecd020  0.055 0.04 #f8e040   0.075 0.015 #fcf080
bottle     0 0.04 #2c7a40    0.14 0.04 #389050    0.2 0.016 #40a05c    0.25 0.016 #f0f0e8
can        0 0.038 #c82830   0.06 0.038 #d83840   0.11 0.038 #d0d4d8   0.111 0.03 #a8acb0
jar        0 0.045 #c07818   0.1 0.045 #e0982c    0.11 0.05 #f4e8d0    0.13 0.05 #fcf4e4
tap        0 0.03 #c0c8d0    0.02 0.016 #c8d0d8   0.26 0.014 #e0e6ec   0.27 0.034 #e8eef4
lamp       0 0.07 #3a3a40    0.02 0.012 #50505a   0.3 0.012 #50505a    0.31 0.13 #f0d8a0   0.44 0.07 #fff4d0
"""
_LATHED = {
    kind: [
        (float(z), float(r), ImageColor.getrgb(c))
        for z, r, c in zip(cells[::3], cells[1::3], cells[2::3], strict=True)
    ]
    for kind, *cells in map(str.split, _TURNED.strip().splitlines())
}
"""Lathed objects -> z, radius and colour along their profiles."""
_BOXES = {
    "microwave": (0.22, 0.13, 0.24, "#d4d8dc"),
    "boxes": (0.14, 0.12, 0.22, "#c09058"),
    "carton": (0.05, 0.05, 0.2, "#f0f4fa"),
    "sponge": (0.07, 0.045, 0.04, "#f4d440"),
    "book": (0.11, 0.08, 0.03, "#a83c64"),
}
"""Boxes -> half the width, half the depth, height, colour."""
_CLUTTER = ("mug", "cup", "apple", "lemon", "bottle", "can", "jar", "carton", "sponge", "book")
_LANDMARKS = ("bowl", "plate", "pot")
_STANDING = {
    "lamp": ("lamp", 1.12, 1.1),
    "microwave": ("microwave", 1.05, 1.1),
    "boxes": ("boxes", 1.1, 1.1),
    "sink": ("tap", 0.88, 1.22),
}
"""Furniture -> the object that it puts on the worktop, x and y; a sink is the second of two, at x = 0.88."""

_LINK = 0.62
"""Length of each of the arm's two links."""
_NOISE_SHIFTS = 64
"""Positions along x, and along y, at which a frame's part of the noise may begin."""


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """An environment, with everything that its sessions share."""

    name: str
    size: int
    """Height and width of the main camera's frames, in pixels."""
    seed: int
    theme: Theme
    top: Image.Image
    """The bare worktop from above, 2 * size pixels per unit."""
    wall: Image.Image
    eye: Point
    """Position of the main camera."""
    target: Point
    """Point that the main camera looks at."""
    roll: float
    """Lean of the main camera, in radians."""
    base: Point
    """Position of the arm's shoulder."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A recording session: a kitchen with its clutter, light and camera set up."""

    kitchen: Kitchen
    number: int
    colours: tuple[str, ...]
    """Colours of the blocks on the table."""
    landmark: str
    landmark_at: Spot
    task: PushTask | None
    """Task of all episodes; None if every episode has a task of its own."""
    camera: Viewpoint
    main: Image.Image
    """Static background of the main camera, 2 * size square."""
    top: Image.Image
    """The worktop with the objects on it, as the wrist camera sees it, 2 * size pixels per unit."""
    light: Image.Image
    """Light by which the main camera's frames are multiplied, size square."""
    noise: Image.Image
    """The sensor's noise around 128; larger than a frame, so that every frame takes a different part."""


def kitchen_names(count: int) -> list[str]:
    """Names of the first `count` environments; a longer list begins with every shorter one."""
    return [*THEMES, *(f"toykitchen{n}" for n in range(len(THEMES) + 1, count + 1))][:count]


def is_kitchen(name: str) -> bool:
    """Whether `kitchen_names` lists a name, if it is long enough."""
    number = name.removeprefix("toykitchen")
    return name in THEMES or (number.isdecimal() and name == f"toykitchen{max(int(number), len(THEMES) + 1)}")


def build_kitchen(name: str, *, size: int, seed: int = 0) -> Kitchen:
    """Furnish an environment; its appearance depends only on `name` and `seed`, its pixels also on `size`."""
    rng = _stream(seed, name, "look")
    theme = THEMES[name] if name in THEMES else random_theme(rng)
    side = (-1.0, 1.0)[rng.integers(2)]
    return Kitchen(
        name=name,
        size=size,
        seed=seed,
        theme=theme,
        top=draw_top(theme, _stream(seed, name, "worktop"), 2 * size),
        wall=draw_wall(theme, _stream(seed, name, "wall"), 2 * size),
        eye=(rng.uniform(0.05, 0.95), rng.uniform(-1.05, -0.8), rng.uniform(1.0, 1.35)),
        target=(rng.uniform(0.44, 0.56), rng.uniform(0.6, 0.68), rng.uniform(0.06, 0.12)),
        roll=rng.uniform(-0.06, 0.06),
        base=(0.5 + 0.62 * side, rng.uniform(0.35, 0.55), 0.22),
    )


def open_session(kitchen: Kitchen, number: int) -> Session:
    """Set the table for a session: blocks, landmark, clutter, light, and a camera that moved a little."""
    size, rng = kitchen.size, _stream(kitchen.seed, kitchen.name, number, "session")
    colours = tuple(list(COLOURS)[k] for k in rng.permutation(len(COLOURS))[:3])
    landmark = _LANDMARKS[rng.integers(len(_LANDMARKS))]
    landmark_at = ((0.12, 0.88)[rng.integers(2)], rng.uniform(0.84, 0.92))
    task = pick_task(rng, colours, landmark) if rng.random() < 0.5 else None
    x, y, z = kitchen.eye
    eye = (x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.02, 0.02), z + rng.uniform(-0.02, 0.02))
    camera = look_at(eye, kitchen.target, kitchen.roll + rng.uniform(-0.01, 0.01), 2 * size)
    furniture = [_STANDING[kind] for kind, _ in kitchen.theme.placed() if kind in _STANDING]
    things = [*furniture, (landmark, *landmark_at)]
    things += _clutter(rng, [kitchen.base[:2], *((x, y) for _, x, y in things)])
    unit = 1 / (2 * size)
    main, top = Image.new("RGB", (2 * size, 2 * size), (58, 52, 50)), kitchen.top.copy()
    warp(main, kitchen.wall, camera, (LEFT, FAR, HIGH), (unit, 0, 0), (0, 0, -unit))
    warp(main, kitchen.top, camera, (LEFT, FAR, 0), (unit, 0, 0), (0, -unit, 0))
    for image, view in ((main, camera), (top, above(2 * size, LEFT, FAR))):
        _stand(image, view, things, kitchen.base)
    return Session(
        kitchen=kitchen,
        number=number,
        colours=colours,
        landmark=landmark,
        landmark_at=landmark_at,
        task=task,
        camera=camera,
        main=main,
        top=top,
        light=_light(kitchen, rng),
        noise=_noise(rng, size + _NOISE_SHIFTS),
    )


def begin(session: Session, *, episode: int, task: PushTask | None = None, perturbed: bool = False) -> World:
    """Lay the blocks for an episode.

    Args:
        session: the session that it belongs to.
        episode: its number in the session, any from 0 on.
        task: what the arm is asked to do; None asks for the session's task, or for any where it has none.
        perturbed: start after something went wrong (`expert.perturb`).
    """
    key = f"{session.kitchen.seed}/{session.kitchen.name}/{session.number}/{episode}"
    rng = _stream(key, "episode")
    task = task or session.task or pick_task(rng, session.colours, session.landmark)
    world = new_world(rng, key=key, task=task, colours=session.colours, landmark_at=session.landmark_at)
    return perturb(world, _stream(key, "perturbed")) if perturbed else world


def draw_main(session: Session, world: World) -> Image.Image:
    """A frame of the main camera, RGB, size x size."""
    camera, canvas, blocks = session.camera, session.main.copy(), _blocks(session, world)
    x, y, z = tip = (*world.tip, FINGERTIPS)
    shoulder, wrist = session.kitchen.base, (x, y, z + 0.17)
    elbow = _elbow(shoulder, wrist)
    _cast(canvas, camera, blocks, [shoulder, elbow, wrist, tip])
    draw = ImageDraw.Draw(canvas)
    for place, colour in blocks:
        if place[1] >= y:
            _block(draw, camera, place, colour)
    limb(draw, camera, shoulder, elbow, 0.052, 0.044, (58, 60, 68))
    limb(draw, camera, elbow, wrist, 0.042, 0.032, (206, 208, 214))
    _gripper(draw, camera, tip, closed=world.closed)
    for place, colour in blocks:
        if place[1] < y:
            _block(draw, camera, place, colour)
    lit = ImageChops.multiply(canvas.reduce(2), session.light)
    return _expose(lit, session.noise, world, "main")


def draw_wrist(session: Session, world: World) -> Image.Image:
    """A frame of the camera over the gripper, half a unit wide, RGB, size//2 x size//2."""
    size, side = 2 * session.kitchen.size, session.kitchen.size // 2 * 2
    x, y, _ = tip = (*world.tip, FINGERTIPS)
    left, upper = round((x - LEFT) * size) - side // 2, round((FAR - y) * size) - side * 5 // 8
    canvas = session.top.crop((left, upper, left + side, upper + side))
    view = above(size, LEFT + left / size, FAR - upper / size)
    draw, tint = ImageDraw.Draw(canvas), session.kitchen.theme.tint
    for place, colour in _blocks(session, world):
        _block(draw, view, place, colour)
    _gripper(draw, view, tip, closed=world.closed)
    lit = ImageChops.multiply(canvas.reduce(2), Image.new("RGB", (side // 2, side // 2), tint))
    return _expose(lit, session.noise, world, "wrist")


def _stream(*key: object) -> Generator:
    """The random number generator for a purpose, the same on every machine."""
    return Generator(np.random.PCG64(int.from_bytes(_digest(*key)[:16], "big")))


def _digest(*key: object) -> bytes:
    return hashlib.sha256("/".join(str(part) for part in key).encode()).digest()


def _clutter(rng: Generator, taken: list[Spot]) -> list[Thing]:
    """Two to four objects around the working area, clear of occupied places."""
    wanted = 2 + int(rng.integers(3))
    kinds = [_CLUTTER[k] for k in rng.permutation(len(_CLUTTER))]
    things: list[Thing] = []
    for _ in range(60):
        x, y = rng.uniform(-0.3, 1.3), rng.uniform(0.1, 1.14)
        outside = x < -0.06 or x > 1.06 or y > 1.04
        if len(things) < wanted and outside and all(math.hypot(x - a, y - b) > 0.24 for a, b in taken):
            things.append((kinds[len(things)], x, y))
            taken = [*taken, (x, y)]
    return things


def _stand(image: Image.Image, camera: Viewpoint, things: list[Thing], base: Point) -> None:
    """Draw the objects on the worktop, far ones first, over the shadows of all of them."""
    mask = Image.new("L", image.size)
    for _, x, y in things:
        floor = [(x + 0.09 * c + 0.02, y + 0.07 * s - 0.01, 0.0) for c, s in CIRCLE]
        ImageDraw.Draw(mask).polygon(camera.outline(floor), fill=130)
    darken(image, mask.filter(ImageFilter.BoxBlur(round(camera.focal / 50))))
    draw = ImageDraw.Draw(image)
    for kind, x, y in sorted(things, key=lambda thing: -thing[2]):
        if kind in _BOXES:
            wide, deep, high, colour = _BOXES[kind]
            plan = [(x - wide, y - deep), (x + wide, y - deep), (x + wide, y + deep), (x - wide, y + deep)]
            prism(draw, camera, plan, 0.0, high, ImageColor.getrgb(colour))
        else:
            lathe(draw, camera, x, y, _LATHED[kind])
    x, y, z = base
    steel, dark = (96, 100, 110), (50, 52, 58)
    lathe(draw, camera, x, y, [(0, 0.12, dark), (0.03, 0.12, dark), (0.031, 0.08, steel), (z, 0.07, dark)])


def _light(kitchen: Kitchen, rng: Generator) -> Image.Image:
    """Coloured light that falls off across the frame, with the soft shadow of an object out of sight."""
    tint = ImageColor.getrgb(kitchen.theme.tint)
    level, slope_x, slope_y = rng.uniform(0.98, 1.08), rng.uniform(-0.26, 0.26), rng.uniform(-0.04, 0.12)
    shadow = rng.integers(0, 28, (5, 5))
    small = Image.new("RGB", (5, 5))
    for row, column in np.ndindex(5, 5):
        x, y = column / 4 - 0.5, row / 4 - 0.5
        fall = 1 - abs(slope_x) / 2 + slope_x * x + slope_y * y - 0.16 * (x * x + y * y)
        small.putpixel((column, row), shade(tint, level * fall - int(shadow[row, column]) / 255))
    return small.resize((kitchen.size, kitchen.size), Image.Resampling.BICUBIC)


def _noise(rng: Generator, side: int) -> Image.Image:
    """Grey and coloured noise of about 3 grey levels, from sums of integers and so equal on every machine."""
    grey = rng.integers(-4, 5, (side, side, 1), dtype=np.int16)
    coloured = rng.integers(-2, 3, (side, side, 3), dtype=np.int16)
    return Image.fromarray((128 + grey + coloured).astype(np.uint8))


def _blocks(session: Session, world: World) -> list[Block]:
    """Pose and colour of each block, far blocks first."""
    colours = (COLOURS[colour] for colour in session.colours)
    return sorted(zip(world.blocks, colours, strict=True), key=lambda block: -block[0][1])


def _elbow(shoulder: Point, wrist: Point) -> Point:
    """The joint between two links of equal length, above the line from shoulder to wrist."""
    gap = [w - s for s, w in zip(shoulder, wrist, strict=True)]
    flat = math.hypot(gap[0], gap[1])
    far = math.hypot(flat, gap[2])
    rise = math.sqrt(max(_LINK * _LINK - far * far / 4, 0.0))
    lean = -gap[2] / far * rise / max(flat, 1e-6)
    return (
        (shoulder[0] + wrist[0]) / 2 + gap[0] * lean,
        (shoulder[1] + wrist[1]) / 2 + gap[1] * lean,
        (shoulder[2] + wrist[2]) / 2 + flat / far * rise,
    )


def _cast(canvas: Image.Image, camera: Viewpoint, blocks: list[Block], joints: list[Point]) -> None:
    """Darken the table under blocks and arm, at a quarter of the resolution: soft, and cheap to draw."""
    side = (canvas.width + 3) // 4
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for (x, y, angle), _ in blocks:
        for shift in (0.0, 0.03):
            corners = _square(x, y, angle, 1.06 * HALF_BLOCK)
            floor = camera.outline([(px + shift, py - shift / 2, 0.0) for px, py in corners])
            draw.polygon([(u / 4, v / 4) for u, v in floor], fill=90)
    path = camera.outline([(x + 0.18 * z, y - 0.12 * z, 0.0) for x, y, z in joints])
    draw.line([(u / 4, v / 4) for u, v in path], fill=70, width=max(round(0.03 * side), 1), joint="curve")
    left, upper, right, lower = mask.getbbox() or (0, 0, 1, 1)
    box = (max(left - 1, 0), max(upper - 1, 0), min(right + 1, side), min(lower + 1, side))
    soft = mask.crop(box)
    soft = soft.resize((soft.width * 4, soft.height * 4), Image.Resampling.BILINEAR)
    darken(canvas, soft, (box[0] * 4, box[1] * 4))


def _block(draw: ImageDraw.ImageDraw, camera: Viewpoint, place: Pose, colour: Colour) -> None:
    prism(draw, camera, _square(*place, HALF_BLOCK), 0.0, 2 * HALF_BLOCK * 0.9, colour)


def _square(x: float, y: float, angle: float, half: float) -> list[tuple[float, float]]:
    """Corners, counter-clockwise, of a turned square whose half side is `half`."""
    c, s = math.cos(angle) * half, math.sin(angle) * half
    return [(x - c + s, y - s - c), (x + c + s, y + s - c), (x + c - s, y + s + c), (x - c - s, y - s + c)]


def _gripper(draw: ImageDraw.ImageDraw, camera: Viewpoint, tip: Point, *, closed: bool) -> None:
    x, y, z = tip
    spread = 0.016 if closed else 0.04
    for side in (-spread, spread):
        limb(draw, camera, (x + side, y, z + 0.1), (x + side, y, z), 0.013, 0.011, (48, 48, 54))
    limb(draw, camera, (x - 0.045, y, z + 0.11), (x + 0.045, y, z + 0.11), 0.021, 0.021, (236, 110, 40))
    limb(draw, camera, (x, y, z + 0.19), (x, y, z + 0.12), 0.032, 0.028, (72, 74, 82))


def _expose(image: Image.Image, noise: Image.Image, world: World, camera: str) -> Image.Image:
    """Add the part of the sensor's noise that this step's frame takes."""
    left, upper = (byte % _NOISE_SHIFTS for byte in _digest(world.key, world.step, camera)[:2])
    part = noise.crop((left, upper, left + image.width, upper + image.height))
    return ImageChops.add(image, part, 1, -128)
