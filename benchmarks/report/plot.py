"""The rates as bars: an SVG that reads on light and dark pages alike."""

from html import escape
from math import log10
from typing import Final

from benchmarks.report.grids import Results

WIDTH: Final = 860
LABEL: Final = 350  # of which the labels take
BAR, GAP, TOP = 20, 8, 44
LINES: Final = 10  # of the scale, at most
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.v{font-weight:600}"
    ".peer{fill:#8c959f}.ours{fill:#1a7f64}.limit{fill:#bc8c3c}.grid{stroke:#8c959f;stroke-opacity:.3}"
    "@media(prefers-color-scheme:dark){text{fill:#adbac7}}"
)


def svg(results: Results) -> str:
    """Return the plot; an empty one when no rates were measured."""
    if "backlog" not in results:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    part = results["backlog"]
    bars = [(s["label"], s["median"], "ours" if s["ours"] else "peer") for s in part["systems"].values()]
    bars.append(("PostgreSQL alone: the rows, nothing else", part["limits"]["all at once"]["median"], "limit"))
    bars.sort(key=lambda bar: bar[1])
    highest = max(100.0, bars[-1][1])
    height = TOP + len(bars) * (BAR + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Commands per second</title><style>{_STYLE}</style>",
        '<text x="0" y="16">commands per second</text>',
        *_scale(highest, height),
    ]
    for number, (label, rate, kind) in enumerate(bars):
        y, end = TOP + number * (BAR + GAP), _x(rate, highest)
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{max(1, end - LABEL):.0f}" height="{BAR}" rx="2"/>',
            f'<text class="v" x="{end + 6:.0f}" y="{y + 15}">{rate:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _scale(highest: float, height: int) -> list[str]:
    """Draw a line at every 1, 2 or 5 times a power of ten, such that there are a few."""
    power = 10 ** int(log10(highest))
    step = next(step for step in (power // 5, power // 2, power) if highest / step <= LINES)
    lines = []
    for value in range(0, int(highest) + 1, step):
        x = f"{_x(value, highest):.0f}"
        lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{height - 6}"/>')
        lines.append(f'<text x="{x}" y="{TOP - 10}" text-anchor="middle">{value:,}</text>')
    return lines


def _x(rate: float, highest: float) -> float:
    return LABEL + (WIDTH - LABEL - 60) * rate / highest
