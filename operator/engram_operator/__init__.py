"""CONTROL PLANE: reconciles FederatedIncrementalJobs into aggregation and worker pods.

Level-based and without a memory of its own: whatever wakes it, it reads the job and its children, computes
what should be (`reconcile`, pure), applies the difference (`cluster`), and writes status when it changed.
"""
