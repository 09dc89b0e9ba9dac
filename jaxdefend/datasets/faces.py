"""Synthetic faces: people who do not exist, as a camera would see them, to try attacks and defenses on.

A person is a vector of `PERSON` traits and an image a vector of `VIEW` traits, both drawn with the key that
(seed, identity, index) names. The random bits are integers (Threefry), and drawing uses only + − × ÷, each as a
NumPy operation of its own: the same three numbers give the same bytes on every machine.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import numpy as np
from jaxtyping import Array, Float32, Int, PRNGKeyArray, UInt8, UInt32

from jaxdefend.datasets.face_traits import PERSON, VIEW

# Points of a face, (x, y) = (column, row) in pixels; left and right as one sees them in the image.
LANDMARKS = (
    "left_eye",
    "right_eye",
    "left_brow_outer",
    "left_brow_inner",
    "right_brow_inner",
    "right_brow_outer",
    "nose",
    "mouth_left",
    "mouth_right",
    "lips_top",
    "lips_bottom",
)

HEIGHT, WIDTH = 55, 47

# Faces drawn together by one thread: their arrays stay in its cache.
_BLOCK = 64

# Where the centre of the upright face lies in the image, unless the view moves it: (x, y) in pixels.
_CENTRE = (23.0, 29.0)


def faces(
    seed: int, identities: Int[np.ndarray, " n"], indices: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "n 55 47 3"], Float32[np.ndarray, "n 11 2"]]:
    """Image `indices[i]` of person `identities[i]`, and where the `LANDMARKS` are in it, (x, y) in pixels."""
    pixels = np.empty((len(identities), HEIGHT, WIDTH, 3), np.uint8)
    landmarks = np.empty((len(identities), len(LANDMARKS), 2), np.float32)
    key = jax.random.key(seed, impl="threefry2x32")

    def draw(start: int) -> None:
        rows = slice(start, start + _BLOCK)
        missing = (0, _BLOCK - len(identities[rows]))
        person, view, noise = _drawn(key, np.pad(identities[rows], missing), np.pad(indices[rows], missing))
        images, points = _draw(_traits(PERSON, person), _traits(VIEW, view), np.asarray(noise))
        pixels[rows], landmarks[rows] = images[: len(pixels[rows])], points[: len(pixels[rows])]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(draw, range(0, len(identities), _BLOCK)))
    return pixels, landmarks


@jax.jit
def _drawn(
    key: PRNGKeyArray, identities: Int[Array, " n"], indices: Int[Array, " n"]
) -> tuple[UInt32[Array, "n p"], UInt32[Array, "n v"], UInt32[Array, "n 55 47"]]:
    """Random bits for the traits of each person and view, and for each pixel."""

    def of_one(identity: Int[Array, ""], index: Int[Array, ""]) -> tuple[Array, Array, Array]:
        # Image 0 of a person is folded in as 1: 0 is the person.
        person = jax.random.fold_in(key, identity)
        view = jax.random.split(jax.random.fold_in(person, index + 1))
        return (
            jax.random.bits(jax.random.fold_in(person, 0), (len(PERSON),)),
            jax.random.bits(view[0], (len(VIEW),)),
            jax.random.bits(view[1], (HEIGHT, WIDTH)),
        )

    return jax.vmap(of_one)(identities, indices)


def _traits(ranges: Mapping[str, tuple[float, float]], bits: Array) -> SimpleNamespace:
    """Every trait by name, (n, 1, 1), uniform in its range."""
    shares = (np.asarray(bits) >> 8).astype(np.float32) * np.float32(2**-24)
    return SimpleNamespace(
        **{
            name: (np.float32(low) + np.float32(high - low) * shares[:, i])[:, None, None]
            for i, (name, (low, high)) in enumerate(ranges.items())
        }
    )


Trait = Float32[np.ndarray, "n 1 1"]
Field = Float32[np.ndarray, "n h w"]
Value = Float32[np.ndarray, "#n #h #w"] | float | int
# Red, green, blue, 0–255.
Colour = Sequence[Value]


class _Canvas:
    """Images being drawn, and where each of their pixels lies on the upright face."""

    def __init__(self, view: SimpleNamespace):
        # (1 − t², 2t) / (1 + t²) are cosine and sine of an angle; NumPy's own differ in the last digit by machine.
        t = view.turn
        self.cosine, self.sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        self.size = view.size
        self.centre = _CENTRE[0] + view.right, _CENTRE[1] + view.down
        x = np.arange(WIDTH, dtype=np.float32) - self.centre[0]
        y = np.arange(HEIGHT, dtype=np.float32)[:, None] - self.centre[1]
        self.x = (x * self.cosine + y * self.sine) / self.size
        self.y = (y * self.cosine - x * self.sine) / self.size
        self.planes = np.zeros((3, *self.x.shape), np.float32)

    def on_face(self, x: Value, y: Value, rows: slice = slice(None)) -> tuple[Field, Field]:
        """The pixels of these rows, seen from the point (x, y) of the face."""
        return self.x[:, rows] - x, self.y[:, rows] - y

    def paint(self, cover: Field, colour: Colour, rows: slice = slice(None)) -> None:
        """`colour` over what is there, where `cover` is 1; mixed with it below."""
        for channel, value in enumerate(colour):
            part = self.planes[channel, :, rows]
            part += cover * (value - part)

    def on_image(self, points: Sequence[tuple[Trait, Trait]]) -> Float32[np.ndarray, "n k 2"]:
        """Pixels (column, row) of points of the face."""
        x, y = (np.concatenate([point[axis] for point in points], axis=2)[:, 0] for axis in (0, 1))
        cosine, sine, size = self.cosine[:, 0], self.sine[:, 0], self.size[:, 0]
        columns = (x * cosine - y * sine) * size + self.centre[0][:, 0]
        rows = (x * sine + y * cosine) * size + self.centre[1][:, 0]
        return np.stack([columns, rows], axis=-1)


def _share(values: Field) -> Field:
    return np.clip(values, np.float32(0), np.float32(1))


def _ellipse(x: Field, y: Field, width: Value, height: Value, square: Value = 0.0) -> Field:
    """Cover of an ellipse at the origin with these half axes, its edge a pixel wide; `square` fills its corners."""
    u, v = x / width, y / height
    u, v = u * u, v * v
    q = u + v - square * (np.minimum(u, 1) * np.minimum(v, 1))
    return _share(0.5 - (q - 1) * (0.5 * np.minimum(width, height, dtype=np.float32)))


def _mixed(share: Value, first: Colour, second: Colour) -> list[Value]:
    return [a + share * (b - a) for a, b in zip(first, second, strict=True)]


def _graded(share: Trait, *colours: Colour) -> list[Value]:
    """The colour at `share` of the way along three colours."""
    dark, middle, light = colours
    return _mixed(_share(2 * share - 1), _mixed(_share(2 * share), dark, middle), light)


def _muted(colour: Colour) -> list[Value]:
    red, green, blue = colour
    grey = (red + green + blue) / 3
    return _mixed(0.45, colour, (grey, grey, grey))


def _darker(colour: Colour, share: Value) -> list[Value]:
    return [value * (1 - share) for value in colour]


def _draw(
    p: SimpleNamespace, v: SimpleNamespace, noise: UInt32[np.ndarray, "n 55 47"]
) -> tuple[UInt8[np.ndarray, "n 55 47 3"], Float32[np.ndarray, "n 11 2"]]:
    """Persons `p` as the views `v` show them."""
    canvas = _Canvas(v)
    red, green, blue = _graded(p.skin, (88, 56, 42), (198, 142, 108), (240, 204, 180))
    skin = red + p.skin_red, green, blue + p.skin_blue
    hair = _graded(p.hair_light, (22, 18, 18), (92, 62, 40), (214, 178, 112))
    hair = _mixed(_share(2 * p.hair_red - 1.2), hair, (150, 62, 26))
    hair = _mixed(_share(p.grey), hair, (176, 172, 168))

    _surroundings(canvas, v)
    _hair_behind(canvas, p, v, hair)
    _body(canvas, p, v, skin)
    face = _head(canvas, p, v, skin)
    _beard(canvas, p, v, hair, face)
    points = _eyes(canvas, p, v, skin, hair)
    points += _nose(canvas, p, v, skin)
    points += _mouth(canvas, p, v, skin)
    _hair_in_front(canvas, p, v, hair)
    return _photographed(canvas, v, noise), canvas.on_image(points)


def _surroundings(canvas: _Canvas, v: SimpleNamespace) -> None:
    down = (np.arange(HEIGHT, dtype=np.float32) / np.float32(HEIGHT))[None, :, None]
    wall, floor = (v.wall_red, v.wall_green, v.wall_blue), (v.floor_red, v.floor_green, v.floor_blue)
    canvas.paint(np.ones_like(canvas.x), _muted(_mixed(down, wall, floor)))
    thing = _ellipse(*canvas.on_face(v.thing_x, v.thing_y), v.thing_size, v.thing_size, square=0.5)
    canvas.paint(thing, _muted((v.thing_red, v.thing_green, v.thing_blue)))


def _body(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, skin: Colour) -> None:
    rows = slice(34, HEIGHT)
    x, y = canvas.on_face(0, p.chin, rows)
    neck = 0.62 * p.face_width
    canvas.paint(_share(neck + 0.5 - np.abs(x)) * _share(y + 8), _darker(skin, 0.3), rows)
    canvas.paint(
        _ellipse(x, y - 17, 1.75 * p.face_width, 15.0, square=0.6),
        _muted((v.shirt_red, v.shirt_green, v.shirt_blue)),
        rows,
    )
    canvas.paint(_ellipse(x, y - 1, 0.8 * neck, 4.5), _darker(skin, 0.22), rows)


def _hair_behind(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, hair: Colour) -> None:
    x, y = canvas.on_face(-1.5 * v.yaw, 0)
    width = p.face_width + p.hair_volume
    crown = _ellipse(x, np.minimum(y, 0), width, p.face_top + p.hair_volume)
    canvas.paint(crown * _share((p.hair_length - y) / 3), _darker(hair, 0.25))


def _head(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, skin: Colour) -> Field:
    rows = slice(18, 42)
    x, y = canvas.on_face(-2 * v.yaw, p.eye_height + 6, rows)
    ears = np.abs(x) - p.face_width - 0.4 * p.ears
    canvas.paint(_ellipse(ears, y, 1.2 + 0.5 * p.ears, 4.0) * _share(1 + p.ears), _darker(skin, 0.12), rows)

    x, y = canvas.on_face(0.6 * v.yaw, 0)
    height = np.where(y < 0, p.face_top, p.chin)
    face = _ellipse(x, y, p.face_width, height, square=p.jaw * _share(y / 8))
    u, w = x / p.face_width, y / p.chin
    shade = _share(0.32 * (u * u * u * u) + 0.12 * _share(w * w * w))
    canvas.paint(face, _darker(skin, shade))
    blush = face * p.cheeks * _ellipse(np.abs(x) - 0.6 * p.face_width, y - 3, 4.5, 3.5)
    canvas.paint(blush, (205, 84, 76))
    lines = np.abs(x) - (p.nose_width + 2.2 + 0.45 * _share(y - 3) * (y - 3))
    fold = face * _share(p.lines) * _ellipse(lines, y - 5.5, 1.0, 3.6)
    canvas.paint(fold, _darker(skin, 0.45))
    canvas.paint(face * _share(4 * p.mole) * _ellipse(x - p.mole_x, y - p.mole_y, 1.2, 1.2), _darker(skin, 0.6))
    return face


def _beard(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, hair: Colour, face: Field) -> None:
    x, y = canvas.on_face(0.6 * v.yaw, 0)
    u = x / p.face_width
    low = y - p.beard_line - 5 + 9 * u * u
    around = 1 - _ellipse(x, y - p.mouth_height, p.mouth_width + 1, 2.6)
    canvas.paint(face * around * _share(p.beard) * 0.85 * _share(low / 2), _darker(hair, 0.15))
    rows = slice(26, 50)
    x, y = canvas.on_face(3.5 * v.yaw, p.mouth_height - 2.2 - p.upper_lip * 0.5, rows)
    moustache = _ellipse(x, y - 0.06 * x * x, p.mouth_width + 0.6, 1.5)
    canvas.paint(0.9 * _share(p.moustache) * moustache, _darker(hair, 0.15), rows)


def _eyes(
    canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, skin: Colour, hair: Colour
) -> list[tuple[Trait, Trait]]:
    rows = slice(8, 36)
    iris = _mixed(p.iris_dark, _mixed(p.iris_blue, (120, 92, 48), (84, 124, 158)), (48, 30, 22))
    brow = _mixed(p.brow_dark, hair, (30, 24, 22))
    middle = 3 * v.yaw
    level = p.eye_height + 0.8 * v.pitch
    opening = p.eye_opening * v.blink
    above = p.brow_height - 0.5 * v.frown
    tilt = p.brow_tilt - 0.12 * v.frown

    def arch(x: Value) -> Value:
        return p.brow_arch * (x * x - 6)

    centres, brows = [], []
    for side in (-1, 1):
        # Towards the side that the face turns to, everything is foreshortened.
        near = 1 - 0.08 * side * v.yaw
        centre = middle + side * p.eye_distance * near
        x, y = canvas.on_face(centre, level, rows)
        y = y - side * p.eye_tilt * x
        length = p.eye_length * near
        canvas.paint(0.6 * p.lids * _ellipse(x, y + 0.5, length + 1.4, opening + 1.6), _darker(skin, 0.6), rows)
        eye = _ellipse(x, y, length, opening)
        canvas.paint(eye, (226, 222, 216), rows)
        looking = x - v.gaze
        canvas.paint(eye * _ellipse(looking, y, 1.75, 1.75), iris, rows)
        canvas.paint(eye * _ellipse(looking, y, 0.85, 0.85), (14, 12, 12), rows)
        lash = _ellipse(x, y + opening, length + 0.4, 0.75)
        canvas.paint(0.75 * lash, _darker(brow, 0.4), rows)

        x, y = canvas.on_face(centre, level - above, rows)
        along = x - side * 0.4
        line = y + side * tilt * along - arch(x)
        canvas.paint(0.88 * _ellipse(along, line, p.brow_length * near, p.brow_thickness), brow, rows)
        centres.append((centre, level))
        for end in (-1, 1):
            along = end * p.brow_length * near
            brows.append((centre + side * 0.4 + along, level - above - side * tilt * along + arch(side * 0.4 + along)))
    return centres + brows


def _nose(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, skin: Colour) -> list[tuple[Trait, Trait]]:
    rows = slice(16, 42)
    tip_x, tip_y = 5.5 * v.yaw, p.nose_length + 1.2 * v.pitch
    x, y = canvas.on_face(tip_x, tip_y, rows)
    # The bridge runs from between the eyes to the tip, and its shadow lies on the side turned away from the light.
    away = np.where(v.light_x > 0, np.float32(1), np.float32(-1))
    bridge = x - y * (0.22 * v.yaw)
    length = 0.5 * (tip_y - p.eye_height)
    shadow = _ellipse(bridge + away * (0.55 * p.nose_width), y + length - 1, 1.3, length + 1)
    canvas.paint(p.nose_shadow * shadow, _darker(skin, 0.45), rows)
    canvas.paint(0.25 * _ellipse(bridge, y + length, 0.8, length), _mixed(0.3, skin, (255, 250, 244)), rows)
    canvas.paint(0.55 * _ellipse(x, y - 0.4, p.nose_width + 0.6, 1.5), _darker(skin, 0.22), rows)
    canvas.paint(0.35 * _ellipse(x, y + 0.5, 1.2, 1.0), _mixed(0.6, skin, (255, 250, 244)), rows)
    canvas.paint(0.8 * _ellipse(np.abs(x) - 0.55 * p.nose_width, y - 1.2, 0.95, 0.6), _darker(skin, 0.7), rows)
    return [(tip_x, tip_y)]


def _mouth(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, skin: Colour) -> list[tuple[Trait, Trait]]:
    rows = slice(28, HEIGHT)
    lips = _mixed(0.35 + 0.4 * p.lip_red, _darker(skin, 0.12), (172, 48, 58))
    centre, level = 4 * v.yaw, p.mouth_height + 0.6 * v.pitch
    gap = 0.5 * _share(v.open) * v.open
    width = p.mouth_width * (1 + 3 * v.smile)
    x, y = canvas.on_face(centre, level, rows)
    # A smile lifts the corners.
    curve = y + v.smile * (x * x) - v.smile * 8
    canvas.paint(0.35 * _ellipse(x, curve - p.lower_lip - gap - 1.2, 0.6 * width, 0.9), _darker(skin, 0.45), rows)
    upper = _ellipse(x, curve + 0.35 * p.upper_lip + gap, width, p.upper_lip)
    lower = _ellipse(x, curve - 0.45 * p.lower_lip - gap, 0.86 * width, p.lower_lip)
    canvas.paint(upper, _darker(lips, 0.12), rows)
    canvas.paint(lower, lips, rows)
    teeth = _ellipse(x, curve, 0.82 * width, gap + 0.1)
    canvas.paint(_share(2 * gap) * teeth, (216, 208, 200), rows)
    canvas.paint(0.7 * _ellipse(x, curve, 0.96 * width, 0.5), _darker(lips, 0.6), rows)
    corner = level + v.smile * (8 - width * width)
    middle = level + 8 * v.smile
    return [
        (centre - width, corner),
        (centre + width, corner),
        (centre, middle - 1.35 * p.upper_lip - gap),
        (centre, middle + 1.45 * p.lower_lip + gap),
    ]


def _hair_in_front(canvas: _Canvas, p: SimpleNamespace, v: SimpleNamespace, hair: Colour) -> None:
    x, y = canvas.on_face(0.3 * v.yaw, 0)
    width, top = p.face_width + p.hair_volume, p.face_top + p.hair_volume
    cap = _ellipse(x, y, width, top)
    line = p.hairline + p.hairline_tilt * x + p.hairline_arch * (x * x)
    u = x / width
    shine = 0.35 * (u * u) - 0.15 * _share((line - y) / 8)
    canvas.paint(cap * _share(0.5 + line - y) * _share(2.5 * p.hair_volume), _darker(hair, shine))


def _photographed(
    canvas: _Canvas, v: SimpleNamespace, noise: UInt32[np.ndarray, "n 55 47"]
) -> UInt8[np.ndarray, "n 55 47 3"]:
    """Light, lens and sensor."""
    light = v.brightness * (1 + v.light_x * canvas.x + v.light_y * canvas.y)
    colours = 1 + v.warmth, 1 + v.tint, 1 - v.warmth
    pixels = np.empty((*canvas.x.shape, 3), np.uint8)
    for plane, colour, byte in zip(canvas.planes, colours, range(3), strict=True):
        lit = (plane * (light * colour) - 110) * v.contrast + 110
        blurred = _blurred(_blurred(lit, 0.25 * v.blur, axis=1), 0.25 * v.blur, axis=2)
        grain = ((noise >> (8 * byte)) & 255).astype(np.float32) / 127.5 - 1
        pixels[..., byte] = np.rint(np.clip(blurred + v.noise * grain, 0, 255))
    return pixels


def _blurred(plane: Field, weight: Trait, axis: int) -> Field:
    """Each pixel mixed with its two neighbours, a `weight` of each."""
    padded = np.pad(plane, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
    before, after = (np.delete(padded, drop, axis) for drop in (slice(-2, None), slice(0, 2)))
    return plane * (1 - 2 * weight) + (before + after) * weight
