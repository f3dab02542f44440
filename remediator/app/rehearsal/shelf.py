"""One kind of object in memory, as ``ports.Cache`` shows it. Always in sync, always fresh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """Objects by key with the version of their last write."""

    def __init__(self) -> None:
        self.synced = True
        self._views: dict[str, T] = {}
        self._versions: dict[str, int] = {}
        self._listeners: list[Callable[[str, T | None, T | None], None]] = []

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, key: object) -> bool:
        return key in self._views

    def get(self, key: str) -> T | None:
        return self._views.get(key)

    def views(self) -> Mapping[str, T]:
        return dict(self._views)

    def version_of(self, key: str) -> int:
        return self._versions.get(key, 0)

    def subscribe(self, listener: Callable[[str, T | None, T | None], None]) -> None:
        self._listeners.append(listener)

    def age_s(self) -> float | None:
        return 0.0

    async def wait_for(self, resource_version: str, timeout_s: float) -> bool:
        """Every write is seen at once."""
        del resource_version, timeout_s
        return True

    def put(self, key: str, version: int, view: T) -> None:
        before = self._views.get(key)
        self._views[key] = view
        self._versions[key] = version
        for listener in self._listeners:
            listener(key, before, view)

    def remove(self, key: str) -> None:
        before = self._views.pop(key, None)
        self._versions.pop(key, None)
        if before is not None:
            for listener in self._listeners:
                listener(key, before, None)
