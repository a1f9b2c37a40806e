"""A small simulated tabletop: kitchens, an arm that pushes coloured blocks, and two cameras that watch it.

    kitchen = build_kitchen("toykitchen1", size=96)            # worktop and wall, drawn once per kitchen
    session = open_session(kitchen, 0)                         # clutter, light, camera: once per session
    motion = record(session, episode=0, steps=24)              # what the arm does, without a picture
    draw_main(session, motion, 0), draw_wrist(session, motion, 0)         # Pillow images of step 0

Table coordinates: x to the right and y away from the main camera, both in [0, 1] where blocks may be; z up.
What stands still is drawn once, at twice the size; a frame only adds the blocks, the arm, their shadow and
the sensor's noise, so pictures are cheap: a step of both cameras, encoded, takes about 2.5 ms of one core at
96 pixels and 7 ms at 256.

Every random stream is a PCG64 whose key is the sha256 of what it is for, so one more kitchen or episode
changes none of the others. Geometry is plain Python floats and textures are Pillow's integer arithmetic:
nothing goes through BLAS or vectorised transcendentals, whose last bits differ between processors.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, ...]
Point = tuple[float, float, float]
Rng = np.random.Generator
Draw = ImageDraw.ImageDraw
Thing = tuple[str, float, float]
Spot = tuple[float, float]

TICKS = 1024
"""Positions are whole 1/1024ths of the table, so float32 states and actions add up exactly."""

COLOURS = {
    "red": (222, 40, 36),
    "green": (48, 170, 72),
    "blue": (38, 92, 220),
    "yellow": (248, 208, 32),
    "orange": (248, 124, 24),
    "purple": (144, 64, 184),
}

PARAPHRASES = {
    "left": ("push the {c} block to the left", "move the {c} block left", "slide the {c} cube to the left"),
    "right": (
        "push the {c} block to the right",
        "move the {c} block right",
        "slide the {c} cube to the right",
    ),
    "back": ("push the {c} block away", "move the {c} block to the back", "slide the {c} cube to the back"),
    "front": ("pull the {c} block closer", "move the {c} block to the front", "bring the {c} cube closer"),
    "near": (
        "move the {c} block next to the {t}",
        "push the {c} block to the {t}",
        "put the {c} cube by the {t}",
    ),
}
"""Ways to ask for each kind of task; {c} is the colour of the block, {t} the landmark."""

_DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "back": (0.0, 1.0), "front": (0.0, -1.0)}

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
"""Patterns of cells: units across, units down, offset of each row in cells, width of the joint."""
_TURNED = {
    "bowl": ((0, 0.04, "#e8eef4"), (0.07, 0.095, "#f4f8fc"), (0.071, 0.08, "#7aa6cc")),
    "plate": ((0, 0.06, "#f4f0ec"), (0.02, 0.115, "#fcfaf6"), (0.021, 0.075, "#d8e0ea")),
    "pot": ((0, 0.085, "#5c6470"), (0.09, 0.085, "#7a8490"), (0.091, 0.073, "#2c3036")),
    "mug": ((0, 0.042, "#f4f4f0"), (0.1, 0.046, "#fcfcf8"), (0.101, 0.036, "#5a3420")),
    "cup": ((0, 0.034, "#30a0a8"), (0.085, 0.046, "#38b4bc"), (0.086, 0.038, "#1c6c74")),
    "apple": ((0, 0.02, "#b82020"), (0.03, 0.05, "#d42c2c"), (0.06, 0.05, "#e03c34"),
             (0.09, 0.02, "#e85044")),
    "lemon": ((0, 0.02, "#d0b010"), (0.025, 0.045, "#ecd020"), (0.055, 0.04, "#f8e040"),
             (0.075, 0.015, "#fcf080")),
    "bottle": ((0, 0.04, "#2c7a40"), (0.14, 0.04, "#389050"), (0.2, 0.016, "#40a05c"),
             (0.25, 0.016, "#f0f0e8")),
    "can": ((0, 0.038, "#c82830"), (0.06, 0.038, "#d83840"), (0.11, 0.038, "#d0d4d8"),
             (0.111, 0.03, "#a8acb0")),
    "jar": ((0, 0.045, "#c07818"), (0.1, 0.045, "#e0982c"), (0.11, 0.05, "#f4e8d0"),
             (0.13, 0.05, "#fcf4e4")),
    "tap": ((0, 0.03, "#c0c8d0"), (0.02, 0.016, "#c8d0d8"), (0.26, 0.014, "#e0e6ec"),
             (0.27, 0.034, "#e8eef4")),
    "lamp": ((0, 0.07, "#3a3a40"), (0.02, 0.012, "#50505a"), (0.3, 0.012, "#50505a"),
             (0.31, 0.13, "#f0d8a0"), (0.44, 0.07, "#fff4d0")),
}  # fmt: skip
"""Things that a lathe makes, from the bottom up: z, radius, colour."""
_BOXES = {
    "microwave": (0.22, 0.13, 0.24, "#d4d8dc"),
    "boxes": (0.14, 0.12, 0.22, "#c09058"),
    "carton": (0.05, 0.05, 0.2, "#f0f4fa"),
    "sponge": (0.07, 0.045, 0.04, "#f4d440"),
    "book": (0.11, 0.08, 0.03, "#a83c64"),
}
"""Things with corners: half their width and depth, height, colour."""
_CLUTTER = ("mug", "cup", "apple", "lemon", "bottle", "can", "jar", "carton", "sponge", "book")

_LEFT, _RIGHT, _NEAR, _FAR, _HIGH = -1.0, 2.0, -0.6, 1.28, 1.3
"""The worktop is x in [_LEFT, _RIGHT] by y in [_NEAR, _FAR]; the wall stands on y = _FAR, up to z = _HIGH."""
_HALF = 0.052
"""Half the side of a block."""
_LINK = 0.62
"""Length of each of the arm's two links."""
_TILT = 0.4
"""How far the wrist camera leans back: z moves a point by this much of y."""
_CIRCLE = tuple((math.cos(math.tau * k / 28), math.sin(math.tau * k / 28)) for k in range(28))
_FACES = ((0, 1, 5, 4, 0.62), (1, 2, 6, 5, 0.8), (2, 3, 7, 6, 0.55), (3, 0, 4, 7, 0.7), (4, 5, 6, 7, 1.0))
"""The faces of a box that can be seen: four corners, counter-clockwise from outside, and brightness."""


