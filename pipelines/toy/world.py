"""Toy world: short captioned clips of moving shapes, with the true boxes and the words that name them.

In: a world, a seed, a split, a count. Out: :class:`ToyClip`, drawn frame by frame, and mp4 files with a
``<split>.jsonl``. Clip number i of a split depends on (seed, split, i) and on the captions of the clips before it
alone. A caption belongs to one split alone (by its checksum), and none occurs twice within a split, so that training
and test share none.

Two worlds are at hand (:data:`WORLDS`). ``plain`` is the demo's: one or two objects, each clip drawn for itself. In
``hard`` there are objects that the caption leaves out, and clips come in families whose captions differ in one thing
that one object is or does, or in which of two objects has which looks: the gist of a caption finds the family, not
the clip.

Shape letters: T frames, O objects, H height, W width.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 96, 128  # pixels
NUM_FRAMES, FPS = 16, 8
TEST_SHARE = 4  # one caption in so many belongs to the test split

Split = Literal["train", "test"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (52, 168, 83),
    "blue": (45, 90, 220),
    "yellow": (245, 208, 40),
    "purple": (142, 60, 180),
    "orange": (245, 130, 30),
    "pink": (245, 130, 180),
    "white": (245, 245, 245),
}
SHAPES: dict[str, tuple[str, ...]] = {  # shape -> the nouns that captions use for it
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus"),
    "diamond": ("diamond",),
    "bar": ("bar", "stick"),
}
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES: dict[str, tuple[float, tuple[str, ...]]] = {  # size -> radius in pixels, the adjectives
    "small": (9.0, ("small", "little")),
    "medium": (13.0, ("",)),
    "large": (18.0, ("large", "big")),
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "right": ("moves to the right", "slides right", "drifts to the right"),
    "left": ("moves to the left", "slides left", "drifts to the left"),
    "up": ("rises", "moves up", "climbs"),
    "down": ("falls", "moves down", "sinks"),
    "grow": ("grows", "gets bigger"),
    "shrink": ("shrinks", "gets smaller"),
    "appear": ("appears", "shows up"),
    "still": ("stays still", "does not move"),
}
JOINERS = (" while {b}", ", {b}", " and {b}", " as {b}")
CROSSING = ("cross", "pass each other", "swap places")  # what two objects do together
CROSSING_WAYS = ("cross right", "cross left")  # the action of each
LOOKS: dict[str, tuple[str, ...]] = {  # field of a Look -> its values
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "action": tuple(ACTIONS),
}
EXCHANGE_SHARE = 0.3  # of the changes within a family, those in which two objects exchange a value


@dataclass(frozen=True)
class World:
    """What clips are made of.

    Attributes:
        objects: the fewest and the most objects that a caption names, 1 or 2.
        bystanders: objects that are to be seen and that no caption names. Each has the shape or the colour of one that
            is named, never both.
        family: so many clips in a row make a family. Each differs from the first in one thing that the captions say:
            a value of one object's :class:`Look`, or which of two objects has which of two values.
        crossing: how often two objects do something together; 0 where there are families.
    """

    objects: tuple[int, int] = (1, 2)
    bystanders: int = 0
    family: int = 1
    crossing: float = 0.2


WORLDS: dict[str, World] = {"plain": World(), "hard": World(objects=(2, 2), bystanders=1, family=4, crossing=0.0)}


@dataclass(frozen=True)
class Look:
    """How an object looks and what it does: values of :data:`LOOKS`, or one of two that cross."""

    shape: str
    colour: str
    texture: str
    size: str
    action: str


@dataclass(frozen=True)
class ToyObject(Look):
    """An object that a caption names, and where its noun and colour stand there."""

    noun: str
    noun_span: tuple[int, int]  # characters of the caption, end exclusive
    colour_span: tuple[int, int]


@dataclass(frozen=True)
class ToyClip:
    """One clip.

    Attributes:
        video_id: for example ``test/00007.mp4``.
        caption: one sentence.
        objects: O objects, in the order of the caption.
        boxes: [T, O, 4] float32, ``x1 y1 x2 y2`` in pixels, clipped to the picture; NaN while not to be seen.
        frames: [T, H, W, 3] uint8 RGB.
    """

    video_id: str
    caption: str
    objects: tuple[ToyObject, ...]
    boxes: NDArray[np.float32]
    frames: NDArray[np.uint8]


def clips(count: int, *, split: Split, seed: int = 0, world: World = WORLDS["plain"]) -> Iterator[ToyClip]:
    """Draws the first ``count`` clips of a split, each with a caption of its own."""
    seen: set[str] = set()
    family: list[tuple[ToyObject, ...]] = []
    for i in range(count):
        rng = np.random.default_rng([seed, zlib.crc32(split.encode()), i])
        if i % world.family == 0:
            family = []
        while True:
            caption, objects = _caption(rng, _changed(rng, family[0]) if family else _looks(rng, world))
            if caption not in seen and _split_of(caption) == split and not _shown_already(objects, family):
                break
        seen.add(caption)
        family.append(objects)
        frames, boxes = _render(rng, objects, _bystanders(rng, objects, world.bystanders))
        yield ToyClip(f"{split}/{i:05d}.mp4", caption, objects, boxes, frames)


def write_clips(
    folder: Path,
    count: int,
    *,
    split: Split,
    seed: int = 0,
    world: World = WORLDS["plain"],
    advance: Callable[[], None] = lambda: None,
) -> list[str]:
    """Writes the clips of a split as H.264 below ``folder``, then ``<split>.jsonl``: where that lies, all clips do.

    Each of its lines holds ``video_id``, ``caption``, ``split`` and ``objects`` (noun, colour, their character spans,
    ``boxes``: one ``[x1, y1, x2, y2]`` or null per frame).

    Args:
        folder, count, split, seed, world: where, how many, and what.
        advance: called after each clip.

    Returns:
        The video ids, in order.
    """
    index = folder / f"{split}.jsonl"
    lines, ids = [], []
    for clip in clips(count, split=split, seed=seed, world=world):
        path = folder / clip.video_id
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, clip.frames)
        ids.append(clip.video_id)
        lines.append(json.dumps(_annotation(clip, split)))
        advance()
    index.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ids


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: int = FPS) -> None:
    """Writes [T, H, W, 3] uint8 RGB frames as H.264 in mp4 (one thread: the same frames give the same bytes)."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "18", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _annotation(clip: ToyClip, split: Split) -> dict[str, object]:
    objects = [
        {
            "noun": thing.noun,
            "noun_span": thing.noun_span,
            "colour": thing.colour,
            "colour_span": thing.colour_span,
            "boxes": [None if np.isnan(box[0]) else [round(float(v), 1) for v in box] for box in clip.boxes[:, o]],
        }
        for o, thing in enumerate(clip.objects)
    ]
    return {"video_id": clip.video_id, "caption": clip.caption, "split": split, "objects": objects}


