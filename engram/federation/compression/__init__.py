"""Changes of a model in fewer bytes: what `spec.aggregation.compression` names, upwards and downwards.

`arrays` packs the change of one tensor, `changes` that of a model; `residuals` keeps what a worker still
owes, `broadcast` is the aggregator's side.
"""
