"""`engram check`: what in a cluster would keep a job from running, asked before the job is applied.

The objects that are judged are those that the operator would make: its own builders make them here.
"""
