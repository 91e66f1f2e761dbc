"""`kubectl engram`: jobs as their user sees them, from a laptop with a kubeconfig.

A third package beside `engram`, which knows no Kubernetes client, and `engram_operator`, whose client,
builders and words it shares: what the plug-in shows and checks is what the operator does. docs/adr/0011 says
why.
"""
