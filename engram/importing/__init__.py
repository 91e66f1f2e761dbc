"""Importing: benchmarking jobs of Ianvs and FederatedLearningJobs of Sedna become job files of engram.

`ianvs.convert` and `sedna.convert` are pure: documents in, `Imported` out, the job with an account of every
value of the input. `files` finds what a file names, `render` writes the account, `command` is what the
command line calls. What corresponds to what is in `counterparts`, and in docs/importing.md for readers.
"""