class Theme(NamedTuple):
    """What makes a kitchen recognisable; the colours are hexadecimal."""

    wall: str
    wall_dark: str
    wall_light: str
    top: str
    top_dark: str
    top_light: str
    furniture: str
    """Comma-separated."""
    tint: str
    """Colour of the light."""


THEMES = {row.split()[0]: Theme(*row.split()[1:]) for row in _THEMES.strip().splitlines()}


class Camera(NamedTuple):
    """A 3 x 4 projection to pixels, and how many pixels a unit measures at depth 1."""

    rows: tuple[tuple[float, float, float, float], ...]
    focal: float

    def at(self, p: Point) -> tuple[float, float, float]:
        """Pixel x, pixel y and pixels per unit of a point in table coordinates."""
        (a, b, c, d), (e, f, g, h), (i, j, k, m) = self.rows
        x, y, z = p
        w = i * x + j * y + k * z + m
        return (a * x + b * y + c * z + d) / w, (e * x + f * y + g * z + h) / w, self.focal / w

    def outline(self, points: list[Point]) -> list[tuple[float, float]]:
        """Pixels of a polygon's corners."""
        return [self.at(p)[:2] for p in points]


class Task(NamedTuple):
    """Push one block somewhere."""

    kind: str
    colour: str
    landmark: str

    @property
    def name(self) -> str:
        """As a folder of the dataset spells it: `push_red_block_left`."""
        return f"push_{self.colour}_block_" + (f"near_{self.landmark}" if self.kind == "near" else self.kind)


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """An environment: what all its sessions share."""

    name: str
    size: int
    """Pixels of a side of the main camera."""
    seed: int
    theme: Theme
    top: Image.Image
    """The bare worktop from above, 2 * size pixels per unit."""
    wall: Image.Image
    eye: Point
    """Where the main camera stands."""
    target: Point
    """What it looks at."""
    roll: float
    """Its lean, in radians."""
    base: Point
    """The arm's shoulder."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A recording session: a kitchen with its clutter, light and camera set up."""

    kitchen: Kitchen
    number: int
    colours: tuple[str, ...]
    """Of the blocks on the table."""
    landmark: str
    landmark_at: Spot
    task: Task | None
    """The one that is recorded; None where every episode has another."""
    camera: Camera
    main: Image.Image
    """What stands still in the main camera, 2 * size square."""
    top: Image.Image
    """The worktop with what stands on it, as the wrist camera sees it, 2 * size pixels per unit."""
    light: Image.Image
    """Multiplied with main frames, size square."""
    noise: Image.Image
    """The sensor's noise around 128, larger than a frame so that each frame takes another part of it."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What happens in an episode of T steps with N blocks."""

    state: NDArray[np.float32]
    """[T, 3]: gripper x, y in table units, and 1 where the gripper is closed."""
    action: NDArray[np.float32]
    """[T, 3]: dx, dy in table units, and the gripper wanted at the next step."""
    height: NDArray[np.float64]
    """[T]: z of the fingertips."""
    blocks: NDArray[np.float64]
    """[T, N, 3]: x, y and angle of each block."""
    pushed: int
    """Index of the block that the task names."""
    task: Task
    instruction: str
    shifts: NDArray[np.int64]
    """[T, 4]: which parts of the noise the frames of the two cameras take."""


def kitchen_names(count: int) -> list[str]:
    """The first `count` environments; a longer list begins with every shorter one."""
    return [*THEMES, *(f"toykitchen{n}" for n in range(len(THEMES) + 1, count + 1))][:count]


