"""engram: federated class-incremental learning that does not forget.

The package is the data plane: it runs with no Kubernetes at all and importing it loads neither torch nor a
client of any kind. Start reading at `engram.spec` (the job file), then `engram.federation` (rounds), then
`engram.learning`.
"""

__version__ = "0.1.0"
