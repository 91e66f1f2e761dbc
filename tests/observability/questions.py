"""The queries of a dashboard, asked as Grafana asks them: variables put in, over a time range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from charts.dashboards.model import Dashboard, Query
from tests.observability.prometheus import Prometheus, Series

LEAST_WINDOW = 4
"""Scrapes that `$__rate_interval` spans at least, as in Grafana."""


@dataclass(frozen=True)
class Reader:
    """Somebody who looks at a dashboard."""

    prometheus: Prometheus
    start: float
    end: float
    namespace: str
    job: str
    step: float = 1.0

    def put_in(self, expression: str) -> str:
        """Return the expression with a value for each variable."""
        window = max(self.step + self.prometheus.interval, LEAST_WINDOW * self.prometheus.interval)
        values = {
            "namespace": self.namespace,
            "job": self.job,
            "__range": f"{math.ceil(self.end - self.start)}s",
            "__rate_interval": f"{math.ceil(window)}s",
        }
        return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], expression)

    def ask(self, query: Query) -> list[Series]:
        """Return the answer."""
        expression = self.put_in(query.expr)
        if query.once:
            return self.prometheus.query(expression, self.end)
        return self.prometheus.query_range(expression, self.start, self.end, self.step)

    def choices(self, dashboard: Dashboard) -> Mapping[str, list[str]]:
        """Return what each variable of a dashboard offers."""
        found = {}
        for variable in dashboard.variables:
            match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.query)
            assert match is not None, variable.query
            selector = self.put_in(match[1])
            found[variable.name] = self.prometheus.labels_of(selector, match[2], self.start, self.end)
        return found


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return the name of a line, as Grafana makes it of a legend and labels."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)