def stream(*key: object) -> np.random.Generator:
    """The random stream for a purpose, the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def build_kitchen(name: str, *, size: int, seed: int = 0) -> Kitchen:
    """Furnish an environment; its looks depend on `name` and `seed` alone, its pixels on `size` too."""
    rng = stream(seed, name, "look")
    theme = THEMES[name] if name in THEMES else _random_theme(rng)
    side = (-1.0, 1.0)[rng.integers(2)]
    return Kitchen(
        name=name,
        size=size,
        seed=seed,
        theme=theme,
        top=_draw_top(theme, stream(seed, name, "worktop"), 2 * size),
        wall=_draw_wall(theme, stream(seed, name, "wall"), 2 * size),
        eye=(rng.uniform(0.05, 0.95), rng.uniform(-1.05, -0.8), rng.uniform(1.0, 1.35)),
        target=(rng.uniform(0.44, 0.56), rng.uniform(0.6, 0.68), rng.uniform(0.06, 0.12)),
        roll=rng.uniform(-0.06, 0.06),
        base=(0.5 + 0.62 * side, rng.uniform(0.35, 0.55), 0.22),
    )


def open_session(kitchen: Kitchen, number: int) -> Session:
    """Set the table for a session: blocks, landmark, clutter, light, and the camera knocked a little."""
    size, rng = kitchen.size, stream(kitchen.seed, kitchen.name, number, "session")
    colours = tuple(list(COLOURS)[k] for k in rng.permutation(len(COLOURS))[:3])
    landmark = ("bowl", "plate", "pot")[rng.integers(3)]
    landmark_at = ((0.12, 0.88)[rng.integers(2)], rng.uniform(0.84, 0.92))
    task = _pick_task(rng, colours, landmark) if rng.random() < 0.5 else None
    x, y, z = kitchen.eye
    eye = (x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.02, 0.02), z + rng.uniform(-0.02, 0.02))
    camera = _look_at(eye, kitchen.target, kitchen.roll + rng.uniform(-0.01, 0.01), 2 * size)
    things = [*_furniture(kitchen), (landmark, *landmark_at), *_clutter(rng, kitchen, landmark_at)]
    unit = 1 / (2 * size)
    main, top = Image.new("RGB", (2 * size, 2 * size), (58, 52, 50)), kitchen.top.copy()
    _warp(main, kitchen.wall, camera, (_LEFT, _FAR, _HIGH), (unit, 0, 0), (0, 0, -unit))
    _warp(main, kitchen.top, camera, (_LEFT, _FAR, 0), (unit, 0, 0), (0, -unit, 0))
    for image, view in ((main, camera), (top, _above(2 * size, _LEFT, _FAR))):
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
        noise=_noise(rng, size + 64),
    )


def record(session: Session, *, episode: int, steps: int) -> Motion:
    """What the arm does in an episode of about `steps` steps (a quarter more or less, at least 2)."""
    rng = stream(session.kitchen.seed, session.kitchen.name, session.number, episode, "episode")
    length = max(2, round(steps * rng.uniform(0.75, 1.25)))
    task = session.task or _pick_task(rng, session.colours, session.landmark)
    pushed = session.colours.index(task.colour)
    blocks, goal = _set_blocks(rng, session, task, pushed)
    fine, moved = _push(rng, blocks, pushed, goal)
    at = [round(t * (len(fine) - 1) / (length - 1)) for t in range(length)]
    ticks = np.array([[round(fine[k][0] * TICKS), round(fine[k][1] * TICKS)] for k in at])
    closed = np.array([fine[k][2] for k in at])
    following = np.minimum(np.arange(length) + 1, length - 1)
    return Motion(
        state=np.column_stack([ticks / TICKS, closed]).astype(np.float32),
        action=np.column_stack([(ticks[following] - ticks) / TICKS, closed[following]]).astype(np.float32),
        height=np.array([fine[k][3] for k in at]),
        blocks=np.array([moved[k] for k in at]),
        pushed=pushed,
        task=task,
        instruction=_say(rng, task),
        shifts=rng.integers(0, 64, (length, 4)),
    )


def draw_main(session: Session, motion: Motion, step: int) -> Image.Image:
    """The main camera, RGB, size x size."""
    camera = session.camera
    canvas = session.main.copy()
    x, y = (float(v) for v in motion.state[step, :2])
    z = float(motion.height[step])
    shoulder, wrist = session.kitchen.base, (x, y, z + 0.17)
    joints = [shoulder, _elbow(shoulder, wrist), wrist, (x, y, z)]
    _cast(canvas, session, motion, step, joints)
    draw = ImageDraw.Draw(canvas)
    order = sorted(range(len(session.colours)), key=lambda n: -motion.blocks[step, n, 1])
    for n in (n for n in order if motion.blocks[step, n, 1] >= y):
        _block(draw, camera, session, motion, step, n)
    _limb(draw, camera, joints[0], joints[1], 0.052, 0.044, (58, 60, 68))
    _limb(draw, camera, joints[1], joints[2], 0.042, 0.032, (206, 208, 214))
    _gripper(draw, camera, (x, y, z), bool(motion.state[step, 2]))
    for n in (n for n in order if motion.blocks[step, n, 1] < y):
        _block(draw, camera, session, motion, step, n)
    return _expose(
        ImageChops.multiply(canvas.reduce(2), session.light), session.noise, motion.shifts[step, :2]
    )


def draw_wrist(session: Session, motion: Motion, step: int) -> Image.Image:
    """The camera over the gripper, half a unit wide, RGB, size//2 x size//2."""
    size, side = 2 * session.kitchen.size, session.kitchen.size // 2 * 2
    x, y = (float(v) for v in motion.state[step, :2])
    left, upper = round((x - _LEFT) * size) - side // 2, round((_FAR - y) * size) - side * 5 // 8
    canvas = session.top.crop((left, upper, left + side, upper + side))
    view = _above(size, _LEFT + left / size, _FAR - upper / size)
    draw = ImageDraw.Draw(canvas)
    for n in sorted(range(len(session.colours)), key=lambda n: -motion.blocks[step, n, 1]):
        _block(draw, view, session, motion, step, n)
    _gripper(draw, view, (x, y, float(motion.height[step])), bool(motion.state[step, 2]))
    tint = Image.new("RGB", (side // 2, side // 2), session.kitchen.theme.tint)
    return _expose(ImageChops.multiply(canvas.reduce(2), tint), session.noise, motion.shifts[step, 2:])


def _pick_task(rng: Rng, colours: tuple[str, ...], landmark: str) -> Task:
    return Task(
        list(PARAPHRASES)[rng.integers(len(PARAPHRASES))], colours[rng.integers(len(colours))], landmark
    )


def _say(rng: Rng, task: Task) -> str:
    """One way to ask for a task; people differ in case, full stops and articles."""
    phrases = PARAPHRASES[task.kind]
    text = phrases[rng.integers(len(phrases))].format(c=task.colour, t=task.landmark)
    style = rng.integers(5)
    if style == 0:
        return text.capitalize() + "."
    return text.replace("the ", "") if style == 1 else text


def _set_blocks(rng: Rng, session: Session, task: Task, pushed: int) -> tuple[list[list[float]], Spot]:
    """Where the blocks stand at first (x, y, angle), and where one shall go, with nothing in its way."""
    while True:
        blocks = [
            [rng.uniform(0.15, 0.85), rng.uniform(0.16, 0.78), rng.uniform(0, 1.57)] for _ in session.colours
        ]
        x, y = blocks[pushed][:2]
        if task.kind == "near":
            (tx, ty), reach = session.landmark_at, 0.19
            away = math.hypot(x - tx, y - ty)
            goal = (tx + (x - tx) / away * reach, ty + (y - ty) / away * reach)
        else:
            reach, (dx, dy) = rng.uniform(0.26, 0.36), _DIRECTIONS[task.kind]
            goal = (x + dx * reach, y + dy * reach)
        path = [(x + (goal[0] - x) * f, y + (goal[1] - y) * f) for f in (-0.4, 0.0, 0.25, 0.5, 0.75, 1.0)]
        others = [(block[0], block[1]) for n, block in enumerate(blocks) if n != pushed]
        pairs = [*product(others, path), *combinations(others, 2)]
        clear = all(math.hypot(a[0] - b[0], a[1] - b[1]) > 0.17 for a, b in pairs)
        on_table = 0.12 <= goal[0] <= 0.88 and 0.1 <= goal[1] <= 0.82
        if clear and on_table and math.hypot(goal[0] - x, goal[1] - y) > 0.2:
            return blocks, goal


def _push(
    rng: Rng, blocks: list[list[float]], pushed: int, goal: Spot
) -> tuple[list[tuple[float, float, int, float]], list[list[tuple[float, ...]]]]:
    """Gripper (x, y, closed, z) and blocks (x, y, angle) on a path so fine that no contact is jumped over.

    The arm comes from above, lowers its closed fingers behind the block, pushes it to the goal and lifts. A
    block sticks to fingers that move towards it.
    """
    x, y = blocks[pushed][:2]
    far = math.hypot(goal[0] - x, goal[1] - y)
    dx, dy = (goal[0] - x) / far, (goal[1] - y) / far
    gap = _HALF + 0.028
    home = (rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.65))
    behind = (x - dx * (gap + 0.06), y - dy * (gap + 0.06))
    last = (goal[0] - dx * gap, goal[1] - dy * gap)
    bow, wobble, count = rng.uniform(-0.09, 0.09), rng.uniform(-0.012, 0.012), 320
    gx, gy, z = *home, 0.2
    fine, moved = [], []
    for k in range(count + 1):
        f = k / count
        if f < 0.38:
            a, b, u, side, closed = home, behind, f / 0.38, bow, 0
        elif f < 0.46:
            a, b, u, side, closed = behind, behind, 1.0, 0.0, 1
        elif f < 0.9:
            a, b, u, side, closed = behind, last, (f - 0.46) / 0.44, wobble, 1
        else:
            back = (last[0] - dx * 0.05, last[1] - dy * 0.05)
            a, b, u, side, closed = last, back, (f - 0.9) / 0.1, 0.0, 0
        u = u * u * (3 - 2 * u)
        curve = side * 4 * u * (1 - u)
        nx, ny = a[0] + (b[0] - a[0]) * u - dy * curve, a[1] + (b[1] - a[1]) * u + dx * curve
        z += ((0.015 if closed else 0.2) - z) * 0.09
        mx, my = nx - gx, ny - gy
        for block in blocks if closed else ():
            bx, by = block[0] - gx, block[1] - gy
            if math.hypot(bx, by) < gap and mx * bx + my * by > 0:
                block[0] += mx
                block[1] += my
                block[2] += (mx * by - my * bx) / gap * 2
        gx, gy = nx, ny
        fine.append((gx, gy, closed, z))
        moved.append([tuple(block) for block in blocks])
    return fine, moved


def _look_at(eye: Point, target: Point, roll: float, size: int) -> Camera:
    """A pinhole camera of a square image, about 45 degrees wide."""
    f = _unit((target[0] - eye[0], target[1] - eye[1], target[2] - eye[2]))
    r = _unit((f[1], -f[0], 0.0))
    d = (f[1] * r[2] - f[2] * r[1], f[2] * r[0] - f[0] * r[2], f[0] * r[1] - f[1] * r[0])
    c, s, focal = math.cos(roll), math.sin(roll), 1.2 * size
    rows = []
    for axis in (
        [focal * (c * r[k] + s * d[k]) + size / 2 * f[k] for k in range(3)],
        [focal * (c * d[k] - s * r[k]) + size / 2 * f[k] for k in range(3)],
        f,
    ):
        rows.append((axis[0], axis[1], axis[2], -(axis[0] * eye[0] + axis[1] * eye[1] + axis[2] * eye[2])))
    return Camera(tuple(rows), focal)


def _above(scale: float, left: float, far: float) -> Camera:
    """The wrist's view: no perspective, so that a window of one large picture serves wherever the arm is."""
    return Camera(
        ((scale, 0, 0, -scale * left), (0, -scale, -scale * _TILT, scale * far), (0, 0, 0, 1)), scale
    )


def _unit(v: Point) -> Point:
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / length, v[1] / length, v[2] / length


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


def _expose(image: Image.Image, noise: Image.Image, shift: NDArray[np.int64]) -> Image.Image:
    left, upper = int(shift[0]), int(shift[1])
    grain = noise.crop((left, upper, left + image.width, upper + image.height))
    return ImageChops.add(image, grain, 1, -128)


def _cast(canvas: Image.Image, session: Session, motion: Motion, step: int, joints: list[Point]) -> None:
    """Darken the table under blocks and arm: drawn at a quarter of the resolution, hence soft and cheap."""
    side, camera = (canvas.width + 3) // 4, session.camera
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for x, y, angle in motion.blocks[step].tolist():
        for shift in (0.0, 0.03):
            corners = [(px + shift, py - shift / 2, 0.0) for px, py in _square(x, y, angle, 1.06 * _HALF)]
            draw.polygon([(u / 4, v / 4) for u, v in camera.outline(corners)], fill=90)
    path = camera.outline([(x + 0.18 * z, y - 0.12 * z, 0.0) for x, y, z in joints])
    draw.line([(u / 4, v / 4) for u, v in path], fill=70, width=max(round(0.03 * side), 1), joint="curve")
    left, upper, right, lower = mask.getbbox() or (0, 0, 1, 1)
    box = (max(left - 1, 0), max(upper - 1, 0), min(right + 1, side), min(lower + 1, side))
    soft = mask.crop(box)
    soft = soft.resize((soft.width * 4, soft.height * 4), Image.Resampling.BILINEAR)
    _darken(canvas, soft, (box[0] * 4, box[1] * 4))


def _darken(image: Image.Image, mask: Image.Image, at: tuple[int, int] = (0, 0)) -> None:
    image.paste((18, 16, 24), (*at, at[0] + mask.width, at[1] + mask.height), mask)


def _square(x: float, y: float, angle: float, half: float) -> list[tuple[float, float]]:
    c, s = math.cos(angle) * half, math.sin(angle) * half
    return [(x - c + s, y - s - c), (x + c + s, y + s - c), (x + c - s, y + s + c), (x - c - s, y - s + c)]


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(round(part * factor), 255) for part in colour)


