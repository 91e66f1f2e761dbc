"""Federation: the rounds as a machine without I/O, the messages, aggregation rules, checkpoints and two
transports.

Nothing here imports torch: weights are named numpy arrays, and learning is reached through
`engram.federation.roles`.
"""
