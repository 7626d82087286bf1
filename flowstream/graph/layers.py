"""Several files as one graph: what stands in an upper layer changes what stands below it.

Maps merge, everything else is replaced. An explicit ``null`` takes away what is below. A node of another type replaces
the node below as a whole, and ``from`` and ``inputs`` replace one another, since both say where the node takes from.
"""

from __future__ import annotations

from flowstream.graph.diagnostics import Findings
from flowstream.graph.load import Entry, Map, Scalar, Value, weight_of

_SOURCES = ("from", "inputs")
_KINDS = ("type", "use")
_ANY = "*"
_NODE = ("nodes", _ANY)
_VARIABLE = ("vars", _ANY)


def merge(lower: Map, upper: Map, findings: Findings) -> Map:
    """The upper layer over the lower one; neither is changed."""
    return _Merging(findings).maps(lower, upper, ())


def is_removal(value: Value) -> bool:
    """Whether a value is a written ``null`` (or ``~``), and not just left empty."""
    return isinstance(value, Scalar) and value.value is None and value.plain and bool(value.text) and not value.broken


class _Merging:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def maps(self, lower: Map, upper: Map, path: tuple[str, ...]) -> Map:
        entries = dict(lower.entries)
        if path[:1] == ("nodes",) and len(path) == 2:
            if self._is_another(lower, upper, path[1]):
                return upper
            for mine, other in (_SOURCES, _SOURCES[::-1]):
                if mine in upper.entries and not is_removal(upper.entries[mine].value):
                    entries.pop(other, None)
        for key, entry in upper.entries.items():
            below = entries.get(key)
            if is_removal(entry.value):
                if below is None:
                    self._removes_nothing(entry, lower, path)
                entries.pop(key, None)
            elif below is None:
                entries[key] = entry
            else:
                entries[key] = Entry(below.key, self._value(below.value, entry.value, (*path, key)))
        merged = Map(lower.span, entries, is_damaged=lower.is_damaged or upper.is_damaged)
        merged.weight = weight_of(merged)
        return merged

    def _value(self, lower: Value, upper: Value, path: tuple[str, ...]) -> Value:
        if path[:1] == ("vars",) and len(path) == 2 and isinstance(lower, Map) != isinstance(upper, Map):
            lower, upper = _declaration(lower), _declaration(upper)
        if isinstance(lower, Map) and isinstance(upper, Map):
            return self.maps(lower, upper, path)
        return upper

    def _is_another(self, lower: Map, upper: Map, id_: str) -> bool:
        """Whether the upper layer says that the node is something else; that is said."""
        below = next((lower.entries[kind] for kind in _KINDS if kind in lower.entries), None)
        above = next((upper.entries[kind] for kind in _KINDS if kind in upper.entries), None)
        if below is None or above is None:
            return False
        a, b = below.value, above.value
        if not isinstance(a, Scalar) or not isinstance(b, Scalar) or b.value is None:
            return False
        if (below.key.value, a.value) == (above.key.value, b.value):
            return False
        self._findings.add(
            "FS133", b.span, f"{id_} is {b.text} here and {a.text} below, so nothing of what is below is kept", None,
            [(a.span, f"{id_} is {a.text} here")],
        )  # fmt: skip
        return True

    def _removes_nothing(self, entry: Entry, lower: Map, path: tuple[str, ...]) -> None:
        name = str(entry.key.value)
        close = self._findings.guess(name, lower.entries)
        where = f" of {path[-1]}" if path else ""
        self._findings.add(
            "FS134", entry.key.span, f"{name}{where} is taken away, but no layer below has it",
            f"did you mean {close}?" if close else "take the line out",
        )  # fmt: skip


def _declaration(value: Value) -> Value:
    """``name: value`` of ``vars:`` in its long form, ``name: {default: value}``."""
    if isinstance(value, Map):
        return value
    key = Scalar(value.span, "default", "default")
    return Map(value.span, {"default": Entry(key, value)})