def _block(draw: Draw, camera: Camera, session: Session, motion: Motion, step: int, n: int) -> None:
    x, y, angle = motion.blocks[step, n].tolist()
    _prism(draw, camera, _square(x, y, angle, _HALF), 0.0, 2 * _HALF * 0.9, COLOURS[session.colours[n]])


def _prism(
    draw: Draw,
    camera: Camera,
    floor: list[tuple[float, float]],
    low: float,
    high: float,
    colour: Colour,
) -> None:
    """A box on four corners that run counter-clockwise; the faces that look away are not drawn."""
    pixels = camera.outline([(x, y, z) for z in (low, high) for x, y in floor])
    for *corners, light in _FACES:
        face = [pixels[int(k)] for k in corners]
        (ax, ay), (bx, by), (cx, cy) = face[:3]
        if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0:
            draw.polygon(face, fill=_shade(colour, light), outline=_shade(colour, light * 0.86))


def _limb(draw: Draw, camera: Camera, a: Point, b: Point, ra: float, rb: float, colour: Colour) -> None:
    """A round bar from a to b with a highlight along it."""
    (ax, ay, sa), (bx, by, sb) = camera.at(a), camera.at(b)
    ra, rb = ra * sa, rb * sb
    length = math.hypot(bx - ax, by - ay) or 1.0
    nx, ny = (ay - by) / length, (bx - ax) / length
    for wide, fill in ((1.0, _shade(colour, 0.7)), (0.62, colour), (0.2, _shade(colour, 1.3))):
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


