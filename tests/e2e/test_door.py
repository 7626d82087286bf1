"""Viewers at the door of a real run, over TLS: a link, a waiting room, sent away, a paused view."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import CHROMIUM, WATCH, Run, comes_true, running, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

GRAPH = """\
serve: {{listen: "0.0.0.0:0", tls: auto}}
nodes:
  pattern: {{type: test-pattern, size: 640x360}}
  encode: {{type: hw-encode, from: pattern, bitrate: 1M}}
  out: {{type: webrtc-out, from: encode, viewers: {{approval: {approval}}}}}
"""


class Owner:
    """The owner of a run at another terminal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flowstream", *words],
            env={**os.environ, "XDG_RUNTIME_DIR": str(self._folder)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    def viewers(self) -> list[dict[str, Any]]:
        return list(json.loads(self("viewers", "list", "--format", "json"))["viewers"])


@contextmanager
def served(folder: Path, approval: str) -> Iterator[tuple[Run, Owner]]:
    (folder / "door.yaml").write_text(GRAPH.format(approval=approval))
    with running("door.yaml", folder, XDG_STATE_HOME=str(folder / "state")) as run:
        run.wait_for("running")
        yield run, Owner(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=options)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Any, url: str) -> Iterator[Any]:
    """A page of a browser that takes the certificate."""
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(url)
    yield page
    context.close()


def state(page: Any) -> str:
    return str(page.evaluate("document.getElementById('stage').dataset.state"))


def local(run: Run) -> str:
    """The link for this machine."""
    return next(line["url"] for line in run.lines if line.get("event") == "page" and "127.0.0.1" in line["url"])


def test_a_page_over_tls_plays_with_its_link_and_not_without(tmp_path: Path, browser: Any) -> None:
    with served(tmp_path, "auto") as (run, owner):
        bare = local(run)
        assert bare.startswith("https://127.0.0.1:")
        assert "token" not in "".join(run.text).replace("a token, which is not written", "").replace('"token"', "")
        fingerprint = run.wait_for("certificate")["message"].split("SHA-256 is ")[1][:95]
        assert fingerprint in owner("status")
        with visit(browser, bare) as page:
            until("it needs a link", lambda: state(page) == "failed")
            assert page.inner_text("#sentence") == "This needs a link from its owner"
            assert page.evaluate("isSecureContext") is True
        links = owner("viewers", "invite", "--name", "Ann", "--for", "1h").split()
        link = next(each for each in links if "127.0.0.1" in each)
        assert link.startswith(f"{bare}?token=")
        with visit(browser, link) as page:
            until("it plays", lambda: state(page) == "playing")
            assert page.evaluate("isSecureContext") is True
            (viewer,) = owner.viewers()
            assert (viewer["name"], viewer["is_verified"], viewer["state"]) == ("Ann", True, "watching")
        assert run.wait_for("viewer-left")["viewer"] == viewer["id"]
        assert link.split("token=")[1] not in "\n".join(run.text)


def test_a_waiting_room_a_paused_view_and_a_kick(tmp_path: Path, browser: Any) -> None:
    with served(tmp_path, "manual") as (run, owner), visit(browser, local(run)) as page:
        waiting = run.wait_for("viewer-waiting")
        viewer = waiting["viewer"]
        assert f"flowstream viewers approve {viewer}" in waiting["message"]
        until("the waiting room", lambda: state(page) == "lobby")
        assert "1 waiting" in owner("viewers")
        assert owner("viewers", "approve", viewer) == f"{viewer} may watch\n"
        until("it plays", lambda: state(page) == "playing")
        assert run.wait_for("viewer-joined")["viewer"] == viewer
        assert owner("pause-view") == "out: everybody sees a black picture\n"
        until("it is paused", lambda: state(page) == "paused")
        assert not comes_true(lambda: state(page) == "playing", 1.5)
        assert "paused" in owner("viewers")
        owner("resume-view", "out")
        until("it plays again", lambda: state(page) == "playing")
        assert owner("viewers", "cap", viewer, "600k") == f"{viewer} gets at most 600 kbit/s\n"
        assert owner("viewers", "permit", viewer, "--no-audio") == f"{viewer} may see the picture\n"
        owner("viewers", "kick", viewer)
        until("it is told", lambda: page.inner_text("#sentence") == "The owner has ended this for you.")
        assert run.wait_for("viewer-left")["reason"] == "its owner sent it away"
        assert owner.viewers() == []
        assert f"there is no viewer {viewer[::-1]}x" in owner("viewers", "kick", f"{viewer[::-1]}x", status=1)


def test_links_count_after_a_restart_and_not_after_they_were_taken_back(tmp_path: Path, browser: Any) -> None:
    with served(tmp_path, "token") as (run, owner):
        told = json.loads(owner("viewers", "invite", "--format", "json"))
        token = told["links"][0].split("token=")[1]
        first = run.wait_for("certificate")["message"]
    with served(tmp_path, "token") as (run, owner):
        assert run.wait_for("certificate")["message"] == first
        with visit(browser, f"{local(run)}?token={token}") as page:
            until("it plays", lambda: state(page) == "playing")
            assert "1 was sent away" in owner("viewers", "revoke", told["id"])
            until("it is told", lambda: page.inner_text("#sentence") == "The owner has ended this for you.")
    with served(tmp_path, "token") as (run, owner), visit(browser, f"{local(run)}?token={token}") as page:
        until("it is told", lambda: page.inner_text("#sentence") == "The owner has ended this for you.")
