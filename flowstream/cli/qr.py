"""A link as a QR code on a terminal, for a phone to look at."""

from __future__ import annotations

BORDER = 2
"""Light modules around the code; fewer than the four of ISO 18004, which readers do with."""

_CELLS = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def qr_lines(link: str, columns: int) -> list[str] | None:
    """Lines for a terminal with colours, two rows of the code in each; None where it is not wide enough.

    Dark on light whatever the terminal's colours are: many readers take no other way round.
    """
    import segno

    code = segno.make(link, error="l", micro=False)
    rows = [list(row) for row in code.matrix_iter(border=BORDER)]
    if len(rows[0]) > columns:
        return None
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = "".join(_CELLS[int(bool(a)), int(bool(b))] for a, b in zip(upper, lower, strict=True))
        lines.append(f"\033[30;107m{cells}\033[0m")
    return lines
