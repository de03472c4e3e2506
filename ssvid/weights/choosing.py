"""Which tensors of another program's file are the network: found by the names of its keys, chosen by a word, said in words.

A file may wrap the network in dicts and prefixes, hold it twice (student and teacher, query and key encoder), number its
parts (``nn.Sequential``), and have heads, queues and optimizers beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from ssvid.errors import CheckpointError
from ssvid.weights.checkpoints import is_plain_tensor
from ssvid.weights.strangers import StandIn

# What other programs put before the keys of a network. A network that the file fills only in part must stand under these.
KNOWN_PREFIXES = (
    *("module", "_orig_mod", "model", "network", "net", "backbone", "encoder", "encoder_q", "encoder_k", "trunk"),
    *("base_encoder", "momentum_encoder", "online_encoder", "target_encoder", "online_network", "target_network"),
    *("student", "teacher"),
)
# First words of the keys that hold a classifier: no backbone has it, whole or not.
CLASSIFIERS = ("fc", "classifier", "head", "heads", "cls_head", "last_linear", "linear")
# How many batches a batch norm has seen: old files lack it, and no result depends on it (its momentum is fixed).
BATCH_COUNTER = "num_batches_tracked"
BARE = "."


class Place(NamedTuple):
    """Where in a file a network lies.

    keys: of the dicts around it. prefix: what stands before its keys, "" or with a dot at its end. parts: (number, name)
    of its children, where the file numbers them.
    """

    keys: tuple[str, ...]
    prefix: str
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that stands before a key, word by word."""
        return (*self.keys, *self.prefix.split(".")[:-1])


@dataclass(frozen=True)
class Opened:
    """A file: tensors by the dicts that they lie in, and what else it holds.

    company: key at the top -> class of an object that a stand-in stands for.
    """

    label: str
    dicts: Mapping[tuple[str, ...], Mapping[str, Tensor]]
    top: Sequence[str]
    company: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignWeights:
    """A state dict of another program.

    label: what it is, never a path. undone: the wrappings that were undone, in words and in order.
    """

    label: str
    state: dict[str, Tensor]
    undone: tuple[str, ...] = ()


def open_content(content: Mapping[Any, Any], label: str) -> Opened:
    """Sort what a file holds: its tensors by the nested dicts that they lie in, and the rest."""
    dicts: dict[tuple[str, ...], dict[str, Tensor]] = {}
    for keys, key, value in _walk(content):
        if is_plain_tensor(value):
            dicts.setdefault(keys, {})[key] = value
    company = {str(key): name for key, value in content.items() if (name := _stranger(value))}
    return Opened(label, dicts, tuple(map(str, content)), company)


def _walk(content: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every value in nested dicts with the keys of the dicts above it; a dict that holds itself is entered once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    while waiting:
        keys, inner = waiting.pop(0)
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        for key, value in inner.items():
            if isinstance(value, Mapping):
                waiting.append(((*keys, str(key)), value))
            else:
                yield keys, str(key), value


def _stranger(value: Any) -> str:
    """The class that a stand-in in this value stands for, "" where there is none."""
    waiting, seen = [value], set()
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, StandIn):
            return inner.class_name
        if id(inner) not in seen and isinstance(inner, (Mapping, list, tuple)):
            seen.add(id(inner))
            waiting.extend(inner.values() if isinstance(inner, Mapping) else inner)
    return ""


def choose_network(opened: Opened, own: Mapping[str, Tensor], which: str = "", advice: str = "") -> ForeignWeights:
    """The network in a file, without what stands before its keys; keys beside it keep their names.

    Args:
        own: the network's own state dict.
        which: a word before the keys of the one that is meant; "." for keys with nothing before them.
        advice: how the user says ``which``, the word left out; "" where that cannot be said.

    Raises:
        CheckpointError: there is no tensor, the network is there several times, or ``which`` names none or several.
    """
    places = _places(opened, own)
    if not places:
        return _largest_dict(opened, which)
    whole = [place for place in places if _is_whole(_state_at(opened, place, places), own)]
    if which:
        place = _chosen(opened, places, which)
    elif len(whole or places) > 1:
        raise CheckpointError(_several(opened, whole or places, advice))
    else:
        place = (whole or places)[0]
        unknown = [word for word in place.words[len(place.keys) :] if word not in KNOWN_PREFIXES and not word.isdigit()]
        if not whole and unknown:
            raise CheckpointError(
                f"{opened.label} has keys of the network under the prefix {place.prefix!r}, but not all of them, and "
                f"{unknown[0]!r} is not a usual wrapping ({', '.join(KNOWN_PREFIXES)}). "
                + (
                    f"If it is the network that you mean, say so: {advice}{unknown[0]}."
                    if advice
                    else "Name other weights."
                )
            )
    return ForeignWeights(opened.label, _state_at(opened, place, places), _undone(opened, place, places))


