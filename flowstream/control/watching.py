"""How saves are noticed: the system tells, or the files are looked at again and again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from flowstream.runtime import reload
from flowstream.runtime.reload import Watch, watch_folders

WatchMode = Literal["auto", "poll", "off"]

REMOTE = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "ncpfs", "glusterfs", "fuse.sshfs", "fuse.glusterfs",
     "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "vboxsf", "virtiofs", "fuse.vmhgfs-fuse", "prl_fs")
)  # fmt: skip
"""File systems where somebody else may change a file without this machine being told."""

MOUNTS = Path("/proc/self/mountinfo")


def watching(mode: WatchMode, files: Iterable[str]) -> Watch:
    """The way to notice saves of these files; ``auto`` looks again and again where the system would not tell."""
    if mode == "poll" or (mode == "auto" and any(is_remote(file) for file in files)):
        return reload.watching("poll")
    return watch_folders


def is_remote(file: str, mounts: Path = MOUNTS) -> bool:
    """Whether a file lies on another machine, as far as the system says. Linux only."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    path = os.path.realpath(file)
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        if len(point) >= len(best) and (path == point or path.startswith(f"{point.rstrip('/')}/")):
            best, kind = point, after.split(" ")[0]
    return kind in REMOTE