# Captions


def _split_of(caption: str) -> Split:
    return "test" if zlib.crc32(caption.encode()) % TEST_SHARE == 0 else "train"


def _looks(rng: np.random.Generator, world: World) -> Iterator[Look]:
    """Objects that differ in shape and colour, each drawn when it is asked for."""
    fewest, most = world.objects
    number = int(rng.integers(fewest, most + 1))
    shapes = rng.choice(list(SHAPES), number, replace=False)
    colours = rng.choice(list(COLOURS), number, replace=False)
    crossing = number == 2 and rng.random() < world.crossing
    for o in range(number):
        texture, size, action = (str(rng.choice(list(names))) for names in (TEXTURES, SIZES, ACTIONS))
        yield Look(str(shapes[o]), str(colours[o]), texture, size, CROSSING_WAYS[o] if crossing else action)


def _changed(rng: np.random.Generator, base: tuple[ToyObject, ...]) -> tuple[Look, ...]:
    """The same objects but for one thing."""
    changed: list[Look] = list(base)
    name = str(rng.choice(list(LOOKS)))
    o = int(rng.integers(len(base)))
    if len(base) > 1 and rng.random() < EXCHANGE_SHARE:
        other = (o + 1) % len(base)
        changed[o] = _with(base[o], name, getattr(base[other], name))
        changed[other] = _with(base[other], name, getattr(base[o], name))
    else:
        taken = {getattr(thing, name) for thing in base}  # shapes and colours stay unlike each other
        free = [value for value in LOOKS[name] if value not in taken]
        changed[o] = _with(base[o], name, str(rng.choice(free)))
    return tuple(changed)


def _with(look: Look, name: str, value: str) -> Look:
    return Look(**{**{key: getattr(look, key) for key in LOOKS}, name: value})