def _places(opened: Opened, own: Mapping[str, Tensor]) -> list[Place]:
    """Where at least half as many of the network's keys lie as at the place with the most."""
    found: Counter[Place] = Counter()
    for keys, tensors in opened.dicts.items():
        for prefix, count in _prefixes(tensors, own).items():
            found[Place(keys, prefix)] += count
    if not found or 2 * max(found.values()) < len(own):
        found += Counter({place: len(own) for place in _numbered_places(opened, own)})
    most = max(found.values(), default=0)
    return [place for place, count in found.most_common() if 2 * count >= most]


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Counter[str]:
    """What stands before the network's keys -> how many keys it stands before."""
    found: Counter[str] = Counter()
    for key in tensors:
        words = key.split(".")
        for cut in range(len(words)):
            if ".".join(words[cut:]) in own:
                found[".".join([*words[:cut], ""]) if cut else ""] += 1
                break  # the longest of its endings that is a key
    return found


def _numbered_places(opened: Opened, own: Mapping[str, Tensor]) -> Iterator[Place]:
    """Where the children of the network lie under numbers, in its own order, with its own keys and shapes in each.

    As ``nn.Sequential(*network.children())`` names them. Anything less exact is none.
    """
    children = _grouped(own, "")
    for keys, tensors in opened.dicts.items():
        for prefix in dict.fromkeys(_before_numbers(tensors)):
            numbered = {number: part for number, part in _grouped(tensors, prefix).items() if number.isdecimal()}
            order = sorted(numbered, key=int)[: len(children)]
            if [_outline(numbered[number]) for number in order] == [_outline(part) for part in children.values()]:
                yield Place(keys, prefix, tuple(zip(order, children, strict=True)))


