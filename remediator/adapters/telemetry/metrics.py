"""Counts what the table of metrics knows, in a registry of its own. It decides nothing.

A name, label or value that the table does not know is a mistake of ours, and said at once.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from remediator import __version__
from remediator.adapters.telemetry.table import METRICS, OPEN_VALUES_MAX, OTHER, Row, table_markdown
from remediator.errors import ContractError

__all__ = ("CONTENT_TYPE", "METRICS", "Metrics", "table_markdown")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Parent = Counter | Gauge | Histogram


class _Metric:
    """One row of the table with its children, so that a label set is looked up in one dict."""

    def __init__(self, name: str, row: Row, registry: CollectorRegistry) -> None:
        self.name = name
        self.row = row
        self._names = tuple(label.name for label in row.labels)
        self._open = tuple(index for index, label in enumerate(row.labels) if not label.values)
        self._parent = _parent(name, row, self._names, registry)
        self._children: dict[tuple[str, ...], _Parent] = {}
        self._seen: set[tuple[str, ...]] = set()  # combinations of the open labels' values
        if self._open:
            for known in itertools.product(*(row.labels[index].known for index in self._open)):
                self._make(known)
        else:
            self._make(())

    def child(self, labels: Mapping[str, str]) -> _Parent:
        values = self._values(labels)
        found = self._children.get(values)
        if found is not None:
            return found
        chosen = tuple(values[index] for index in self._open)
        if chosen not in self._seen:
            if len(self._seen) >= OPEN_VALUES_MAX:
                chosen = (OTHER,) * len(self._open)
            self._make(chosen)
        mixed = list(values)
        for index, value in zip(self._open, chosen, strict=True):
            mixed[index] = value
        found = self._children.get(tuple(mixed))
        if found is None:
            raise ContractError(f"metric {self.name}: {dict(labels)} is not in the table of metrics")
        return found

    def forget(self, labels: Mapping[str, str]) -> None:
        """Drop the children whose open labels have these values."""
        names = tuple(self._names[index] for index in self._open)
        if not names or set(labels) != set(names):
            raise ContractError(f"metric {self.name}: only its open labels {names} can be forgotten")
        chosen = tuple(labels[name] for name in names)
        self._seen.discard(chosen)
        for values in [each for each in self._children if tuple(each[i] for i in self._open) == chosen]:
            del self._children[values]
            self._parent.remove(*values)

    def forget_except(self, label: str, kept: frozenset[str]) -> None:
        index = self._names.index(label) if label in self._names else -1
        if index not in self._open:
            raise ContractError(f"metric {self.name}: {label!r} is no open label of it")
        place = self._open.index(index)
        names = [self._names[index] for index in self._open]
        for chosen in [each for each in self._seen if each[place] not in kept]:
            self.forget(dict(zip(names, chosen, strict=True)))

    def _values(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        if len(labels) == len(self._names):
            try:
                return tuple(labels[name] for name in self._names)
            except KeyError:
                pass
        raise ContractError(f"metric {self.name}: labels {sorted(labels)}, the table has {list(self._names)}")

    def _make(self, chosen: tuple[str, ...]) -> None:
        """Create every closed label set beside these values of the open labels, at zero."""
        self._seen.add(chosen)
        given = dict(zip(self._open, chosen, strict=True))
        choices: Iterable[tuple[str, ...]] = (
            (given[index],) if index in given else label.values for index, label in enumerate(self.row.labels)
        )
        for values in itertools.product(*choices):
            self._children[values] = self._parent.labels(*values) if values else self._parent


class Metrics:
    """``ports.Telemetry`` over ``prometheus_client``. One event loop; only ``render`` may leave it.

    Labels are given whole, by name. Past 200 combinations of its open labels' values a metric
    counts under ``other``; a gauge there says nothing about any one of them.
    """

    def __init__(self) -> None:
        # Series with the time of their birth double the page and nobody asks for them. The
        # library knows this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._metrics = {name: _Metric(name, row, self._registry) for name, row in METRICS.items()}
        build = {"version": __version__, "python": platform.python_version()}
        self.gauge("remediator_build_info", build, 1)

    def count(self, metric: str, labels: Mapping[str, str], by: float = 1.0) -> None:
        """Raise a counter; ``by`` is not below zero.

        Raises:
            ContractError: unknown metric, label or closed value, another kind, or a negative step.
        """
        child = self._find(metric).child(labels)
        if not isinstance(child, Counter) or by < 0:
            raise ContractError(f"metric {metric}: no counter, or counted by {by:g}")
        child.inc(by)

    def gauge(self, metric: str, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge.

        Raises:
            ContractError: as of ``count``.
        """
        child = self._find(metric).child(labels)
        if not isinstance(child, Gauge):
            raise ContractError(f"metric {metric} is no gauge")
        child.set(value)

    def observe(self, metric: str, labels: Mapping[str, str], seconds: float) -> None:
        """Enter one value into a histogram.

        Raises:
            ContractError: as of ``count``.
        """
        child = self._find(metric).child(labels)
        if not isinstance(child, Histogram):
            raise ContractError(f"metric {metric} is no histogram")
        child.observe(seconds)

    def forget_except(self, metric: str, label: str, kept: Iterable[str]) -> None:
        """Drop the series of everything that is gone: a gauge of a deleted pool must not stay.

        Args:
            metric: its name.
            label: one of its open labels.
            kept: the values that still exist.

        Raises:
            ContractError: unknown metric, or the label is not an open one of it.
        """
        self._find(metric).forget_except(label, frozenset(kept))

    def render(self) -> bytes:
        """The page of all metrics, in ``CONTENT_TYPE``."""
        return generate_latest(self._registry)

    def _find(self, metric: str) -> _Metric:
        found = self._metrics.get(metric)
        if found is None:
            raise ContractError(f"metric {metric!r} is not in the table of metrics")
        return found


def _parent(name: str, row: Row, labels: tuple[str, ...], registry: CollectorRegistry) -> _Parent:
    match row.kind:
        case "counter":
            return Counter(name, row.help, labels, registry=registry)
        case "gauge":
            return Gauge(name, row.help, labels, registry=registry)
        case "histogram":
            return Histogram(name, row.help, labels, buckets=row.buckets, registry=registry)