def _shown_already(objects: tuple[ToyObject, ...], family: list[tuple[ToyObject, ...]]) -> bool:
    """Whether a clip of the family shows the same objects, in whatever words."""

    def shown(things: tuple[ToyObject, ...]) -> list[tuple[str, ...]]:
        return sorted(tuple(getattr(thing, name) for name in LOOKS) for thing in things)

    return any(shown(objects) == shown(others) for others in family)


def _bystanders(rng: np.random.Generator, objects: tuple[ToyObject, ...], number: int) -> tuple[Look, ...]:
    """Objects that the caption leaves out, each easily taken for one that it names."""
    named = {(thing.shape, thing.colour) for thing in objects}
    found: list[Look] = []
    while len(found) < number:
        like = objects[int(rng.integers(len(objects)))]
        shape, colour, texture, size, action = (str(rng.choice(list(values))) for values in LOOKS.values())
        shape, colour = (like.shape, colour) if rng.random() < 0.5 else (shape, like.colour)
        if (shape, colour) not in named:
            found.append(Look(shape, colour, texture, size, action))
    return tuple(found)


def _caption(rng: np.random.Generator, looks: Iterable[Look]) -> tuple[str, tuple[ToyObject, ...]]:
    """A sentence about objects."""
    caption = ""
    objects = []
    for o, look in enumerate(looks):
        noun = str(rng.choice(SHAPES[look.shape]))
        clause = _phrase(rng, look.colour, look.texture, look.size, noun)
        crossing = look.action in CROSSING_WAYS
        if crossing:
            clause += f" {rng.choice(CROSSING)}" if o else ""
        else:
            clause += f" {rng.choice(ACTIONS[look.action])}"
        if o:
            clause = f" and {clause}" if crossing else str(rng.choice(JOINERS)).format(b=clause)
        start = len(caption)
        caption += clause
        spans = _span(caption, noun, start), _span(caption, look.colour, start)
        objects.append(ToyObject(look.shape, look.colour, look.texture, look.size, look.action, noun, *spans))
    return caption, tuple(objects)


def _phrase(rng: np.random.Generator, colour: str, texture: str, size: str, noun: str) -> str:
    """``a small red striped disc``; the adjectives of colour and texture come in either order."""
    looks = [colour, texture if texture != "plain" else ""]
    if rng.random() < 0.3:
        looks.reverse()
    phrase = " ".join(word for word in (str(rng.choice(SIZES[size][1])), *looks, noun) if word)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _span(caption: str, word: str, start: int) -> tuple[int, int]:
    at = f" {caption} ".index(f" {word} ", start)  # whole words only: the 'bar' of 'a bar', not of 'barn'
    return at, at + len(word)


# Pictures


