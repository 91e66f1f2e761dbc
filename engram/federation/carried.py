"""Which shared groups a connection has carried, so that none goes twice, and their digests."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any, TypeAlias

from engram.federation.messages import Tensors
from engram.federation.tensors import digest_of

CARRIED_ORDERS = 2
"""A connection forgets a shared group that so many orders in a row have not used."""
MAX_DIGESTS = 1024

Key: TypeAlias = tuple[tuple[str, int], ...]


class Carried:
    """The groups that a connection remembers, alike on both sides: those of the last few orders."""

    def __init__(self) -> None:
        self._groups: dict[bytes, Tensors] = {}
        self._ages: dict[bytes, int] = {}

    def find(self, digest: bytes) -> Tensors | None:
        """Return the group, which thereby counts as used."""
        if digest in self._ages:
            self._ages[digest] = 0
        return self._groups.get(digest)

    def remember(self, digest: bytes, group: Tensors) -> None:
        """Take a group in."""
        self._groups[digest], self._ages[digest] = group, 0

    def end_of_order(self) -> None:
        """Drop the groups that the last orders did not use; called after each message that may have some."""
        for digest, age in list(self._ages.items()):
            self._ages[digest] = age + 1
            if age >= CARRIED_ORDERS:
                del self._ages[digest], self._groups[digest]


class Digests:
    """Digests of groups, each computed once while its arrays live; one for all connections of a process."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, tuple[tuple[weakref.ref[Any], ...], bytes]] = OrderedDict()

    def of(self, group: Tensors) -> bytes:
        """Return the group's digest. Arrays are told apart by identity, so they must not be written to."""
        key = tuple((name, id(array)) for name, array in group.items())
        known = self._known.get(key)
        # An identity may come again once its array is gone: the weak references tell.
        if known is not None and all(
            ref() is array for ref, array in zip(known[0], group.values(), strict=True)
        ):
            return known[1]
        digest = digest_of(group)
        self._known[key] = (tuple(weakref.ref(array) for array in group.values()), digest)
        if len(self._known) > MAX_DIGESTS:
            self._known.popitem(last=False)
        return digest
