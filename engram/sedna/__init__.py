"""What lets KubeEdge Sedna's workers and user code take part in a run unchanged.

Sedna's library is never imported here but where a user has installed it; the package of that name on PyPI is
another project.
"""
