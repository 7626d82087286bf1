"""Which node types there are: packs by entry point or folder, loaded only when a graph names one of their types.

A pack is a module. It lists its node types in ``__all__``, or, to stay lazy inside too, in a mapping
``NODES = {"type-id": "module:Name"}``. Entry-point group ``flowstream.nodes``: the name is the namespace, the value the
module. The built-ins come by the same door under the namespace ``flowstream``, whose ids are written bare.

A module may say ``NODE_API = 1`` on a line of its own: which version of the node API it is written for. That is read
before the module is imported, so that a pack for another version is a sentence and not an ImportError.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from flowstream.errors import PackError
from flowstream.node.base import Need, Node
from flowstream.node.capability import Capability
from flowstream.node.folder import Folder, without_digest
from flowstream.node.function import FunctionNode
from flowstream.node.loading import load_ahead

GROUP = "flowstream.nodes"
BUILT_IN = "flowstream"

NODE_API = 1
"""The version of what node types are written against. It grows when a pack has to be changed to go on working."""

_DECLARED_API = re.compile(r"^NODE_API(?:\s*:[^=\n]+)?\s*=\s*(\d{1,9})\s*(?:#.*)?$", re.MULTILINE)


class UnknownType(PackError):  # noqa: N818
    """Raised for a type id that no pack has; ``close`` are the known ids that look like it."""

    def __init__(self, type_id: str, message: str, *, close: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.type_id = type_id
        self.close = close


@dataclass(frozen=True, slots=True)
class Pack:
    """Where a namespace's node types come from. ``source`` says it to people."""

    namespace: str
    source: str
    module: str | None = None
    folder: Path | None = None


@dataclass(slots=True)
class _Loaded:
    types: dict[str, type[Node[Any]] | str] = field(default_factory=dict)
    failures: list[PackError] = field(default_factory=list)


