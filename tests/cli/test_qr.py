"""Links as QR codes: a reader reads them, and a narrow terminal shows none."""

import re

import cv2
import numpy as np
import pytest

from flowstream.cli.qr import qr_lines

TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOiJmbG93c3RyZWFtIiwianRpIjoiUVpMaDJzN1ciLCJleHAiOjE3OTU2NTg"
LINKS = ["https://192.0.2.2:8443/", f"https://[2001:db8::1]:8443/out/?token={TOKEN}.pmQy1R5n0pAI-4ZB8pEY1bVZ3pQ8vGm1Ts"]


def seen(lines: list[str], scale: int = 8) -> np.ndarray:
    """The picture that a terminal shows."""
    rows = []
    for line in lines:
        cells = re.fullmatch(r"\x1b\[30;107m(.*)\x1b\[0m", line)
        assert cells is not None
        rows.append([0 if cell in "█▀" else 255 for cell in cells[1]])
        rows.append([0 if cell in "█▄" else 255 for cell in cells[1]])
    return np.kron(np.array(rows, np.uint8), np.ones((scale, scale), np.uint8))


@pytest.mark.parametrize("link", LINKS)
def test_a_reader_finds_the_link(link: str) -> None:
    lines = qr_lines(link, 200)
    assert lines is not None
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(cv2.copyMakeBorder(seen(lines), 40, 40, 40, 40, 0, value=255))
    assert text == link


@pytest.mark.parametrize("link", LINKS)
def test_where_there_is_no_room_there_is_none(link: str) -> None:
    lines = qr_lines(link, 200)
    assert lines is not None
    width = len(re.sub(r"\x1b\[[\d;]*m", "", lines[0]))
    assert qr_lines(link, width) == lines
    assert qr_lines(link, width - 1) is None
    assert width <= 80