def _gripper(draw: Draw, camera: Camera, tip: Point, closed: bool) -> None:
    x, y, z = tip
    spread = 0.016 if closed else 0.04
    for side in (-spread, spread):
        _limb(draw, camera, (x + side, y, z + 0.1), (x + side, y, z), 0.013, 0.011, (48, 48, 54))
    _limb(draw, camera, (x - 0.045, y, z + 0.11), (x + 0.045, y, z + 0.11), 0.021, 0.021, (236, 110, 40))
    _limb(draw, camera, (x, y, z + 0.19), (x, y, z + 0.12), 0.032, 0.028, (72, 74, 82))


def _lathe(draw: Draw, camera: Camera, x: float, y: float, turns: list[tuple[float, float, Colour]]) -> None:
    """A turned body, painted as discs from the bottom up; `turns` are (z, radius, colour) of its profile."""
    for (z0, r0, _), (z1, r1, colour) in pairwise(turns):
        count = max(int(abs(z1 - z0) * 90), 1)
        for k in range(count + 1):
            z, r = z0 + (z1 - z0) * k / count, r0 + (r1 - r0) * k / count
            for wide, shift, light in ((1.0, 0.0, 0.74), (0.78, -0.2, 0.9), (0.45, -0.4, 1.04)):
                ring = [(x + r * (c * wide + shift), y + r * (s * wide), z) for c, s in _CIRCLE]
                draw.polygon(camera.outline(ring), fill=_shade(colour, light))


