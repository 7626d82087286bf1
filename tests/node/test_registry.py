"""The registry: lazy, explicit, and honest about packs that do not load."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream import Need, PackError, Sink
from flowstream.node.registry import Pack, Registry, UnknownType, cause_of, import_needs, missing_needs

GOOD = '''
from flowstream import Input, Sink, VideoFrame

class Eye(Sink, type="{namespace}/eye"):
    """Looks."""
    video = Input(VideoFrame)
    def consume(self, frame: VideoFrame) -> None:
        pass
'''


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, and nothing of it afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return file


def module(path: Path, name: str, text: str, namespace: str = "acme") -> Registry:
    write(path / f"{name}.py", text)
    return Registry([Pack(namespace, f"{name} 1.0", module=name)])


def failure(registry: Registry, type_id: str) -> str:
    with pytest.raises(PackError) as caught:
        registry.get(type_id)
    return str(caught.value)


def test_built_ins_come_by_the_same_door() -> None:
    registry = Registry.installed()
    assert "flowstream" in registry.namespaces
    assert registry.get("discard").type_id == "discard"
    assert registry.get("discard") is registry.get("discard")


def test_nothing_is_imported_before_it_is_asked_for(path: Path) -> None:
    registry = module(path, "lazy_pack", GOOD.format(namespace="acme"))
    assert "lazy_pack" not in sys.modules
    registry.get("acme/eye")
    assert "lazy_pack" in sys.modules


def test_a_lazy_index_imports_one_module_only(path: Path) -> None:
    write(path / "indexed" / "__init__.py", "NODES = {'acme/eye': 'indexed.eye:Eye', 'acme/ear': 'indexed.ear:Ear'}")
    write(path / "indexed" / "eye.py", GOOD.format(namespace="acme"))
    write(path / "indexed" / "ear.py", "raise RuntimeError('never asked for')")
    registry = Registry([Pack("acme", "indexed 1.0", module="indexed")])
    assert issubclass(registry.get("acme/eye"), Sink)
    assert "indexed.ear" not in sys.modules
    assert failure(registry, "acme/ear") == (
        "node pack 'acme' (indexed 1.0) does not load: indexed.ear:Ear: RuntimeError: never asked for"
    )


def test_an_index_that_points_elsewhere_is_named(path: Path) -> None:
    write(path / "wrong" / "__init__.py", "NODES = {'acme/ear': 'wrong.eye:Eye', 'acme/no': 'wrong.eye:No'}")
    write(path / "wrong" / "eye.py", GOOD.format(namespace="acme"))
    registry = Registry([Pack("acme", "wrong 1.0", module="wrong")])
    assert failure(registry, "acme/ear") == "node pack 'acme': wrong.eye:Eye is not the node type 'acme/ear'"
    assert "wrong.eye:No: AttributeError: module 'wrong.eye' has no attribute 'No'" in failure(registry, "acme/no")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "invalid syntax (broken_pack.py, line 1)"),
        ("raise Exception", "Exception"),
        ("raise SystemError('two\\nlines')", "SystemError: two lines"),
    ],
)
def test_a_broken_pack_gives_its_own_error(path: Path, text: str, cause: str) -> None:
    registry = module(path, "broken_pack", text)
    expected = f"node pack 'acme' (broken_pack 1.0) does not load: broken_pack: {cause}"
    assert failure(registry, "acme/eye") == expected
    assert failure(registry, "acme/eye") == expected, "remembered, and the same"


def test_a_broken_pack_hides_no_other(path: Path) -> None:
    write(path / "bad_one.py", "1 / 0")
    write(path / "good_one.py", GOOD.format(namespace="good"))
    registry = Registry([Pack("bad", "bad 1", module="bad_one"), Pack("good", "good 1", module="good_one")])
    found = dict(registry.types())
    assert list(found) == ["bad", "good/eye"]
    assert isinstance(found["bad"], PackError)
    assert registry.get("good/eye") is found["good/eye"]


def test_a_broken_type_hides_no_other(path: Path) -> None:
    write(path / "half" / "__init__.py", "NODES = {'acme/ear': 'half.ear:Ear', 'acme/eye': 'half.eye:Eye'}")
    write(path / "half" / "eye.py", GOOD.format(namespace="acme"))
    write(path / "half" / "ear.py", "import no_such_library")
    found = dict(Registry([Pack("acme", "half 1", module="half")]).types())
    assert isinstance(found["acme/ear"], PackError)
    assert isinstance(found["acme/eye"], type)


def test_two_packs_with_one_name(path: Path) -> None:
    write(path / "one.py", GOOD.format(namespace="acme"))
    registry = Registry([Pack("acme", "one 1.0", module="one"), Pack("acme", "/home/me/acme", folder=path)])
    assert failure(registry, "acme/eye") == (
        "two packs claim the namespace 'acme': one 1.0 and /home/me/acme (uninstall one of them, or rename the folder)"
    )


def test_a_type_outside_the_pack_s_own_name(path: Path) -> None:
    registry = module(path, "greedy", GOOD.format(namespace="other"))
    assert failure(registry, "acme/eye") == (
        "node pack 'acme' (greedy 1.0) declares 'other/eye', which is outside its namespace (name it acme/eye)"
    )


def test_only_what_all_names_is_offered(path: Path) -> None:
    hidden = GOOD.format(namespace="acme").replace("Eye", "Hidden").replace("/eye", "/hidden")
    registry = module(path, "picky", "__all__ = ['Eye']\n" + GOOD.format(namespace="acme") + hidden)
    assert [type_id for type_id, _ in registry.types()] == ["acme/eye"]


def test_without_all_imported_types_are_not_offered(path: Path) -> None:
    registry = module(
        path, "plain", "from flowstream_nodes.flow.discard import Discard\n" + GOOD.format(namespace="acme")
    )
    assert [type_id for type_id, _ in registry.types()] == ["acme/eye"]


def test_functions_are_found(path: Path) -> None:
    registry = module(
        path,
        "with_function",
        """
        from flowstream import VideoFrame, node

        @node("acme/same")
        def same(frame: VideoFrame) -> VideoFrame:
            '''Changes nothing.'''
            return frame
        """,
    )
    assert registry.get("acme/same").type_id == "acme/same"


def test_a_folder_is_a_pack(path: Path) -> None:
    folder = path / "my-nodes"
    write(folder / "eye.py", GOOD.format(namespace="my-nodes"))
    write(folder / "_private.py", "1 / 0")
    registry = Registry.installed([folder])
    assert registry.get("my-nodes/eye").__doc__ == "Looks."
    assert "my-nodes" in registry.namespaces


def test_an_edited_file_is_a_new_module(path: Path) -> None:
    folder = path / "mine"
    file = write(folder / "eye.py", GOOD.format(namespace="mine"))
    first = Registry.installed([folder]).get("mine/eye")
    assert Registry.installed([folder]).get("mine/eye") is first
    file.write_text(file.read_text().replace("Looks.", "Looks twice."))
    second = Registry.installed([folder]).get("mine/eye")
    assert (first.__doc__, second.__doc__) == ("Looks.", "Looks twice.")


def test_a_broken_file_in_a_folder_is_named_and_hides_no_other(path: Path) -> None:
    folder = path / "mine"
    write(folder / "bad.py", "import no_such_library")
    write(folder / "eye.py", GOOD.format(namespace="mine"))
    registry = Registry.installed([folder])
    assert registry.get("mine/eye").type_id == "mine/eye"
    assert failure(registry, "mine/ear") == (
        f"node pack 'mine' ({folder}) does not load: bad.py: No module named 'no_such_library'"
    )
    write(folder / "bad.py", "x = 1")
    assert Registry.installed([folder]).get("mine/eye")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"--nodes .*/nowhere: there is no such folder"):
        Registry.installed([tmp_path / "nowhere"])


def test_unknown_types_suggest_what_was_meant() -> None:
    registry = Registry.installed()
    with pytest.raises(UnknownType) as caught:
        registry.get("test-patern")
    assert str(caught.value) == "there is no node type 'test-patern' (did you mean test-pattern?)"
    assert caught.value.close[0] == "test-pattern"
    assert "`flowstream nodes` lists what there is" in failure(registry, "zzzzzz")


def test_unknown_packs_suggest_what_was_meant(path: Path) -> None:
    registry = module(path, "lazy_pack", GOOD.format(namespace="acme"))
    assert failure(registry, "acne/eye") == "no pack named 'acne' is installed (did you mean acme/eye?)"
    assert failure(registry, "elsewhere/eye") == (
        "no pack named 'elsewhere' is installed "
        "(install the pack that brings it, or pass its folder: --nodes path/to/elsewhere)"
    )


def needing(*needs: Need) -> type[Sink]:
    from flowstream import Input, VideoFrame

    class Needy(Sink, type="acme/needy"):
        """Needs things."""

        video = Input(VideoFrame)

        def consume(self, frame: VideoFrame) -> None: ...

    Needy.needs = needs
    return Needy


def test_needs_are_looked_for_without_importing(path: Path) -> None:
    write(path / "costly.py", "1 / 0")
    kind = needing(Need("costly"), Need("no_such", "no-such-thing"), Need("no_such.inner"))
    assert [need.install for need in missing_needs(kind)] == ["no-such-thing", "no_such.inner"]
    assert "costly" not in sys.modules


def test_a_library_that_a_node_can_do_without_is_loaded_where_it_loads(path: Path) -> None:
    write(path / "lacking.py", "raise ImportError('libfoo.so.2')")
    write(path / "there.py", "value = 1")
    optional = [Need(name, optional=True) for name in ("no_such", "no_such.inner", "lacking", "there")]
    kind = needing(*optional)
    assert missing_needs(kind) == ()
    import_needs(kind)
    assert "there" in sys.modules


def test_a_missing_library_says_what_to_install() -> None:
    with pytest.raises(PackError) as caught:
        import_needs(needing(Need("no_such", "no-such-thing")))
    assert str(caught.value) == "acme/needy needs no_such, which is not installed (pip install no-such-thing)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory",
         "(apt install libgl1, or pip install opencv-python-headless in place of opencv-python)"),
        ("libfoo.so.2: cannot open shared object file: No such file or directory",
         "(install the system package that brings libfoo.so.2)"),
        ("numpy.core.multiarray failed to import", "(pip install --force-reinstall heavy-thing)"),
    ],
)  # fmt: skip
def test_a_library_that_does_not_load_says_why(path: Path, error: str, text: str) -> None:
    write(path / "heavy.py", f"raise ImportError({error!r})")
    with pytest.raises(PackError) as caught:
        import_needs(needing(Need("heavy", "heavy-thing")))
    assert str(caught.value) == f"acme/needy needs heavy, which is installed but does not load: {error} {text}"


def test_needs_that_are_there_are_imported() -> None:
    import_needs(needing(Need("json")))
    assert cause_of(ValueError()) == "ValueError"


def test_a_pack_for_another_version_of_the_node_api_is_not_even_imported(path: Path) -> None:
    newer = module(path, "newer", "NODE_API = 7  # since spring\nfrom flowstream import NotThereYet\n")
    assert failure(newer, "acme/eye") == (
        "node pack 'acme' (newer 1.0) is written for version 7 of the node API, and this flowstream has version 1 "
        "(install a newer flowstream)"
    )
    assert "newer" not in sys.modules
    older = module(path, "older", "NODE_API: int = 0\n")
    assert failure(older, "acme/eye").endswith("(install a newer older, or an older flowstream)")


def test_a_file_for_another_version_of_the_node_api(path: Path) -> None:
    folder = path / "acme"
    write(folder / "eye.py", "NODE_API = 1\n" + GOOD.format(namespace="acme"))
    write(folder / "ear.py", "NODE_API = 0\n1 / 0\n")
    registry = Registry.installed([folder])
    assert issubclass(registry.get("acme/eye"), Sink)
    assert failure(registry, "acme/ear") == (
        f"ear.py of node pack 'acme' ({folder}) is written for version 0 of the node API, and this flowstream has "
        "version 1 (bring the files up to date, or install an older flowstream)"
    )


def test_a_pack_for_this_version_loads(path: Path) -> None:
    registry = module(path, "present", "NODE_API = 1\n" + GOOD.format(namespace="acme"))
    assert issubclass(registry.get("acme/eye"), Sink)
