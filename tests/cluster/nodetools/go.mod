module engram.dev/tests/cluster/nodetools

go 1.22