def _stand(image: Image.Image, camera: Camera, things: list[Thing], base: Point) -> None:
    """Draw what stands on the worktop, far things first, over a shadow of them all."""
    mask = Image.new("L", image.size)
    for _, x, y in things:
        floor = [(x + 0.09 * c + 0.02, y + 0.07 * s - 0.01, 0.0) for c, s in _CIRCLE]
        ImageDraw.Draw(mask).polygon(camera.outline(floor), fill=130)
    _darken(image, mask.filter(ImageFilter.BoxBlur(round(camera.focal / 50))))
    draw = ImageDraw.Draw(image)
    for kind, x, y in sorted(things, key=lambda thing: -thing[2]):
        if kind in _BOXES:
            wide, deep, high, colour = _BOXES[kind]
            floor_plan = [(x + sx * wide, y + sy * deep) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            _prism(draw, camera, floor_plan, 0.0, high, ImageColor.getrgb(colour))
        else:
            _lathe(draw, camera, x, y, [(z, r, ImageColor.getrgb(colour)) for z, r, colour in _TURNED[kind]])
    steel, dark = (96, 100, 110), (50, 52, 58)
    _lathe(
        draw,
        camera,
        *base[:2],
        [(0, 0.12, dark), (0.03, 0.12, dark), (0.031, 0.08, steel), (base[2], 0.07, dark)],
    )


def _furniture(kitchen: Kitchen) -> list[Thing]:
    """The furniture that stands on the worktop; the rest is part of the pictures of worktop and wall."""
    places = {
        "lamp": (1.12, 1.1),
        "microwave": (1.05, 1.1),
        "boxes": (1.1, 1.1),
        "sink": (_place(1, 2), 1.22),
    }
    kinds = [kind for kind in kitchen.theme.furniture.split(",") if kind in places]
    return [("tap" if kind == "sink" else kind, *places[kind]) for kind in kinds]


def _clutter(rng: Rng, kitchen: Kitchen, landmark_at: Spot) -> list[Thing]:
    """Two to four things around the working area, clear of landmark, furniture and arm."""
    taken = [landmark_at, kitchen.base[:2], *(thing[1:] for thing in _furniture(kitchen))]
    wanted = 2 + int(rng.integers(3))
    things: list[Thing] = []
    kinds = [list(_CLUTTER)[k] for k in rng.permutation(len(_CLUTTER))]
    for _ in range(60):
        x, y = rng.uniform(-0.3, 1.3), rng.uniform(0.1, 1.14)
        outside = x < -0.06 or x > 1.06 or y > 1.04
        if len(things) < wanted and outside and all(math.hypot(x - a, y - b) > 0.24 for a, b in taken):
            things.append((kinds[len(things)], x, y))
            taken.append((x, y))
    return things


def _place(index: int, count: int) -> float:
    """Where along the wall piece `index` of `count` goes."""
    return 0.5 if count == 1 else 0.12 + 0.76 * index / (count - 1)


def _draw_top(theme: Theme, rng: Rng, unit: int) -> Image.Image:
    image = _texture(theme.top, theme.top_dark, theme.top_light, rng, _RIGHT - _LEFT, _FAR - _NEAR, unit)
    kinds = theme.furniture.split(",")
    paint = _Paint(ImageDraw.Draw(image), unit, _FAR)
    for index, kind in enumerate(kinds):
        x = _place(index, len(kinds))
        if kind == "sink":
            for inset, colour in ((0.0, "#d8dde2"), (0.02, "#868e98"), (0.035, "#aab2ba"), (0.07, "#bcc4cc")):
                paint.box(x - 0.26 + inset, 0.97 + inset, x + 0.26 - inset, 1.19 - inset, colour)
            paint.disc(x, 1.08, 0.022, "#5a6068")
        if kind == "stove":
            paint.box(x - 0.28, 0.95, x + 0.28, 1.27, "#24262a")
            for k in range(4):
                for radius, colour in (
                    (0.075, "#5c6066"),
                    (0.062, "#1a1a1c"),
                    (0.05, "#c8402c"),
                    (0.04, "#1a1a1c"),
                ):
                    paint.disc(x - 0.13 + 0.26 * (k % 2), 1.03 + 0.16 * (k // 2), radius, colour)
    # Where the wall meets the worktop less light arrives.
    for k in range(12):
        draw = ImageDraw.Draw(image, "RGBA")
        draw.rectangle((0, 0, image.width, round((0.012 * (k + 1)) * unit)), fill=(10, 8, 14, 12))
    return image


def _draw_wall(theme: Theme, rng: Rng, unit: int) -> Image.Image:
    image = _texture(theme.wall, theme.wall_dark, theme.wall_light, rng, _RIGHT - _LEFT, _HIGH, unit)
    kinds = theme.furniture.split(",")
    for index, kind in enumerate(kinds):
        _hang(kind, _place(index, len(kinds)), _Paint(ImageDraw.Draw(image), unit, _HIGH), rng)
    return image


class _Paint(NamedTuple):
    """Draws on the picture of a plane, in units: u to the right from _LEFT, v up to `top`."""

    draw: Draw
    unit: int
    top: float

    def box(self, u0: float, v0: float, u1: float, v1: float, colour: str) -> None:
        """A filled rectangle."""
        x, y, unit = u0 - _LEFT, self.top - v1, self.unit
        corners = (
            round(x * unit),
            round(y * unit),
            round((u1 - _LEFT) * unit),
            round((self.top - v0) * unit),
        )
        self.draw.rectangle(corners, fill=colour)

    def disc(self, u: float, v: float, radius: float, colour: str) -> None:
        """A filled circle."""
        x, y, r = (u - _LEFT) * self.unit, (self.top - v) * self.unit, radius * self.unit
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _hang(kind: str, x: float, paint: _Paint, rng: Rng) -> None:
    """A piece of furniture on the wall around u = x."""
    bright = ("#d8483c", "#3c7ad8", "#f0c040", "#48a868", "#f4f0e4", "#8a5cc0", "#e88438")
    if kind == "window":
        paint.box(x - 0.32, 0.1, x + 0.32, 0.86, "#f8f6f0")
        for k in range(16):
            paint.box(
                x - 0.28,
                0.14 + 0.0425 * k,
                x + 0.28,
                0.14 + 0.0425 * (k + 1),
                f"hsl(206, 80%, {88 - 2 * k}%)",
            )
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
                paint.box(u, v + 0.03, u + wide - 0.012, v + 0.03 + high, bright[rng.integers(len(bright))])
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
        for k in range(7):
            at = x + rng.uniform(-0.13, 0.13), rng.uniform(0.25, 0.65)
            paint.disc(*at, rng.uniform(0.03, 0.08), bright[k])
    elif kind == "monitor":
        paint.box(x - 0.05, 0.0, x + 0.05, 0.2, "#3a3c42")
        paint.box(x - 0.42, 0.12, x + 0.42, 0.66, "#1c1e22")
        paint.box(x - 0.39, 0.15, x + 0.39, 0.63, "#1c4a7a")
        for k in range(9):
            u = x - 0.35 + 0.03 * (k % 3)
            paint.box(
                u,
                0.2 + 0.043 * k,
                u + rng.uniform(0.15, 0.5),
                0.22 + 0.043 * k,
                ("#8ce0c0", "#f0d080", "#a0c8ff")[k % 3],
            )
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
            paint.box(u - 0.014, 0.6 - high, u + 0.014, 0.6, bright[(k * 3) % 7])
            paint.box(u - 0.03 - 0.02 * (k % 2), 0.6, u + 0.03, 0.66 + 0.03 * (k % 3), "#70767e")


def _texture(kind: str, dark: str, light: str, rng: Rng, wide: float, high: float, unit: int) -> Image.Image:
    """A surface of wide x high units: a grey picture of its pattern, coloured from dark to light."""
    w, h = round(wide * unit), round(high * unit)
    if kind in _GRIDS:
        cell, row, offset, joint = _GRIDS[kind]
        grey = Image.new("L", (w, h))
        draw = ImageDraw.Draw(grey)
        for r in range(int(high / row) + 1):
            start = (r * offset) % 1 * cell
            for c in range(int(wide / cell) + 2):
                u, v = start + (c - 1) * cell, r * row
                corners = (
                    round(u * unit),
                    round(v * unit),
                    round((u + cell - joint) * unit),
                    round((v + row - joint) * unit),
                )
                draw.rectangle(corners, fill=int(rng.integers(150, 246)))
    elif kind == "wood":
        coarse, fine = _grain(rng, w, h, 2 * wide, 22 * high), _grain(rng, w, h, 5 * wide, 90 * high)
        grey = Image.blend(coarse, fine, 0.4)
        for k in range(1, int(high / 0.3) + 1):
            ImageDraw.Draw(grey).line(
                (0, 0.3 * k * unit, w, 0.3 * k * unit), fill=10, width=max(unit // 90, 1)
            )
    elif kind in ("cloth", "stripes"):
        grey = Image.new("L", (w, h), 255 if kind == "stripes" else 128)
        draw, step = ImageDraw.Draw(grey), 0.14
        for c in range(0, int(wide / step) + 1, 2):
            draw.rectangle(
                (round(c * step * unit), 0, round((c + 1) * step * unit), h),
                fill=20 if kind == "stripes" else 0,
            )
        for r in range(0, int(high / step) + 1, 2) if kind == "cloth" else ():
            band = (0, round(r * step * unit), w, round((r + 1) * step * unit))
            grey.paste(ImageChops.add(grey.crop(band), Image.new("L", (w, band[3] - band[1]), 127)), band)
    elif kind == "pegs":
        grey = Image.new("L", (w, h), 210)
        for k in range(int(wide / 0.07) * int(high / 0.07)):
            at = (k % int(wide / 0.07) * 0.07 * unit, k // int(wide / 0.07) * 0.07 * unit)
            ImageDraw.Draw(grey).ellipse((*at, at[0] + 0.018 * unit, at[1] + 0.018 * unit), fill=0)
    elif kind == "stone":
        grey = Image.blend(
            _grain(rng, w, h, 5 * wide, 5 * high), _grain(rng, w, h, 60 * wide, 60 * high), 0.6
        )
    else:
        grey = _grain(rng, w, h, 2 * wide, (160 if kind == "steel" else 2) * high)
    grey = Image.blend(grey, _grain(rng, w, h, 8 * wide, 70 * high), 0.1)
    return ImageOps.colorize(grey, dark, light)


def _grain(rng: Rng, w: int, h: int, across: float, down: float) -> Image.Image:
    """Smooth random grey with that many cells across and down."""
    cells = rng.integers(0, 256, (max(round(down), 2), max(round(across), 2)), dtype=np.uint8)
    return Image.fromarray(cells).resize((w, h), Image.Resampling.BICUBIC)


def _light(kitchen: Kitchen, rng: Rng) -> Image.Image:
    """Coloured light that falls off across the picture, with the soft shadow of something out of sight."""
    tint = ImageColor.getrgb(kitchen.theme.tint)
    level, slope_x, slope_y = rng.uniform(0.98, 1.08), rng.uniform(-0.26, 0.26), rng.uniform(-0.04, 0.12)
    bands = rng.integers(0, 28, (5, 5))
    small = Image.new("RGB", (5, 5))
    for k in range(25):
        x, y = k % 5 / 4 - 0.5, k // 5 / 4 - 0.5
        factor = (
            level * (1 - abs(slope_x) / 2 + slope_x * x + slope_y * y - 0.16 * (x * x + y * y))
            - int(bands[k // 5, k % 5]) / 255
        )
        small.putpixel((k % 5, k // 5), _shade(tint, factor))
    return small.resize((kitchen.size, kitchen.size), Image.Resampling.BICUBIC)


def _noise(rng: Rng, side: int) -> Image.Image:
    """Grey and coloured noise of about 3 grey levels; sums of integers, so the same everywhere."""
    grey = rng.integers(-4, 5, (side, side, 1), dtype=np.int16)
    coloured = rng.integers(-2, 3, (side, side, 3), dtype=np.int16)
    return Image.fromarray((128 + grey + coloured).astype(np.uint8))


def _warp(
    canvas: Image.Image, picture: Image.Image, camera: Camera, corner: Point, right: Point, down: Point
) -> None:
    """Paint the picture of a plane as the camera sees it; `right` and `down` are one pixel of it in space."""
    columns = [[sum(row[k] * v[k] for k in range(3)) for row in camera.rows] for v in (right, down, corner)]
    (a, d, g), (b, e, h), (c, f, i) = columns
    c, f, i = (value + row[3] for value, row in zip((c, f, i), camera.rows, strict=True))
    adjugate = (
        e * i - f * h, c * h - b * i, b * f - c * e,
        f * g - d * i, a * i - c * g, c * d - a * f,
        d * h - e * g, b * g - a * h, a * e - b * d,
    )  # fmt: skip
    inverse = tuple(value / adjugate[8] for value in adjugate[:8])
    view = (canvas.size, Image.Transform.PERSPECTIVE, inverse)
    mask = Image.new("L", picture.size, 255).transform(*view)
    canvas.paste(picture.transform(*view, resample=Image.Resampling.BILINEAR), mask=mask)


def _random_theme(rng: Rng) -> Theme:
    """A kitchen beyond the table of themes."""

    def colours(low: int, high: int) -> tuple[str, str]:
        hue, much = rng.integers(360), rng.integers(10, 60)
        return (
            f"hsl({hue}, {much}%, {rng.integers(20, low)}%)",
            f"hsl({hue}, {much}%, {rng.integers(low, high)}%)",
        )

    wall, top = _WALLS[rng.integers(len(_WALLS))], _TOPS[rng.integers(len(_TOPS))]
    tint = "#{:02x}{:02x}{:02x}".format(*(255 - rng.integers(0, 45, 3)))
    return Theme(
        wall, *colours(50, 92), top, *colours(45, 90), _FURNITURE[rng.integers(len(_FURNITURE))], tint
    )
