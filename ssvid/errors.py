"""What users meet when something is wrong: one paragraph with name, value, rule and way out. Exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class SsvidError(Exception):
    """A mistake that the user can fix. The command line prints it as one paragraph and exits with 2.

    Attributes:
        is_shared: all processes of a run raise it together, and the first tells.
    """

    exit_code = 2
    is_shared = False


class RecipeError(SsvidError):
    """A recipe, an override or an option is wrong. Lists every problem found, not only the first."""


class OptionError(RecipeError):
    """Options of a task cannot work.

    Args:
        task: its name.
        options: the names of its options.
        problems: one text each; where it begins with the name of an option (``crop ('hole') must be one of square, whole``)
            the whole key and a way out are added.
        group: what stands before these names in the recipe.
    """

    def __init__(
        self, task: str, options: Iterable[str], problems: Iterable[str], group: str = "task.options."
    ) -> None:
        self.task, self.options, self.problems, self.group = task, tuple(options), tuple(problems), group
        super().__init__(task, self.options, self.problems, group)

    def __str__(self) -> str:
        return "\n".join([f"task {self.task}: {self._told(self.problems[0])}", *map(self._told, self.problems[1:])])

    def _told(self, problem: str) -> str:
        name = problem.split(maxsplit=1)[0]
        return f"{self.group}{problem}. Set {self.group}{name}=..." if name in self.options else f"{problem}."

    def within(self, group: str) -> OptionError:
        """The same where the options stand somewhere else in the recipe."""
        return OptionError(self.task, self.options, self.problems, group)


class DataError(SsvidError):
    """A folder, list or manifest cannot be used."""


class CheckpointError(SsvidError):
    """A checkpoint or export is of another format or architecture, or damaged."""


class PluginError(SsvidError):
    """A task or backbone cannot be found, clashes with another, or breaks its contract."""


class RunFolderError(SsvidError):
    """A run folder exists, is in use, or does not fit the recipe."""


class DiskFull(SsvidError):
    """There is no room for a file: the disk is full, a quota or a limit is reached."""


class DecodeError(SsvidError):
    """A video cannot be read.

    Args:
        path: the file.
        what: what was tried and what came of it ("open", "frame 17 of 40").
        cause: the decoder's own words or exception.
    """

    def __init__(self, path: str, what: str, cause: BaseException | str | None = None) -> None:
        self.path = str(path)
        self.what = what
        self.cause = (
            None if cause is None else (cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}")
        )
        super().__init__(self.path, self.what, self.cause)

    @property
    def reason(self) -> str:
        """What went wrong, without the file's name."""
        return f"{self.what} ({self.cause})" if self.cause else self.what

    def __str__(self) -> str:
        return f"cannot decode {self.path}: {self.reason}."


def name_some(names: Sequence[str], most: int = 3) -> str:
    """The first names of many: ``a, b, c and 4 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest known names, or the whole list where nothing is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"Known: {', '.join(known)}." if known else "None is known."
    return f"Did you mean {near[0]!r}? {listing}" if near else listing
