"""The local runner: the same job file as on a cluster, processes instead of pods.

`overrides` and `grid` turn the command line into validated jobs; `composition` puts data, learning and
federation together for one of them; `supervisor` (WebSocket processes) and `local` (in process) carry a run
out; `recording` writes what is left of it. Importing this package loads nothing heavy.
"""