def _before_numbers(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for key in tensors:
        words = key.split(".")
        yield from (".".join([*words[:cut], ""]) if cut else "" for cut, word in enumerate(words) if word.isdecimal())


def _grouped(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, dict[str, Tensor]]:
    """The tensors under a prefix by the next word of their keys."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            word, _, rest = key.removeprefix(prefix).partition(".")
            groups.setdefault(word, {})[rest] = value
    return groups


def _outline(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: _shape(value) for key, value in tensors.items() if not key.endswith(BATCH_COUNTER)}


def _shape(value: Tensor) -> tuple[int, ...]:
    """The shape without time, so that a 2D kernel counts as its 3D one: whether it may become it is asked later."""
    return tuple(value.shape) if value.ndim < 5 else (*value.shape[:2], *value.shape[3:])


def _state_at(opened: Opened, place: Place, places: Sequence[Place]) -> dict[str, Tensor]:
    """The tensors of the dict in which the network lies, its own without prefix; those of other places are left out.

    Raises:
        CheckpointError: a key is there with and without the prefix.
    """
    rivals = [other.prefix for other in places if other.keys == place.keys]
    names = dict(place.parts)
    state: dict[str, Tensor] = {}
    for key, value in opened.dicts[place.keys].items():
        nearest = max((prefix for prefix in rivals if key.startswith(prefix)), key=len, default=None)
        if nearest not in (None, place.prefix):
            continue
        cut = key.removeprefix(place.prefix)
        word, dot, rest = cut.partition(".")
        name = f"{names[word]}{dot}{rest}" if word in names and nearest is not None else cut
        if name in state:
            raise CheckpointError(f"{opened.label} has the key {name!r} with and without the prefix {place.prefix!r}.")
        state[name] = value
    return state


def _is_whole(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether every key of the network is there in its shape, and no key more inside its children."""
    needed = {key for key in own if not key.endswith(BATCH_COUNTER)}
    fits = all(key in state and _shape(state[key]) == _shape(own[key]) for key in needed)
    return fits and not any(is_inside(key, own) for key in state if key not in own)


def is_inside(key: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a key that the network lacks belongs to a network like it: under one of its children, or a further one.

    ``layer1.2.conv1.weight`` and ``layer5.0.weight`` are of a deeper network than one that ends at ``layer1.1`` and
    ``layer4``; ``projector.0.weight`` is not of the network.
    """
    first = key.partition(".")[0]
    children = {name.partition(".")[0] for name in own}
    stem = first.rstrip("0123456789")
    return first in children or (stem != first and stem in {child.rstrip("0123456789") for child in children})


def _chosen(opened: Opened, places: Sequence[Place], which: str) -> Place:
    exact = [place for place in places if which == (".".join(place.words) or BARE)]
    found = exact or [place for place in places if which in place.words]
    if len(found) != 1:
        problem = "names none of the networks" if not found else f"stands before {len(found)} networks"
        raise CheckpointError(f"{which!r} {problem} in {opened.label}. Say one of: {', '.join(_name_each(places))}.")
    return found[0]


def _name_each(places: Sequence[Place]) -> list[str]:
    """A word for each place that stands before no other one, or all its words."""
    counts = Counter(word for place in places for word in dict.fromkeys(place.words))
    return [next((w for w in place.words if counts[w] == 1), ".".join(place.words) or BARE) for place in places]


def _several(opened: Opened, places: Sequence[Place], advice: str) -> str:
    names = _name_each(places)
    way = (
        f"Say which: {' or '.join(advice + name for name in names)}."
        if advice
        else "Make an export of the one you want: ssvid export FILE OUT --backbone-name NAME --which WORD."
    )
    return (
        f"{opened.label} holds the network {len(places)} times, under {', '.join(repr(name) for name in names)}; which one "
        f"is meant cannot be known. {way}"
    )


def _undone(opened: Opened, place: Place, places: Sequence[Place]) -> tuple[str, ...]:
    said = []
    if place.keys:
        said.append(f"took key {'.'.join(place.keys)!r}")
    left = [key for key in opened.top if key not in (place.keys[:1] or opened.dicts.get((), ()))]
    named = ", ".join(f"{key} ({opened.company[key]})" if key in opened.company else key for key in left)
    said = [", left ".join([*said, *([named] if named else [])])] if said else [f"left {named}"] if named else []
    count = sum(key.startswith(place.prefix) for key in opened.dicts[place.keys])
    if place.prefix:
        said.append(f"cut prefix {place.prefix!r} from {count} keys")
    if place.parts:
        said.append(f"named its parts in order: {', '.join(f'{number} {name}' for number, name in place.parts)}")
    beside = [repr(other.prefix) for other in places if other.keys == place.keys and other != place]
    return (*said, *([f"left the network under {', '.join(beside)}"] if beside else []))


def _largest_dict(opened: Opened, which: str) -> ForeignWeights:
    """The tensors of a file that has no key of the network: what they are called will be in the error."""
    if which:
        raise CheckpointError(f"{which!r} names no network in {opened.label}: it has none of the network's keys.")
    if not opened.dicts:
        held = ", ".join(f"{key} ({opened.company.get(key, 'no tensor')})" for key in opened.top[:6]) or "nothing"
        objects = (
            " If the weights lie in one of these objects, open it in its own program and save "
            "torch.save(network.state_dict(), 'weights.pth')."
            if opened.company
            else ""
        )
        raise CheckpointError(
            f"{opened.label} holds no weights: there is no tensor in it or its dicts (it has {held}).{objects}"
        )
    keys = max(opened.dicts, key=lambda keys: len(opened.dicts[keys]))
    return ForeignWeights(opened.label, dict(opened.dicts[keys]), (f"took key {'.'.join(keys)!r}",) if keys else ())
