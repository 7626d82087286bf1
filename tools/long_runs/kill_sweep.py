"""A recording that is killed at any moment plays to its last fragment.

    tools/long kill-sweep [--kills 200] [--seed N]

Records in a child process, kills it with SIGKILL once the file has grown to a random size, and has ffprobe and ffmpeg
read every packet of what is left. Three such kills are in the test command.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.nodes.record.test_recorder import decode_errors, kill_while_recording, probe


def main() -> int:
    """Kill as often as asked; the first file that does not play is kept and named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="how many")
    parser.add_argument("--seed", type=int, help="seed of the sizes; default: a new one")
    wanted = parser.parse_args()
    seed = wanted.seed if wanted.seed is not None else random.randrange(2**31)
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="kill-sweep-"))
    fewest = sys.maxsize
    for kill in range(wanted.kills):
        path = folder / f"{kill}.mp4"
        size = chance.randrange(12_000, 600_000)
        kill_while_recording(path, after_bytes=size)
        problem = decode_errors(path)
        packets = len(probe(path)["video"]["times"]) if not problem else 0
        if problem or not packets:
            print(f"seed {seed}, kill {kill + 1} at {size} bytes: {path} does not play: {problem or 'no pictures'}")
            return 1
        fewest = min(fewest, packets)
        path.unlink()
        if (kill + 1) % 10 == 0:
            print(f"{kill + 1} kills, all play; fewest pictures {fewest}", flush=True)
    folder.rmdir()
    print(f"{wanted.kills} kills (seed {seed}): every recording plays; fewest pictures {fewest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
