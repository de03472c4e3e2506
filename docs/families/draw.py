"""Draws the figures of these pages: which frames each layer of a family brings together. Usage: python docs/families/draw.py

A row of dots is a layer, the lowest are the frames of a clip. A line leads from a dot to all that it sees in the row below. Blue dots have seen
one frame, orange ones several.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

WIDTH, STEP_X, STEP_Y, LEFT, TOP, RADIUS = 640, 34, 56, 30, 28, 8
ONE, SEVERAL, LINE, TEXT = "#3b7dd8", "#e07b1f", "#9aa3ad", "#24292f"


class Layer(NamedTuple):
    """A row. label: what it does. extent: dots of the row below that one of its dots sees, 0 is all of them. stride: from one
    to the next. padded: the ends see fewer. chained: each dot hands something to the one after it.
    """

    label: str
    extent: int = 1
    stride: int = 1
    padded: bool = False
    chained: bool = False


class Dot(NamedTuple):
    """x: where it stands. below: numbers of the dots it sees. frames: those it has seen through them."""

    x: float
    below: range
    frames: frozenset[int]


CNN = Layer("the same 2-D network on each frame")
CLASSES = Layer("classes", 0)
FAMILIES: dict[str, tuple[int, list[Layer]]] = {
    "single_frame": (8, [CNN, Layer("classes of each frame"), Layer("mean of the probabilities", 0)]),
    "context_fovea": (
        8,
        [
            Layer("whole frame at half size, and its middle"),
            Layer("classes of each frame"),
            Layer("mean of the probabilities", 0),
        ],
    ),
    "late_pool": (8, [CNN, Layer("mean of the vectors", 0), Layer("hidden layer"), CLASSES]),
    "late_fusion": (8, [CNN, Layer("hidden layer, weights for each frame", 0), CLASSES]),
    "early_fusion": (8, [Layer("conv1, filters over all frames", 0), Layer("conv2 to conv5, 2-D"), CLASSES]),
    "slow_fusion": (
        10,
        [
            Layer("conv1, 4 frames, stride 2", 4, 2),
            Layer("conv2, 2 responses, stride 2", 2, 2),
            Layer("conv3, 2 responses", 2, 2),
            Layer("conv4, conv5, 2-D"),
            CLASSES,
        ],
    ),
    "c3d": (
        8,
        [
            Layer("conv1, conv2: 3 x 3 x 3", 3, 1, padded=True),
            Layer("pool, conv3", 3, 2, padded=True),
            Layer("pool, conv4, conv5", 3, 2, padded=True),
            Layer("mean over time and space", 0),
            CLASSES,
        ],
    ),
    "i3d": (
        8,
        [
            Layer("2-D kernels, repeated over 5 frames", 5, 1, padded=True),
            Layer("repeated over 3", 3, 1, padded=True),
            Layer("maximum of 2, then over 3 again", 4, 2, padded=True),
            Layer("mean over time and space", 0),
            CLASSES,
        ],
    ),
    "non_local": (
        8,
        [
            Layer("convolutions over time", 3, 1, padded=True),
            Layer("pool, convolutions", 3, 2, padded=True),
            Layer("non-local block: each sees all", -1),
            Layer("mean over time and space", 0),
            CLASSES,
        ],
    ),
    "two_stream": (
        8,
        [
            Layer("flow from each frame to the next", 2),
            Layer("temporal stream: conv1 over all of it", 0),
            Layer("conv2 to conv5, 2-D"),
            Layer("mean with the spatial stream, of one frame"),
        ],
    ),
    "trajectories": (
        8,
        [
            Layer("flow from each frame to the next", 2),
            Layer("tracks: points that follow it (here 4 steps)", 4),
            Layer("histograms along all tracks, Fisher vector", 0),
            Layer("linear SVM"),
        ],
    ),
    "lstm": (
        8,
        [
            CNN,
            Layer("LSTM, state handed on", 1, 1, chained=True),
            Layer("classes of each step"),
            Layer("mean of the probabilities", 0),
        ],
    ),
    "attention": (8, [CNN, Layer("attention: each frame sees all", -1), Layer("class token", 0), CLASSES]),
    "timesformer": (
        8,
        [
            Layer("patches of each frame"),
            Layer("block: over time, same place; then space", -1),
            Layer("more blocks", -1),
            Layer("mean over time and space", 0),
            CLASSES,
        ],
    ),
    "vit": (
        8,
        [
            Layer("cubes of 2 frames", 2, 2),
            Layer("block: each cube sees all cubes", -1),
            Layer("more blocks", -1),
            Layer("mean over time and space", 0),
            CLASSES,
        ],
    ),
}


def seen(number: int, layer: Layer, num_below: int) -> range:
    """The dots below that one dot sees."""
    if layer.extent <= 0:
        return range(num_below)
    start = number * layer.stride - (layer.extent // 2 if layer.padded else 0)
    return range(max(0, start), min(num_below, start + layer.extent))


def row(layer: Layer, below: Sequence[Dot]) -> list[Dot]:
    """The dots of a layer over those of the one below."""
    if layer.extent == 0:
        count = 1
    elif layer.extent < 0:
        count = len(below)
    elif layer.padded:
        count = -(-len(below) // layer.stride)
    else:
        count = (len(below) - layer.extent) // layer.stride + 1
    dots = []
    for number in range(count):
        sees = seen(number, layer, len(below))
        inner = (
            sees
            if layer.extent >= 0 and not layer.padded
            else range(number * layer.stride, number * layer.stride + layer.stride)
        )
        x = sum(below[min(i, len(below) - 1)].x for i in inner) / len(inner)
        frames = frozenset().union(*(below[i].frames for i in sees))
        dots.append(Dot(x, sees, frames | (dots[-1].frames if layer.chained and dots else frozenset())))
    return dots


def rows_of(num_frames: int, layers: Sequence[Layer]) -> list[tuple[str, list[Dot], bool]]:
    """All rows from the frames on: label, dots, chained."""
    rows = [("frames", [Dot(LEFT + STEP_X * i, range(0), frozenset([i])) for i in range(num_frames)], False)]
    for layer in layers:
        rows.append((layer.label, row(layer, rows[-1][1]), layer.chained))
    return rows


def shapes(rows: Sequence[tuple[str, list[Dot], bool]]) -> Iterator[str]:
    """Lines, then dots and labels."""

    def y_of(number: int) -> int:
        return TOP + STEP_Y * (len(rows) - 1 - number)

    for number, (_, dots, chained) in enumerate(rows):
        for i, dot in enumerate(dots):
            for j in dot.below:
                other = rows[number - 1][1][j]
                yield f'<line x1="{dot.x:g}" y1="{y_of(number)}" x2="{other.x:g}" y2="{y_of(number - 1)}" stroke="{LINE}"/>'
            if chained and i:
                yield f'<line x1="{dots[i - 1].x:g}" y1="{y_of(number)}" x2="{dot.x:g}" y2="{y_of(number)}" stroke="{SEVERAL}" stroke-width="2"/>'
    for number, (label, dots, _) in enumerate(rows):
        y = y_of(number)
        for dot in dots:
            color = SEVERAL if len(dot.frames) > 1 else ONE
            form = f'<rect x="{dot.x - 11:g}" y="{y - 11}" width="22" height="22" rx="2" fill="{color}"/>'
            yield form if number == 0 else f'<circle cx="{dot.x:g}" cy="{y}" r="{RADIUS}" fill="{color}"/>'
        yield f'<text x="{LEFT + STEP_X * len(rows[0][1]) + 4}" y="{y + 5}">{label}</text>'


def figure(name: str) -> str:
    """The SVG of one family."""
    num_frames, layers = FAMILIES[name]
    rows = rows_of(num_frames, layers)
    height = 2 * TOP + STEP_Y * (len(rows) - 1)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="15" fill="{TEXT}">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>', *shapes(rows), "</svg>", ""])


if __name__ == "__main__":
    for family in FAMILIES:
        (Path(__file__).parent / f"{family}.svg").write_text(figure(family), encoding="utf-8")
