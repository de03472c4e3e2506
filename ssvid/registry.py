"""Names for things that plug in: tasks and backbones. Two things of one name are an error that names both."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ssvid.errors import PluginError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class BrokenPlugin:
    """A file on a shelf that failed to import. It is reported by name and hides nothing else."""

    module: str
    reason: str


class Registry:
    """Maps names to classes or functions; fills itself from the entry points of a group when first asked.

    Args:
        kind: what is registered, in messages ("task", "backbone").
        group: entry-point group; each entry point names a shelf, a package whose every module is a plug-in.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self.broken: list[BrokenPlugin] = []
        self._entries: dict[str, Any] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: ``@tasks.register("speediness")``."""

        def add(thing: T) -> T:
            known = self._entries.get(name)
            if known is not None and _origin(known) != _origin(thing):
                raise PluginError(
                    f"{self.kind} name {name!r} is taken twice: by {_origin(known)} and by {_origin(thing)}. "
                    "Rename one of them."
                )
            self._entries[name] = thing
            return thing

        return add

    def get(self, name: str) -> Any:
        """The thing of that name, or a PluginError that names the nearest one and any broken plug-in."""
        self.load()
        if name not in self._entries:
            broken = "".join(f" {b.module} failed to import: {b.reason}." for b in self.broken)
            raise PluginError(f"unknown {self.kind} {name!r}. {did_you_mean(name, self._entries)}{broken}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.load()
        return sorted(self._entries)

    def load(self) -> None:
        """Import every module of every shelf in the group, each in its own try. Does its work once."""
        if self._loaded:
            return
        self._loaded = True
        for entry_point in importlib.metadata.entry_points(group=self.group):
            self.load_shelf(entry_point.value)

    def load_shelf(self, package: str) -> None:
        """Import a package and each of its modules; what fails is kept in ``broken``."""
        shelf = self._import(package)
        for module in pkgutil.iter_modules(getattr(shelf, "__path__", [])):
            if not module.name.startswith("_"):
                self._import(f"{package}.{module.name}")

    def _import(self, module: str) -> Any:
        try:
            return importlib.import_module(module)
        except PluginError:  # two plug-ins of one name: which of them is meant cannot be guessed
            raise
        except Exception as error:  # a stranger's file may fail in any way; it is reported, not hidden
            self.broken.append(BrokenPlugin(module, f"{type(error).__name__}: {error}"))
            return None


def _origin(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
