#!/usr/bin/env python3
"""Runs a command on a machine that has cameras: Debian's own kernel in qemu, over this machine's files.

The kernel is downloaded from Debian's archive and never installed; its `vivid` driver makes virtual cameras, and
snd-aloop a sound card. The guest sees this machine's files read-only, so that programs and virtual environments just
run; what it writes under /run stays in the guest. The command's output and exit status come back.

    tools/camera_vm.py -- python3 -c 'import os; print(os.listdir("/dev"))'

Needs on Debian: apt-get install qemu-system-x86 busybox-static kmod zstd. No KVM: it runs anywhere, a few times slower.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import lzma
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flowstream" / "camera-vm"
VIVID = "n_devs=1 node_types=0x1 input_types=0x00 num_inputs=1"  # one webcam
_ROOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
_UNPACKED = (  # under /lib or, from Debian 13 on, /usr/lib
    "./boot/vmlinuz-*", "*lib/modules/*/modules.*", "*lib/modules/*/kernel/drivers/media/*",
    "*lib/modules/*/kernel/drivers/virtio/*", "*lib/modules/*/kernel/drivers/i2c/*",
    "*lib/modules/*/kernel/drivers/usb/*", "*lib/modules/*/kernel/drivers/char/*", "*lib/modules/*/kernel/fs/*",
    "*lib/modules/*/kernel/net/9p/*", "*lib/modules/*/kernel/lib/*", "*lib/modules/*/kernel/sound/*",
)  # fmt: skip
_BUSYBOX = Path("/bin/busybox")
_STATUS, _RESULT = "status", "result"
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
while read -r line; do $line || echo "[vm] failed: $line"; done < /root-modules
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=1048576 root /new || poweroff -f
while read -r line; do $line || echo "[vm] failed: $line"; done < /modules
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/shm /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t devpts pts /new/dev/pts
mount -t tmpfs run /new/run
mkdir -p /new/run/out
mount -t 9p -o trans=virtio,version=9p2000.L,rw,msize=262144 out /new/run/out
ifconfig lo 127.0.0.1 up
dmesg -n 1
chroot /new /bin/sh /run/out/command
echo $? > /new/run/out/status
poweroff -f
"""


class VmError(Exception):
    """The machine could not be made or did not come to an end; says why."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Debian's kernel, unpacked: ``image`` to boot, ``root`` holds lib/modules/``release``."""

    image: Path
    root: Path
    release: str


def missing_programs() -> list[str]:
    """What this machine lacks to run it, as Debian's package names."""
    programs = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "modprobe": "kmod"}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [package for program, package in programs.items() if shutil.which(program, path=path) is None]


def prepare_kernel(cache: Path = CACHE) -> Kernel:
    """Downloads and unpacks the kernel, once for a cache. Raises VmError when it is not to be had."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        image = cache / "vmlinux"
        if not image.exists():
            try:
                _download(cache)
            except VmError:  # apt's lists are missing or old
                if os.geteuid() != 0:
                    raise
                _run("apt-get", "-qq", "update")
                _download(cache)
            (packed,) = (cache / "boot").glob("vmlinuz-*")
            _run("depmod", "-b", str(cache), packed.name.removeprefix("vmlinuz-"))
            unfinished = cache / "vmlinux.part"
            unfinished.write_bytes(unpack_image(packed.read_bytes()))
            unfinished.rename(image)
        (modules,) = (cache / "lib" / "modules").iterdir()
        return Kernel(image, cache, modules.name)


def _download(cache: Path) -> None:
    depends = _run("apt-cache", "depends", "linux-image-amd64")
    package = next((line.split()[1] for line in depends.splitlines() if "Depends:" in line), None)
    if package is None:
        raise VmError("apt knows no kernel; run apt-get update first")
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        _run("apt-get", "-qq", "download", package, cwd=folder)
        (archive,) = Path(folder).glob("*.deb")
        stream = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE)
        in_lib = "--transform=s,^./usr/lib/,./lib/,"
        _run("tar", "-x", "-C", str(cache), in_lib, "--wildcards", *_UNPACKED, stdin=stream.stdout)
        assert stream.stdout is not None
        stream.stdout.close()
        stream.wait()


def _run(*command: str, cwd: str | None = None, stdin: object = None) -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=stdin, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
        )  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise VmError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise VmError(f"{shlex.join(command)} failed: {error.stderr.strip()}") from error
    return str(done.stdout)


def unpack_image(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage (Linux boot protocol 2.08): qemu boots it without the slow unpacking inside."""
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    packed = image[start : start + length]
    if packed.startswith(b"\xfd7zXZ\0"):
        unpacked = lzma.LZMADecompressor().decompress(packed)
    elif packed.startswith(b"\x28\xb5\x2f\xfd"):  # the last four bytes are the size, which is zstd's no more
        if shutil.which("zstd") is None:
            raise VmError("zstd is not installed")
        unpacked = subprocess.run(["zstd", "-dcq"], input=packed[:-4], stdout=subprocess.PIPE, check=True).stdout
    else:
        raise VmError("the kernel is packed neither by xz nor by zstd, as Debian's are")
    if not unpacked.startswith(b"\x7fELF"):
        raise VmError("there is no ELF kernel in the image")
    return unpacked