def _render(
    rng: np.random.Generator, objects: tuple[ToyObject, ...], bystanders: tuple[Look, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Frames [T, H, W, 3], and the boxes [T, O, 4] of ``objects``, which hide the bystanders where they meet."""
    frames = np.repeat(_background(rng)[None], NUM_FRAMES, axis=0)
    things = (*bystanders, *objects)
    boxes = np.full((NUM_FRAMES, len(things), 4), np.nan, np.float32)
    angles = rng.uniform(-0.3, 0.3, len(things))
    spots = _spots(rng, len(things))
    for o, thing in enumerate(things):
        fill = _texture(thing)
        for t in range(NUM_FRAMES):
            x, y, radius = _pose(thing, spots[o], t / (NUM_FRAMES - 1))
            if radius < 2:
                continue
            mask = _mask(thing.shape, x, y, radius, float(angles[o]))
            alpha = mask[..., None].astype(np.float32) / 255
            frames[t] = np.round(frames[t] * (1 - alpha) + fill * alpha).astype(np.uint8)
            ys, xs = np.nonzero(mask > 127)
            if len(xs):
                boxes[t, o] = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    noise = rng.integers(-6, 7, frames.shape[1:3])[None, :, :, None]
    frames = np.clip(frames.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return frames, boxes[:, len(bystanders) :]


def _spots(rng: np.random.Generator, number: int) -> list[tuple[float, float]]:
    """Middles of the objects' ways: side by side, so that two objects may cross but do not hide each other for long."""
    columns = rng.permutation(number)
    width = WIDTH / number
    return [(float(width * (c + rng.uniform(0.38, 0.62))), float(HEIGHT * rng.uniform(0.4, 0.6))) for c in columns]


def _pose(thing: Look, spot: tuple[float, float], when: float) -> tuple[float, float, float]:
    """Centre and radius in pixels at time ``when`` in [0, 1]."""
    x, y = spot
    radius = SIZES[thing.size][0]
    swing = 2 * when - 1
    match thing.action:
        case "right":
            x += 26 * swing
        case "left":
            x -= 26 * swing
        case "cross right":
            x, y = WIDTH * (0.2 + 0.6 * when), y - 12
        case "cross left":
            x, y = WIDTH * (0.8 - 0.6 * when), y + 12
        case "up":
            y -= 22 * swing
        case "down":
            y += 22 * swing
        case "grow":
            radius *= 0.5 + when
        case "shrink":
            radius *= 1.5 - when
        case "appear":
            radius *= 0.0 if when < 0.35 else 1.0
    return x, y, radius


def _mask(shape: str, x: float, y: float, radius: float, angle: float) -> NDArray[np.uint8]:
    """[H, W] uint8 coverage of a shape, drawn at twice the size for smooth edges."""
    scale = 2
    picture = Image.new("L", (WIDTH * scale, HEIGHT * scale))
    draw = ImageDraw.Draw(picture)

    def turn(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        cos, sin = math.cos(angle), math.sin(angle)
        return [
            ((x + radius * (px * cos - py * sin)) * scale, (y + radius * (px * sin + py * cos)) * scale)
            for px, py in points
        ]

    if shape in ("circle", "ring"):
        for size, shade in ((1.0, 255),) if shape == "circle" else ((1.0, 255), (0.55, 0)):
            r = radius * size
            draw.ellipse([(x - r) * scale, (y - r) * scale, (x + r) * scale, (y + r) * scale], fill=shade)
    else:
        for polygon in _POLYGONS[shape]:
            draw.polygon(turn(polygon), fill=255)
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def _rectangle(w: float, h: float) -> list[tuple[float, float]]:
    return [(-w, -h), (w, -h), (w, h), (-w, h)]


def _star() -> list[tuple[float, float]]:
    radii = [1.15 if k % 2 == 0 else 0.48 for k in range(10)]
    return [(r * math.sin(math.pi * k / 5), -r * math.cos(math.pi * k / 5)) for k, r in enumerate(radii)]


_POLYGONS: dict[str, list[list[tuple[float, float]]]] = {  # unit size, y downwards
    "square": [_rectangle(0.88, 0.88)],
    "triangle": [[(0.0, -1.05), (1.05, 0.85), (-1.05, 0.85)]],
    "star": [_star()],
    "cross": [_rectangle(1.0, 0.34), _rectangle(0.34, 1.0)],
    "diamond": [[(0.0, -1.2), (0.8, 0.0), (0.0, 1.2), (-0.8, 0.0)]],
    "bar": [_rectangle(1.25, 0.36)],
}


def _texture(thing: Look) -> NDArray[np.float32]:
    """[H, W, 3] float32 colours that the object's mask cuts out."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    match thing.texture:
        case "striped":
            dark = (x + y) % 8 < 3
        case "dotted":
            dark = ((x % 7) - 3) ** 2 + ((y % 7) - 3) ** 2 <= 3
        case "checked":
            dark = (x // 4 + y // 4) % 2 == 0
        case _:
            dark = np.zeros_like(x, bool)
    base = np.array(COLOURS[thing.colour], np.float32)
    return np.where(dark[..., None], base * 0.35, base).astype(np.float32)


def _background(rng: np.random.Generator) -> NDArray[np.uint8]:
    """[H, W, 3] uint8: a dull gradient with clutter, muted so that the objects' colours stay theirs."""
    corners = rng.uniform(60, 150, (2, 2, 1)) + rng.uniform(-18, 18, (2, 2, 3))
    small = Image.fromarray(corners.astype(np.uint8))
    picture = small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(6, 14))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        w, h = rng.uniform(3, 26, 2)
        grey = int(rng.integers(50, 170))
        tint = tuple(int(np.clip(grey + d, 0, 255)) for d in rng.integers(-12, 13, 3))
        match int(rng.integers(3)):
            case 0:
                draw.rectangle([x, y, x + w, y + h], fill=tint)
            case 1:
                draw.ellipse([x, y, x + w, y + h], outline=tint)
            case _:
                draw.line([x, y, x + rng.uniform(-40, 40), y + rng.uniform(-40, 40)], fill=tint, width=1)
    return np.asarray(picture)
