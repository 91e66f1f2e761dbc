"""Metrics: one accuracy matrix, the measures that derive from it, and the ways to watch them during a run.

`matrix`, `format` and `measures` are pure and light; `status`, `exporter` and `http` turn an aggregator's
events into `/v1/status` and Prometheus series.
"""
