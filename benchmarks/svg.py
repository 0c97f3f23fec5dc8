"""The frame of all pictures of the benchmarks: SVG, readable on light and dark backgrounds, with a text description."""

from collections.abc import Iterable
from xml.sax.saxutils import escape

_LIGHT = """
    svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
    .paper { fill: #ffffff; stroke: #d0d7de; }
    .title { fill: #1f2328; font-size: 16px; font-weight: 600; }
    .group { fill: #1f2328; font-size: 13px; font-weight: 600; }
"""
_DARK = """
    .paper { fill: #0d1117; stroke: #3d444d; }
    .title, .group { fill: #f0f6fc; }
"""


def document(size: tuple[int, float], title: str, said: str, style: tuple[str, str], parts: Iterable[str]) -> str:
    """A picture of so many pixels, with `style` rules for light and dark backgrounds; `said` is its description."""
    light, dark = style
    width, height = size
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" role="img">',
            f"  <title>{escape(title)}</title>",
            f"  <desc>{escape(said)}</desc>",
            f"  <style>{_LIGHT}{light}    @media (prefers-color-scheme: dark) {{{_DARK}{dark}    }}",
            "  </style>",
            f'  <rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1:g}" rx="6"/>',
            f'  <text class="title" x="20" y="30">{escape(title)}</text>',
            *(f"  {part}" for part in parts),
            "</svg>",
            "",
        ]
    )
