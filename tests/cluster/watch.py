"""The lines of a watch, for clients that end while the API server still talks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp


async def lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of a watch, one event each; when the reader is cancelled the connection is cut.

    Closed politely, TLS would wait for the other side, longer than the event loop lives.
    """
    try:
        async for line in answer.content:
            yield line
    finally:
        connection = answer.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