class Registry:
    """The node types within reach. Loading is lazy, explicit and remembers failures by pack."""

    def __init__(self, packs: Iterable[Pack] = ()) -> None:
        self._packs: dict[str, list[Pack]] = {}
        for pack in packs:
            self._packs.setdefault(pack.namespace, []).append(pack)
        self._loaded: dict[str, _Loaded] = {}

    @classmethod
    def installed(cls, folders: Iterable[Path] = ()) -> Registry:
        """The packs that are installed here, and those in ``folders`` (folder name = namespace, ``_`` as ``-``).

        Raises PackError for a folder that is not there.
        """
        packs = [
            Pack(entry.name, _distribution_of(entry), module=entry.value)
            for entry in importlib.metadata.entry_points(group=GROUP)
        ]
        for folder in folders:
            if not folder.is_dir():
                raise PackError(f"--nodes {folder}: there is no such folder")
            namespace = folder.resolve().name.replace("_", "-")  # as Python's folders are written
            packs.append(Pack(namespace, str(folder), folder=folder.resolve()))
        return cls(packs)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of all packs, loaded or not."""
        return tuple(sorted(self._packs))

    @property
    def packs(self) -> tuple[Pack, ...]:
        """All packs, loaded or not, those that claim the same namespace included."""
        return tuple(pack for packs in self._packs.values() for pack in packs)

    def get(self, type_id: str) -> type[Node[Any]]:
        """The node type of an id, importing its pack if need be.

        Raises UnknownType when no pack has it, PackError when its pack cannot be loaded.
        """
        namespace = type_id.partition("/")[0] if "/" in type_id else BUILT_IN
        loaded = self._load(namespace)
        found = loaded.types.get(type_id)
        if isinstance(found, str):
            found = loaded.types[type_id] = _resolve(self._packs[namespace][0], type_id, found)
        if found is not None:
            return found
        if loaded.failures:
            raise loaded.failures[0]
        if namespace not in self._packs:
            known = difflib.get_close_matches(namespace, self._packs, 1)
            hint = f"did you mean {known[0]}/{type_id.partition('/')[2]}?" if known else (
                f"install the pack that brings it, or pass its folder: --nodes path/to/{namespace}"
            )  # fmt: skip
            raise UnknownType(type_id, f"no pack named {namespace!r} is installed", hint=hint)
        close = tuple(difflib.get_close_matches(type_id, loaded.types, 3, 0.5))
        hint = f"did you mean {close[0]}?" if close else "`flowstream nodes` lists what there is"
        raise UnknownType(type_id, f"there is no node type {type_id!r}", close=close, hint=hint)

    def types(self) -> Iterator[tuple[str, type[Node[Any]] | PackError]]:
        """Every type id with its node type, or with the error that keeps it from loading; loads every pack.

        A broken pack is given under its namespace and hides no other.
        """
        for namespace in self.namespaces:
            loaded = self._load(namespace)
            for failure in loaded.failures:
                yield namespace, failure
            for type_id in sorted(loaded.types):
                try:
                    yield type_id, self.get(type_id)
                except PackError as error:
                    yield type_id, error

    def capabilities(self, *, afresh: bool = False) -> Iterator[Capability]:
        """What this machine can do, as every pack tells it that has something to tell; a pack that fails is told too.

        ``afresh`` looks again where something is kept from before.
        """
        for pack in self.packs:
            for module in _modules(pack, []):
                for target in getattr(module, "CAPABILITIES", ()):
                    try:
                        place, _, name = str(target).partition(":")
                        yield from getattr(importlib.import_module(place), name)(afresh)
                    except Exception as error:  # noqa: BLE001 - whatever a pack raises is its failure, not ours
                        yield Capability("packs", pack.namespace, "broken", detail=f"{target}: {cause_of(error)}")

    def _load(self, namespace: str) -> _Loaded:
        if namespace not in self._loaded:
            self._loaded[namespace] = self._loaded_now(namespace)
        return self._loaded[namespace]

    def _loaded_now(self, namespace: str) -> _Loaded:
        loaded = _Loaded()
        packs = self._packs.get(namespace, [])
        if len(packs) > 1:
            loaded.failures.append(
                PackError(
                    f"two packs claim the namespace {namespace!r}: {packs[0].source} and {packs[1].source}",
                    hint="uninstall one of them, or rename the folder",
                )
            )
            return loaded
        for pack in packs:
            try:
                for module in _modules(pack, loaded.failures):
                    try:
                        loaded.types.update(_declared(pack, module))
                    except PackError as error:
                        loaded.failures.append(error)
            except PackError as error:  # none of it is to be relied on
                return _Loaded(failures=[error])
        return loaded


def _distribution_of(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _failure(pack: Pack, what: str, error: BaseException) -> PackError:
    cause = without_digest(cause_of(error))
    failure = PackError(f"node pack {pack.namespace!r} ({pack.source}) does not load: {what}: {cause}")
    failure.__cause__ = error
    return failure


def cause_of(error: BaseException) -> str:
    """An exception in one line: its own words, with the type where they say nothing by themselves."""
    text = " ".join(str(error).split())
    if isinstance(error, ImportError | SyntaxError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _modules(pack: Pack, failures: list[PackError]) -> Iterator[ModuleType]:
    if pack.module is not None:
        try:
            _require_api(pack, _source_of(pack.module))
            yield importlib.import_module(pack.module)
        except PackError as error:
            failures.append(error)
        except Exception as error:  # noqa: BLE001 - whatever a pack raises is its failure, not ours
            failures.append(_failure(pack, pack.module, error))
        return
    assert pack.folder is not None
    try:
        folder = Folder(pack.namespace, pack.folder)
    except OSError as error:
        raise _failure(pack, error.filename or pack.source, error) from error
    for stem, source in folder.files.items():
        if stem == "conftest" or stem.startswith(("_", "test_")):
            continue
        try:
            _require_api(pack, source, f"{stem}.py")
            yield folder.load(stem)
        except PackError as error:
            failures.append(error)
        except Exception as error:  # noqa: BLE001
            failures.append(_failure(pack, f"{stem}.py", error))
    folder.require_fresh()


def _source_of(module: str) -> bytes:
    """The text of a module that has yet to be imported; nothing where it is not a file."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return b""
    return Path(spec.origin).read_bytes()


