"""The registry over shelves that the tests install as a stranger's package would be: by entry points alone."""

import sys
from pathlib import Path

import pytest

from ssvid.errors import PluginError
from ssvid.registry import BrokenPlugin, NameTakenError, Registry

GROUP = "ssvid.tasks"
THING = "from tests.test_registry import register\n\n@register({name!r})\nclass {cls}:\n    pass\n"
CURRENT: list[Registry] = []


def register(name):
    """What a shelf's files call: the registry of the test that runs."""
    return CURRENT[-1].register(name)


class Made:
    """A thing made of a function, as a reader is."""

    def __init__(self, function):
        self.__wrapped__ = function


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path, where packages can be installed; the modules of the shelves are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SSVID_PLUGINS", raising=False)
    yield tmp_path
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.fixture
def registry():
    """An empty registry of the group in which ``ssvid`` itself has its shelf: names of ours are in it too."""
    CURRENT.append(Registry("task", GROUP))
    yield CURRENT[-1]
    CURRENT.pop()


def install(site: Path, package: str, files: dict[str, str], **entry_points: str) -> None:
    """Write the files of a package and the metadata that an installer leaves behind."""
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))


def thing(name: str, cls: str = "Thing") -> str:
    return THING.format(name=name, cls=cls)


def test_a_module_a_shelf_and_a_class_can_be_entry_points(site, registry):
    files = {
        "alone.py": thing("alone"),
        "shelf/__init__.py": "",
        "shelf/one.py": thing("one"),
        "shelf/two/__init__.py": thing("two"),
        "shelf/_private.py": "raise AssertionError('files with an underscore are not plug-ins')",
        "chosen.py": thing("chosen", "Chosen"),
    }
    install(site, "many", files, a="alone", b="shelf", c="chosen:Chosen")
    assert registry.names() == ["alone", "chosen", "one", "two"]
    assert registry.get("chosen") is sys.modules["chosen"].Chosen
    assert registry.broken == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import a_package_that_nobody_has", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("def f(:", "SyntaxError: "),
        ("raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
        ("raise SystemExit('usage: ...')", "SystemExit: usage: ..."),
        ("from tests.test_registry import register\nregister(print)", "PluginError: register_task .* must be given a name"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_and_hides_nothing_else(site, registry, text, reason):
    files = {"shelf/__init__.py": "", "shelf/a.py": text, "shelf/b.py": thing("good")}
    install(site, "My.Plugins", files, shelf="shelf")
    assert registry.names() == ["good"]
    (broken,) = registry.broken
    assert (broken.module, broken.package) == ("shelf.a", "my-plugins")
    with pytest.raises(
        PluginError,
        match=rf"unknown task 'a'. Known: good. shelf.a \(of package my-plugins\) failed to import: {reason}",
    ):
        registry.get("a")


def test_what_a_file_registers_before_it_fails_is_not_kept(site, registry):
    files = {
        "shelf/__init__.py": "",
        "shelf/a.py": "import shelf.b\n" + thing("half") + "1 / 0\n",
        "shelf/b.py": thing("whole"),
    }
    install(site, "mine", files, shelf="shelf")
    assert registry.names() == ["whole"]
    assert [str(b) for b in registry.broken] == [
        "shelf.a (of package mine) failed to import: ZeroDivisionError: division by zero"
    ]


def test_our_shelf_is_loaded_as_a_strangers_is_and_packages_in_a_shelf_are_shelves(site, monkeypatch):
    files = {
        "ours/__init__.py": "",
        "ours/one.py": thing("one"),
        "ours/bad.py": "1 / 0",
        "ours/big/__init__.py": "",
        "ours/big/two.py": "from ours.big import _inner\n" + thing("two"),
        "ours/big/worse.py": "import a_package_that_nobody_has",
        "ours/big/_inner.py": "",
        "ours/lost/__init__.py": "1 / 0",
        "ours/lost/three.py": thing("three"),
    }
    install(site, "theirs", files | {"theirs.py": thing("four")}, x="theirs")
    CURRENT.append(Registry("task", GROUP, shelf="ours"))
    try:
        assert CURRENT[-1].names() == ["four", "one", "two"]
        assert [b.module for b in CURRENT[-1].broken] == ["ours.bad", "ours.big.worse", "ours.lost"]
        assert {b.package for b in CURRENT[-1].broken} == {"ssvid"}
    finally:
        CURRENT.pop()


def test_a_thing_made_of_a_function_counts_as_that_function(site, registry):
    made = (
        "from tests.test_registry import Made, register\n\n"
        "def read():\n    pass\n\nregister('same')(Made(read))\n"
    )  # fmt: skip
    install(site, "first", {"first.py": made}, x="first")
    install(site, "second", {"second.py": made}, x="second")
    with pytest.raises(NameTakenError, match=r"taken twice: by (first|second)\.read and by (second|first)\.read"):
        registry.names()
    alone = Registry("task", GROUP)
    CURRENT.append(alone)
    (site / "third.py").write_text(made + "1 / 0")
    alone.load_shelf("third")
    CURRENT.pop()
    assert not alone._entries, "what a broken file registered is not kept"


def test_missing_and_malformed_entry_points_are_named(site, registry):
    files = {"alone.py": thing("alone")}
    install(site, "mine", files, a="gone", b="alone:NoSuchClass", c="gone.too", d="alone", e="what is this")
    assert registry.names() == ["alone"]
    assert {b.module: b.reason.partition(":")[0] for b in registry.broken} == {
        "gone": "ModuleNotFoundError",
        "gone.too": "ModuleNotFoundError",
        "alone:NoSuchClass": "AttributeError",
        "what is this": "AttributeError",
    }


def test_a_clash_names_both_origins_and_the_switch_every_time(site, registry):
    install(site, "first", {"first.py": thing("same", "First")}, x="first")
    install(site, "second", {"second.py": thing("same", "Second")}, x="second")
    text = (
        "task name 'same' is taken twice: by (first.First and by second.Second|second.Second and by first.First). "
        "Rename or uninstall one of them. SSVID_PLUGINS=0 leaves out"
    )
    for ask in (registry.names, registry.names, lambda: registry.get("same")):
        with pytest.raises(NameTakenError, match=text):
            ask()


def test_the_switch_ends_a_clash(site, registry, monkeypatch):
    install(site, "first", {"first.py": thing("same", "First")}, x="first")
    install(site, "second_one", {"second.py": thing("same", "Second")}, x="second")
    monkeypatch.setenv("SSVID_PLUGINS", " Second.One ")
    assert registry.names() == ["same"]
    assert registry.get("same").__name__ == "Second"
    assert registry.left_out == ["first"]
    with pytest.raises(PluginError, match=r"unknown task 'other'.* SSVID_PLUGINS= Second.One  leaves out: first\."):
        registry.get("other")


@pytest.mark.parametrize(("word", "names"), [("0", []), ("1", ["a", "b"]), ("", ["a", "b"]), ("pa,pb", ["a", "b"])])
def test_the_switch_takes_all_none_or_a_list(site, registry, monkeypatch, word, names):
    install(site, "pa", {"ma.py": thing("a")}, x="ma")
    install(site, "pb", {"mb.py": thing("b")}, x="mb")
    monkeypatch.setenv("SSVID_PLUGINS", word)
    assert registry.names() == names
    assert ("ma" in sys.modules) == ("a" in names)


def test_the_switch_names_what_is_not_installed(site, registry, monkeypatch):
    install(site, "mine", {"ma.py": thing("a")}, x="ma")
    monkeypatch.setenv("SSVID_PLUGINS", "mine,yours")
    for _ in range(2):
        with pytest.raises(
            PluginError,
            match=r"SSVID_PLUGINS \(mine,yours\) must be 0, 1 or a list of installed packages that bring plug-ins; "
            r"'yours' is none\. .*Known: .*mine",
        ):
            registry.names()


def test_our_own_shelf_stays_whatever_the_switch_says(site, monkeypatch):
    monkeypatch.setenv("SSVID_PLUGINS", "0")
    ours = Registry("task", GROUP)
    assert "ssvid" not in ours.left_out
    assert "ssvid" in {e.dist.name for e in ours._admitted()}


def test_a_file_imported_twice_does_not_clash_with_itself(registry):
    first = type("Same", (), {"__module__": "m"})
    again = type("Same", (), {"__module__": "m"})
    registry.register("same")(first)
    assert registry.register("same")(again) is again


@pytest.mark.parametrize("wrong", [type("Forgotten", (), {}), "", None])
def test_a_registration_without_a_name_is_refused(registry, wrong):
    with pytest.raises(PluginError, match=r"must be given a name. Write @register_task\('my_task'\)"):
        registry.register(wrong)


def test_a_broken_plugin_without_a_package_reads_well():
    assert str(BrokenPlugin("shelf.bad", "KeyError: 'x'")) == "shelf.bad failed to import: KeyError: 'x'"
