"""The processes that send in the fan-out benchmark: how each is started, told of a viewer, and measured."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from fanout_stream import PAYLOAD, beats, pictures
from fanout_viewers import CountingViewer

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
DEBIANS_PYTHON: Final = Path("/usr/bin/python3")
GSTREAMER: Final = (
    "python3-gi", "gir1.2-gst-plugins-bad-1.0", "gstreamer1.0-nice", "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad",
)  # fmt: skip

ENDS_S: Final = 10.0
"""How long Janus may take to end when it is told to."""


class Sender(Protocol):
    """A process that sends."""

    async def join(self, viewer: CountingViewer) -> None:
        """Connects a viewer."""

    def cpu_s(self) -> float:
        """What it has used so far."""


def cpu_of(pid: int) -> float:
    """CPU time of all threads of a process, in seconds, to the nanosecond."""
    times = (path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, times)) / 1e9


@cache
def python_of_senders() -> str:
    """Debian's Python if it is our version, else the one that this runs on."""
    try:
        found = subprocess.run([DEBIANS_PYTHON, "-V"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return sys.executable
    is_ours = found.split()[1].split(".")[:2] == sys.version.split()[0].split(".")[:2]
    return str(DEBIANS_PYTHON) if is_ours else sys.executable


def present(*, install: bool) -> list[str]:
    """The peers that are here, or could be installed if ``install``."""
    found = ["aiortc"]
    if _has(lambda: shutil.which("janus") is not None, ["janus"], install=install):
        found.append("janus")
    if _has(_has_webrtcbin, GSTREAMER, install=install):
        found.append("webrtcbin")
    return found


def _has_webrtcbin() -> bool:
    probe = "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst; Gst.init(None); "
    probe += "assert all(map(Gst.ElementFactory.find, ('webrtcbin', 'nicesink', 'rtph264pay', 'dtlssrtpenc')))"
    try:
        return subprocess.run([DEBIANS_PYTHON, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _has(look: Callable[[], bool], packages: Sequence[str], *, install: bool) -> bool:
    if look():
        return True
    if not install or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
    return look()


@asynccontextmanager
async def apart(starting: AbstractAsyncContextManager[Sender]) -> AsyncIterator[Sender]:
    """Starts who sends on all processors but the last, which is ours as long as it runs; where there are several, and
    the system lets us choose."""
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2:
        async with starting as sender:
            yield sender
        return
    *others, last = cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others)
    try:
        async with starting as sender:
            os.sched_setaffinity(0, {last})
            yield sender
    finally:
        os.sched_setaffinity(0, cpus)


class Script:
    """A process of ours that takes offers on its standard input, and answers them."""

    def __init__(self, python: str, *words: str, numbers: bool = False) -> None:
        self._command = [python, *words]
        self._numbers = numbers

    async def __aenter__(self) -> Self:
        # Libraries of the peers say there what is of no interest, such as that a router could not be asked for ports.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the script has ended
        packages = [path for path in sys.path if path.endswith("site-packages")]
        paths = [*map(str, (HERE, ROOT, ROOT / "nodes")), *packages]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            limit=1 << 20,
            env=variables,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        self._said.close()

    async def join(self, viewer: CountingViewer) -> None:
        """Connects a viewer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        offer = viewer.offer(numbers=self._numbers, audio=False)
        self._process.stdin.write(json.dumps({"offer": offer}).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            raise RuntimeError(f"{' '.join(self._command)} ended: {self._said.read().decode(errors='replace')}")
        await viewer.connect(json.loads(line)["answer"])

    def cpu_s(self) -> float:
        """What it has used so far."""
        return cpu_of(self._process.pid)


class Janus:
    """Janus with its streaming plugin; it is given the stream as RTP, and answers checks as we do (ICE-lite)."""

    def __init__(self) -> None:
        self._transactions = 0

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        path = _configure_janus(folder, self._port)
        while not await self._start(folder, path):  # 1.1 ends now and then: its socket's thread comes too early
            pass
        self._session = (await self._ask({"janus": "create"}))["data"]["id"]
        self._feeding = asyncio.ensure_future(self._feed())
        return self

    async def _start(self, folder: Path, path: Path) -> bool:
        self._process = await asyncio.create_subprocess_exec(
            "janus", "-F", folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while self._process.returncode is None:
            self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setblocking(False)
            try:
                self._control.connect(str(path))
            except OSError:
                self._control.close()
                await asyncio.sleep(0.1)
            else:
                return True
        return False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feeding.cancel()
        self._control.close()
        self._process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(ENDS_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._folder.cleanup()

    async def join(self, viewer: CountingViewer) -> None:
        """Connects a viewer."""
        session = {"session_id": self._session}
        handle = (await self._ask({"janus": "attach", "plugin": "janus.plugin.streaming", **session}))["data"]["id"]
        session["handle_id"] = handle
        watching = await self._ask({"janus": "message", "body": {"request": "watch", "id": 1}, **session})
        offer = watching["jsep"]["sdp"]
        answer = {"type": "answer", "sdp": viewer.answer_to(offer)}
        await self._ask({"janus": "message", "body": {"request": "start"}, "jsep": answer, **session})
        await viewer.connect(offer)

    def cpu_s(self) -> float:
        """What it has used so far."""
        return cpu_of(self._process.pid)

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request, or the event that comes of it."""
        self._transactions += 1
        name = str(self._transactions)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._control, json.dumps({**request, "transaction": name}).encode())
        while True:
            reply: dict[str, Any] = json.loads(await loop.sock_recv(self._control, 1 << 16))
            if reply.get("transaction") == name and reply["janus"] != "ack":
                if reply["janus"] == "error":
                    raise RuntimeError(f"Janus says {reply['error']}")
                return reply

    async def _feed(self) -> None:
        from flowstream.proto.h264 import packetize, split_annex_b
        from flowstream.proto.rtp import HeaderWriter

        writer = HeaderWriter(payload_type=96, ssrc=1)
        units = [packetize(split_annex_b(data), max_size=PAYLOAD) for data, _ in pictures()]
        number = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as feed:
            feed.connect(("127.0.0.1", self._port))
            async for beat in beats():
                payloads = units[beat % len(units)]
                headers = writer.pack_run(
                    len(payloads), sequence_number=number & 0xFFFF, timestamp=beat * 3000, marks_last=True
                )
                number += len(payloads)
                for header, payload in zip(headers, payloads, strict=True):
                    feed.send(header + payload)


def _configure_janus(folder: Path, port: int) -> Path:
    """Writes the files; gives the path of its socket."""
    library = next(Path("/usr/lib").glob("*/janus"))
    plugins = ",".join(each.name for each in library.glob("plugins/*.so") if "streaming" not in each.name)
    transports = ",".join(each.name for each in library.glob("transports/*.so") if "pfunix" not in each.name)
    control = folder / "control"
    (folder / "janus.jcfg").write_text(
        f'general: {{ plugins_folder = "{library}/plugins"\n transports_folder = "{library}/transports"\n'
        f" debug_level = 1\n session_timeout = 0 }}\n"
        "nat: { ice_lite = true }\n"
        f'plugins: {{ disable = "{plugins}" }}\ntransports: {{ disable = "{transports}" }}\n'
    )
    (folder / "janus.transport.pfunix.jcfg").write_text(
        f'general: {{ enabled = true\n json = "compact"\n path = "{control}"\n type = "SOCK_SEQPACKET" }}\n'
    )
    (folder / "janus.plugin.streaming.jcfg").write_text(
        'stream: { type = "rtp"\n id = 1\n audio = false\n video = true\n'
        f' videoport = {port}\n videopt = 96\n videocodec = "h264"\n'
        ' videofmtp = "profile-level-id=42e01f;packetization-mode=1" }\n'
    )
    return control


def _script(who: str, *, numbers: bool = False) -> Script:
    return Script(python_of_senders(), str(HERE / "fanout_senders.py"), who, numbers=numbers)


SENDERS: Final[dict[str, Callable[[int], AbstractAsyncContextManager[Sender]]]] = {
    "flowstream": lambda count: _script("flowstream", numbers=True),
    "aiortc": lambda count: _script("aiortc"),
    "janus": lambda count: Janus(),
    "webrtcbin": lambda count: Script(str(DEBIANS_PYTHON), str(HERE / "fanout_webrtcbin.py"), str(count)),
}
