"""The report in a real browser: looked at in light, in dark and on paper.

Without a Chromium these tests are skipped, but not where CI=true: there a skip would hide them for ever.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from engram.report.compare import compare
from engram.report.document import build_document
from engram.report.html import report_html
from engram.report.record import Record

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
LIGHT, DARK = 1, 0
"""Values of Blink's setting preferredColorScheme."""

Browse = Callable[..., str]
Pixel = tuple[int, int, int]


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI=true and no Chromium: install the package chromium")
    if found is None:
        pytest.skip("no Chromium on this machine: install the package chromium to look at the report")
    return found


@pytest.fixture
def browse(chromium: str, tmp_path: Path) -> Browse:
    """Open a page, do as `arguments` say, and return what the browser logged."""

    def run(page: Path, *arguments: str) -> str:
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [chromium, *QUIET, profile, *arguments, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
        return done.stderr

    return run


@pytest.fixture
def page(make_record: Callable[..., Record], tmp_path: Path) -> Path:
    """Return the page of a run with faults."""
    target = tmp_path / "report.html"
    target.write_text(report_html(build_document(make_record())), encoding="utf-8")
    return target


def shoot(browse: Browse, page: Path, scheme: int, size: str = "1200,5000") -> Image.Image:
    target = page.parent / f"shot-{scheme}.png"
    log = browse(
        page,
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={size}",
        f"--screenshot={target}",
    )
    assert "CONSOLE" not in log, log
    with Image.open(target) as picture:
        return picture.convert("RGB")


def pixel(picture: Image.Image, x: int, y: int) -> Pixel:
    found = picture.getpixel((x, y))
    assert isinstance(found, tuple)
    return (int(found[0]), int(found[1]), int(found[2]))


def brightness(picture: Image.Image) -> float:
    histogram = picture.convert("L").histogram()
    return sum(level * count for level, count in enumerate(histogram)) / sum(histogram)


@pytest.mark.parametrize(("scheme", "paper"), [(LIGHT, (255, 255, 255)), (DARK, (16, 20, 24))])
def test_report_on_screen(browse: Browse, page: Path, scheme: int, paper: Pixel) -> None:
    picture = shoot(browse, page, scheme)
    assert pixel(picture, 5, 5) == paper
    assert brightness(picture) > 200 if scheme == LIGHT else brightness(picture) < 60
    # Something is drawn in every stripe of the first four thousand pixels: no section is blank.
    for top in range(0, 4000, 200):
        colours = picture.crop((100, top, 1100, top + 200)).getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 10, f"nothing to see between {top} and {top + 200}"
    # The margins stay free: nothing is wider than the page.
    for margin in ((0, 0, 60, 4000), (1140, 0, 1200, 4000)):
        assert picture.crop(margin).getcolors() == [(60 * 4000, paper)]


def test_report_on_a_telephone_does_not_overflow(browse: Browse, page: Path) -> None:
    picture = shoot(browse, page, LIGHT, "500,9000")
    assert picture.crop((492, 0, 500, 6000)).getcolors() == [(8 * 6000, (255, 255, 255))]


def test_report_on_paper(browse: Browse, page: Path) -> None:
    target = page.with_suffix(".pdf")
    browse(page, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    content = target.read_bytes()
    assert content.startswith(b"%PDF-")
    assert 4 <= len(re.findall(rb"/Type ?/Page\b", content)) <= 12


def test_leaderboard_on_screen(browse: Browse, make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [
        make_run(f"{algorithm}-{seed}", algorithm=algorithm, seed=seed)
        for algorithm in ("finetune", "icarl")
        for seed in (0, 1)
    ]
    compare(runs, tmp_path / "out")
    for scheme in (LIGHT, DARK):
        picture = shoot(browse, tmp_path / "out" / "report.html", scheme, "1200,1600")
        colours = picture.crop((100, 700, 1100, 1100)).getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 50
