"""Play a media file into the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flowstream import (
    NS_PER_S,
    AudioFrame,
    Config,
    Context,
    Emit,
    Need,
    Output,
    PeerError,
    Snapshot,
    Source,
    VideoFrame,
    field,
    live,
)
from flowstream_nodes.file._reader import Kind, MediaFile

_REPORT_EVERY_NS = NS_PER_S
_FRAMES_AT_ONCE = 4
_SPOKEN = {"video": "video", "audio": "sound"}


class FileConfig(Config):
    """Config of ``file``."""

    path: str = field(
        min_length=1,
        description="The file: anything that FFmpeg reads. From the working directory where it is relative.",
        examples=["talk.mp4"],
    )
    pace: Literal["realtime", "fast"] = field(
        default="realtime", description="realtime gives each frame at its time; fast gives them as they can be taken."
    )
    loop: bool = live(default=False, description="Whether to begin again at the end, without a jump in time.")


class File(Source[FileConfig], type="file"):
    """Play a media file: its first video and its first sound, decoded.

    Both come in order of time, on the graph's timeline from the moment the node starts. A picture that the file says
    is to be turned is turned. What cannot be decoded is left out and counted; a file that cannot be read any further
    is an error that `restart` can answer. A file that replaces another at a reload begins where that one stopped on the
    timeline, which matters where they are faster than time.

    ```yaml
    flowstream: 1
    nodes:
      talk: {type: file, path: talk.mp4}
      encode: {type: hw-encode, from: talk.video}
      sound: {type: opus-encode, from: talk.audio}
      tape: {type: recorder, inputs: {video: encode, audio: sound}, path: recordings/talk.mp4}
    ```
    """

    thread = True
    needs = (Need("av"),)
    restores = (1,)

    _end_ns = 0  # media time at which the next frame begins

    video = Output(VideoFrame, main=True, doc="Pictures in the file's own format.")
    audio = Output(AudioFrame, doc="Sound at the file's own rate and layout.")

    @classmethod
    def live_with(cls, config: FileConfig, /) -> bool:
        """Whether it goes at its own pace."""
        return config.pace == "realtime"

    def open(self) -> None:
        self._path = str(Path(self.config.path).expanduser())
        self._file = self._opened()
        wanted: list[Kind] = [kind for kind in ("video", "audio") if self._wants(kind)]
        absent = [kind for kind in wanted if kind not in self._file.kinds]
        if wanted and absent == wanted:
            raise PeerError(f"{self.config.path} has no {' and no '.join(_SPOKEN[kind] for kind in absent)}")
        for kind in absent:
            self.ctx.log.warning("%s has no %s; output %s gives nothing", self.config.path, _SPOKEN[kind], kind)

    def close(self) -> None:
        if file := getattr(self, "_file", None):
            file.close()

    def snapshot(self) -> Snapshot:
        return Snapshot(1, {"end_ns": self._end_ns})

    def restore(self, snapshot: Snapshot, /) -> None:
        self._end_ns = snapshot.values["end_ns"]

    async def run(self, ctx: Context) -> None:
        """Gives the frames, paced or not, until the file ends."""
        base_ns: int | None = None  # what to add to a time in the file
        start_media_ns = start_now_ns = reported_ns = 0
        passes, given = 0, 0
        while True:
            found = await ctx.in_thread(self._next_frames)
            if not found:
                if given == 0:
                    raise PeerError(f"nothing in {self.config.path} can be decoded")
                if not self.config.loop:
                    return
                await ctx.in_thread(self._rewind)
                passes, given, base_ns = passes + 1, 0, None
            for kind, raw in found:
                if base_ns is None:
                    if passes == 0:
                        start_media_ns, start_now_ns = max(ctx.media_ns(), self._end_ns), ctx.now_ns()
                        self._end_ns = start_media_ns
                    base_ns = self._end_ns - raw.time_ns
                frame = raw.replace(time_ns=base_ns + raw.time_ns)
                given += 1
                self._end_ns = max(self._end_ns, frame.time_ns + (frame.duration_ns or 0))
                if self.config.pace == "realtime":
                    await ctx.sleep_until_ns(start_now_ns + frame.time_ns - start_media_ns)
                await ctx.emit(self._emit(kind, frame))
                if frame.time_ns - reported_ns >= _REPORT_EVERY_NS:
                    reported_ns = frame.time_ns
                    ctx.report(seconds=round((frame.time_ns - start_media_ns) / NS_PER_S), broken=self._file.broken)

    def _emit(self, kind: Kind, frame: VideoFrame | AudioFrame) -> Emit[VideoFrame] | Emit[AudioFrame]:
        return self.video(frame) if isinstance(frame, VideoFrame) else self.audio(frame)

    def _next_frames(self) -> list[tuple[Kind, VideoFrame | AudioFrame]]:
        """The next frame, or a few where nobody waits for a single one; none at the end of the file."""
        frames: list[tuple[Kind, VideoFrame | AudioFrame]] = []
        while len(frames) < (1 if self.config.pace == "realtime" else _FRAMES_AT_ONCE):
            found = self._file.next()
            if found is None:
                break
            frames.append(found)
        return frames

    def _opened(self) -> MediaFile:
        return MediaFile(self._path, self._wants)

    def _wants(self, kind: Kind) -> bool:
        return self.ctx.is_connected(self.video if kind == "video" else self.audio)

    def _rewind(self) -> None:
        self._file.close()
        self._file = self._opened()