def _insmods(kernel: Kernel, modules: Sequence[tuple[str, str]], done: set[str]) -> Iterator[tuple[str, Path]]:
    """The insmod line and the file of each module and what it needs, in order, each once."""
    for name, arguments in modules:
        shown = _run("modprobe", "-d", str(kernel.root), "-S", kernel.release, "--show-depends", name)
        for line in shown.splitlines():
            kind, _, rest = line.partition(" ")
            file = Path(rest.split()[0]) if kind == "insmod" else None
            if file is None or file.name in done:
                continue
            done.add(file.name)
            own = arguments if file.name.split(".")[0].replace("-", "_") == name.replace("-", "_") else ""
            yield f"insmod /m/{file.name.removesuffix('.xz')} {own}".rstrip(), file


def initramfs(kernel: Kernel, modules: Sequence[tuple[str, str]]) -> bytes:
    """What boots first: busybox, the modules, and a script that mounts this machine's files and runs the command."""
    done: set[str] = set()
    root = list(_insmods(kernel, [(name, "") for name in _ROOT_MODULES], done))
    more = list(_insmods(kernel, modules, done))
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in ("bin", "m", "new", "proc", "dev")]
    files += [
        ("bin/busybox", 0o100755, _BUSYBOX.read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        ("root-modules", 0o100644, "".join(f"{line}\n" for line, _ in root).encode()),
        ("modules", 0o100644, "".join(f"{line}\n" for line, _ in more).encode()),
    ]
    for _, file in root + more:
        module = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
        files.append((f"m/{file.name.removesuffix('.xz')}", 0o100644, module))
    return b"".join(_cpio_entry(number, *entry) for number, entry in enumerate([*files, ("TRAILER!!!", 0, b"")], 1))


def _cpio_entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One file of a cpio archive in the "newc" form (Linux Documentation/driver-api/early-userspace)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def run(
    command: Sequence[str],
    *,
    timeout_s: float = 300,
    vivid: str = VIVID,
    modules: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    cache: Path = CACHE,
    output: int | None = None,
) -> int:
    """Runs the command in the guest, in this folder, and gives its exit status; its output goes to ``output``.

    Arguments: seconds it may take, parameters of the vivid module, further modules, environment variables.
    Raises VmError when the guest could not be made, or gave no status within ``timeout_s``.
    """
    return run_for_result(
        command,
        timeout_s=timeout_s,
        vivid=vivid,
        modules=modules,
        environment=environment,
        cache=cache,
        output=output,
        result=False,
    )[0]


def run_for_result(
    command: Sequence[str],
    *,
    timeout_s: float = 300,
    vivid: str = VIVID,
    modules: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    cache: Path = CACHE,
    output: int | None = None,
    result: bool = True,
) -> tuple[int, str]:
    """As ``run``; with ``result``, the command gets the name of a file as its last argument, whose text comes back."""
    if missing := missing_programs():
        raise VmError(f"not installed: {', '.join(missing)}")
    kernel = prepare_kernel(cache)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="camera-vm-")))
        out = folder / "out"
        out.mkdir()
        started = folder / "initramfs"
        started.write_bytes(initramfs(kernel, [("vivid", vivid), ("snd-aloop", ""), *((m, "") for m in modules)]))
        variables = {"HOME": "/run", "TMPDIR": "/run", "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        words = [*command, f"/run/out/{_RESULT}"] if result else command
        (out / "command").write_text(f"cd {shlex.quote(os.getcwd())}\n{exports}exec {shlex.join(words)}\n")
        machine = subprocess.Popen(_qemu(kernel, started, out), stdin=subprocess.DEVNULL, stdout=output)
        try:
            machine.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise VmError(f"the machine did not come to an end within {timeout_s:g} s") from error
        finally:
            if machine.poll() is None:
                machine.kill()
                machine.wait()
        try:
            status = int((out / _STATUS).read_text())
        except (FileNotFoundError, ValueError) as error:
            raise VmError("the machine ended without an exit status of the command") from error
        file = out / _RESULT
        return status, file.read_text() if file.exists() else ""


def _qemu(kernel: Kernel, started: Path, out: Path) -> list[str]:
    share = "security_model=none"
    boot = "console=ttyS0 quiet loglevel=3 panic=-1 nokaslr mitigations=off tsc=reliable random.trust_cpu=on"
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-M", "q35", "-m", "1536"),
        *("-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(started), "-append", boot),
        *("-virtfs", f"local,path=/,mount_tag=root,{share},readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={out},mount_tag=out,{share}", "-device", "virtio-rng-pci"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--vivid", default=VIVID, metavar="PARAMETERS", help="parameters of the vivid module")
    parser.add_argument("--module", action="append", default=[], help="another kernel module to load")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name a command after --")
    try:
        return run(command, timeout_s=options.timeout, vivid=options.vivid, modules=options.module)
    except VmError as error:
        print(f"camera_vm: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
