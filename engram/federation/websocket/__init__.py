"""The WebSocket transport: `server.serve` for the aggregator, `client.run_worker` for a worker."""
