"""Names for what plugs in: tasks, backbones, readers, evaluations. Two things of one name are an error that names both.

A shelf is a package whose every file is a plug-in: adding one edits no list, and one that is broken hides no other.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from ssvid.errors import PluginError, did_you_mean

T = TypeVar("T")

SWITCH = "SSVID_PLUGINS"  # "0": plug-ins of no package but ours; "a,b": of these packages too; unset or "1": of all
OURS = "ssvid"
# Of all kinds: a package may have plug-ins of one kind alone.
GROUPS = ("ssvid.tasks", "ssvid.backbones", "ssvid.readers", "ssvid.evaluations")


class NameTakenError(PluginError):
    """Two plug-ins register one name. Which of them is meant cannot be guessed, so that nothing runs."""


@dataclass(frozen=True)
class BrokenPlugin:
    """A file on a shelf that failed to import. It is reported by name and hides nothing else.

    package: the installed package whose entry point led here; "" where it is not known.
    """

    module: str
    reason: str
    package: str = ""

    def __str__(self) -> str:
        whose = f" (of package {self.package})" if self.package else ""
        return f"{self.module}{whose} failed to import: {self.reason}"


class Registry:
    """Maps names to classes or functions; fills itself from our shelf and a group of entry points when first asked.

    Args:
        kind: what is registered, in messages ("task", "backbone").
        group: entry-point group; each entry point names a module, or a shelf: a package whose every module is a plug-in.
        shelf: the package inside ``ssvid`` that is our shelf; "" where an entry point of ours names it.

    Attributes:
        broken: files that failed to import. left_out: packages whose plug-ins ``SSVID_PLUGINS`` keeps out.
    """

    def __init__(self, kind: str, group: str, shelf: str = "") -> None:
        self.kind = kind
        self.group = group
        self.shelf = shelf
        self.broken: list[BrokenPlugin] = []
        self.left_out: list[str] = []
        self._entries: dict[str, Any] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: ``@tasks.register("speediness")``. A thing made of a function or class has it as ``__wrapped__``.

        Raises:
            PluginError: it is used without a name.
            NameTakenError: something else has that name.
        """
        if not isinstance(name, str) or not name:
            raise PluginError(
                f"register_{self.kind} ({name!r}) must be given a name. Write @register_{self.kind}('my_{self.kind}')."
            )

        def add(thing: T) -> T:
            known = self._entries.get(name)
            if known is not None and _origin(known) != _origin(thing):
                raise NameTakenError(
                    f"{self.kind} name {name!r} is taken twice: by {_origin(known)} and by {_origin(thing)}. "
                    "Rename or uninstall one of them. "
                    f"{SWITCH}=0 leaves out the plug-ins of other packages; "
                    f"{SWITCH}=PACKAGE,... keeps those of the packages named."
                )
            self._entries[name] = thing
            return thing

        return add

    def get(self, name: str) -> Any:
        """The thing of that name, or a PluginError that names the nearest one and any plug-in broken or left out."""
        self.load()
        if name not in self._entries:
            raise PluginError(f"unknown {self.kind} {name!r}. {self.hint(name)}")
        return self._entries[name]

    def hint(self, name: str, *others: str) -> str:
        """What may be meant by a name that is unknown: the nearest one, of ``others`` too; what is broken or left out."""
        self.load()
        hints = [did_you_mean(name, (*self._entries, *others)), *(f"{plugin}." for plugin in self.broken)]
        if self.left_out:
            hints.append(f"{SWITCH}={os.environ.get(SWITCH)} leaves out: {', '.join(self.left_out)}.")
        return " ".join(hints)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.load()
        return sorted(self._entries)

    def load(self) -> None:
        """Import every module of our shelf and of those in the group, each in its own try. Does its work once.

        Raises:
            NameTakenError: two plug-ins have one name; again at every call, for nothing can be trusted then.
            PluginError: ``SSVID_PLUGINS`` names what is not installed.
        """
        if self._loaded:
            return
        self._loaded = True  # before the work: a plug-in may ask for names while it is imported
        self.broken, self.left_out = [], []
        try:
            if self.shelf:
                self.load_shelf(self.shelf, OURS)
            for entry_point in self._admitted():
                self._load_entry_point(entry_point)
        except BaseException:
            self._loaded = False
            raise

    def load_shelf(self, package: str, owner: str = "") -> None:
        """Import a package and each of its modules, those of packages in it too; a module is a shelf of one.

        What fails is kept in ``broken``. Names that begin with ``_`` are passed over.
        """
        shelf = self._guarded(package, lambda: importlib.import_module(package), owner)
        for module in pkgutil.iter_modules(getattr(shelf, "__path__", [])):
            if not module.name.startswith("_"):
                self.load_shelf(f"{package}.{module.name}", owner)

    def _admitted(self) -> list[EntryPoint]:
        """The entry points of the group that ``SSVID_PLUGINS`` lets in; ours always."""
        found = list(importlib.metadata.entry_points(group=self.group))
        word = os.environ.get(SWITCH, "1").strip()
        if word in ("", "1"):
            return found
        wanted = set() if word == "0" else {_canonical(part) for part in word.split(",")}
        _check_wanted(wanted, word)
        admitted = [e for e in found if _package(e) in wanted | {OURS}]
        self.left_out = sorted({_package(e) for e in found if e not in admitted})
        return admitted

    def _load_entry_point(self, entry_point: EntryPoint) -> None:
        owner = _package(entry_point)
        if entry_point.value.isascii() and all(part.isidentifier() for part in entry_point.value.split(".")):
            self.load_shelf(entry_point.value, owner)
        else:  # "package.module:Class": importing the module registers it, but the class must be there
            self._guarded(entry_point.value, entry_point.load, owner)

    def _guarded(self, module: str, load: Callable[[], Any], owner: str) -> Any:
        """What ``load`` returns; None where it fails, and then nothing of that module stays registered."""
        before = set(self._entries)
        try:
            return load()
        except NameTakenError:
            raise
        except (Exception, SystemExit) as error:  # a stranger's file may fail in any way; it is reported, not hidden
            self.broken.append(BrokenPlugin(module, f"{type(error).__name__}: {error}", owner))
            for name in set(self._entries) - before:
                if inspect.unwrap(self._entries[name]).__module__ == module:
                    del self._entries[name]
            return None


def _origin(thing: Any) -> str:
    thing = inspect.unwrap(thing)
    return f"{thing.__module__}.{thing.__qualname__}"


def _canonical(name: str) -> str:
    """A package's name as it is compared: case, ``_``, ``.`` and ``-`` do not matter."""
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _package(entry_point: EntryPoint) -> str:
    """The installed package that an entry point belongs to: what ``SSVID_PLUGINS`` calls it."""
    return _canonical(entry_point.dist.name if entry_point.dist else entry_point.name)


def _check_wanted(wanted: Iterable[str], word: str) -> None:
    """Raise PluginError where a name is that of no plug-in of any kind."""
    known = {_package(e) for group in GROUPS for e in importlib.metadata.entry_points(group=group)} - {OURS}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise PluginError(
            f"{SWITCH} ({word}) must be 0, 1 or a list of installed packages that bring plug-ins; "
            f"{', '.join(map(repr, unknown))} is none. {did_you_mean(unknown[0], known)}"
        )
