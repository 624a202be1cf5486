"""A number over training steps as a small inline SVG."""

import math
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 120, 46, 18, 8
MOST_POINTS = 400


def curve_svg(name: str, points: list[tuple[int, float]]) -> str:
    """An SVG of `points` (step, value), sorted by step; logarithmic where positive values span a factor over 30.

    Colours come from the page: `currentColor` and the CSS variable `--accent`.
    """
    points = points[:: max(1, len(points) // MOST_POINTS)] + points[-1:]
    values = [value for _, value in points]
    logarithmic = min(values) > 0 and max(values) / min(values) > 30
    levels = [math.log10(v) for v in values] if logarithmic else values
    low, high = min(levels), max(levels)
    first, last = points[0][0], points[-1][0]
    corners = []
    for (step, _), level in zip(points, levels, strict=True):
        x = LEFT + (WIDTH - LEFT - 6) * (step - first) / max(last - first, 1)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - (level - low) / max(high - low, 1e-12))
        corners.append(f"{x:.1f},{y:.1f}")
    scale = ", log" if logarithmic else ""
    axis = f"M{LEFT},{TOP}V{HEIGHT - BOTTOM}H{WIDTH - 6}"
    return (
        f'<figure class="curve"><figcaption>{escape(name)}{scale} <b>{_short(values[-1])}</b></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name, quote=True)} over steps">'
        f'<path d="{axis}" fill="none" stroke="currentColor" stroke-opacity=".3"/>'
        f'<polyline points="{" ".join(corners)}" fill="none" stroke="var(--accent)" stroke-width="1.5"/>'
        f"{_label(LEFT - 4, TOP + 8, _short(max(values)))}{_label(LEFT - 4, HEIGHT - BOTTOM, _short(min(values)))}"
        f"{_label(LEFT + 14, HEIGHT - 5, str(first))}{_label(WIDTH - 6, HEIGHT - 5, str(last))}</svg></figure>"
    )


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="end" font-size="9" fill="currentColor" fill-opacity=".65">{text}</text>'


def _short(value: float) -> str:
    return f"{value:.3g}"