def _require_api(pack: Pack, source: bytes, file: str = "") -> None:
    """Raises PackError when the text of a pack's module says that it is for another version of the node API."""
    found = _DECLARED_API.search(source.decode("utf-8", "replace"))
    if found is None or int(found[1]) == NODE_API:
        return
    wanted = int(found[1])
    said = f"{file} of " if file else ""
    name = pack.source.partition(" ")[0]
    hint = (
        "install a newer flowstream"
        if wanted > NODE_API
        else "bring the files up to date, or install an older flowstream"
        if pack.folder is not None
        else f"install a newer {name}, or an older flowstream"
    )
    raise PackError(
        f"{said}node pack {pack.namespace!r} ({pack.source}) is written for version {wanted} of the node API, "
        f"and this flowstream has version {NODE_API}",
        hint=hint,
    )


def _declared(pack: Pack, module: ModuleType) -> Mapping[str, type[Node[Any]] | str]:
    lazy = getattr(module, "NODES", None)
    if isinstance(lazy, Mapping):
        found: dict[str, type[Node[Any]] | str] = dict(lazy)
    else:
        listed = getattr(module, "__all__", None)
        names = listed if listed is not None else [n for n in vars(module) if not n.startswith("_")]
        members = [getattr(module, name, None) for name in names]
        found = {
            cls.type_id: cls
            for cls in map(_node_type, members)
            if cls is not None and cls.type_id and (listed is not None or cls.__module__ == module.__name__)
        }
    for type_id in found:
        namespace = type_id.partition("/")[0] if "/" in type_id else BUILT_IN
        if namespace != pack.namespace:
            raise PackError(
                f"node pack {pack.namespace!r} ({pack.source}) declares {type_id!r}, which is outside its namespace",
                hint=f"name it {pack.namespace}/{type_id.rpartition('/')[2]}",
            )
    return found


def _node_type(member: Any) -> type[Node[Any]] | None:
    if isinstance(member, FunctionNode):
        return member.node_type
    return member if isinstance(member, type) and issubclass(member, Node) else None


def _resolve(pack: Pack, type_id: str, target: str) -> type[Node[Any]]:
    module, _, name = target.partition(":")
    try:
        found = _node_type(getattr(importlib.import_module(module), name))
    except Exception as error:
        raise _failure(pack, target, error) from error
    if found is None or found.type_id != type_id:
        raise PackError(f"node pack {pack.namespace!r}: {target} is not the node type {type_id!r}")
    return found


def missing_needs(node_type: type[Node[Any]]) -> tuple[Need, ...]:
    """The libraries a node type cannot do without that are not installed; nothing is imported to find out."""
    return tuple(need for need in node_type.needs if not (need.optional or _is_installed(need.module)))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def import_needs(node_type: type[Node[Any]]) -> None:
    """Imports what a node type needs. Raises PackError with the cause when a library is missing or broken."""
    for need in node_type.needs:
        try:
            load_ahead(need.module)
            importlib.import_module(need.module)
        except Exception as error:
            if need.optional:
                continue
            if not _is_installed(need.module):
                hint = f"pip install {need.install}"
                raise PackError(
                    f"{node_type.type_id} needs {need.module}, which is not installed", hint=hint
                ) from error
            raise PackError(
                f"{node_type.type_id} needs {need.module}, which is installed but does not load: {cause_of(error)}",
                hint=_remedy(need, error),
            ) from error


def _remedy(need: Need, error: Exception) -> str:
    text = str(error)
    if "cannot open shared object file" in text:
        library = text.partition(":")[0]
        if library.startswith("libGL"):
            return "apt install libgl1, or pip install opencv-python-headless in place of opencv-python"
        return f"install the system package that brings {library}"
    return f"pip install --force-reinstall {need.install}"
