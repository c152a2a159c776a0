"""Line charts as SVG, without a plotting library."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN = 420, 280, 48
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#e39d2b", "#6a4c93", "#777777", "#00897b", "#b5651d")
DASHES = ("none", "6 3", "2 2")


class Panel(NamedTuple):
    """One chart. Lines are label -> points; x is shown on a logarithmic axis if asked for."""

    title: str
    x_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False


def svg(panels: Sequence[Panel]) -> str:
    """The panels beside each other, and a legend below."""
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    width, legend = len(panels) * WIDTH, 16 * math.ceil(len(labels) / (2 * len(panels))) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT + legend}" font-size="11" '
        'font-family="sans-serif">',
        f'<rect width="{width}" height="{HEIGHT + legend}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel, labels), "</g>"]
    columns = 2 * len(panels)
    for number, label in enumerate(labels):
        x, y = MARGIN + number % columns * WIDTH / 2, HEIGHT + 16 * (number // columns)
        parts.append(f'<path d="M{x:.0f} {y}h22" {_stroke(number)}/>')
        parts.append(f'<text x="{x + 28:.0f}" y="{y + 4}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, labels: Sequence[str]) -> list[str]:
    """Without points, as of too few visits, axes alone."""
    points = [point for line in panel.lines.values() for point in line]
    return [
        f'<text x="{WIDTH / 2}" y="20" text-anchor="middle" font-size="13">{escape(panel.title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(panel.x_label)}</text>',
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN / 2}" stroke="#333" fill="none"/>',
        *(_curves(panel, labels, points) if points else []),
    ]


def _curves(panel: Panel, labels: Sequence[str], points: Sequence[tuple[float, float]]) -> list[str]:
    """The lines of a panel, whose points are given, and the ends of its axes."""
    scale = math.log10 if panel.log_x else float
    xs, ys = [scale(x) for x, _ in points], [y for _, y in points]
    left, right, end = min(xs), max(xs), max(x for x, _ in points)
    low, top = min(0.0, *ys), max(0.0, *ys) or 1.0

    def place(x: float, y: float) -> str:
        across = (scale(x) - left) / (right - left or 1.0) * (WIDTH - 1.5 * MARGIN)
        return f"{MARGIN + across:.1f} {HEIGHT - MARGIN - (y - low) / (top - low) * (HEIGHT - 2 * MARGIN):.1f}"

    parts = [
        f'<text x="{MARGIN - 4}" y="{MARGIN + 4}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{MARGIN - 4}" y="{HEIGHT - MARGIN}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{WIDTH - MARGIN / 2}" y="{HEIGHT - MARGIN + 14}" text-anchor="end">{end:g}</text>',
    ]
    for label, line in panel.lines.items():
        path = "L".join(place(x, y) for x, y in line)
        parts.append(f'<path d="M{path}" {_stroke(labels.index(label))}/>')
    return parts


def _stroke(number: int) -> str:
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-dasharray="{dash}" stroke-width="1.5" fill="none"'
