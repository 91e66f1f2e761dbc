"""permessage-deflate that compresses a broadcast once for all: it is the same text for every worker.

A connection whose messages do not build upon each other can send bytes that were compressed for another,
which costs nothing in size for a megabyte of digits. KubeEdge's server compresses for each worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionParameter

LARGE = 64 * 1024
"""Smaller messages are compressed sooner than looked up."""
WINDOW_BITS, MEMORY_LEVEL = 12, 5
"""What the websockets library takes for servers, which hold one compressor a connection."""


@dataclass
class Newest:
    """The large message that was compressed last, by any connection of a server."""

    digest: bytes = b""
    compressed: bytes | bytearray | memoryview = b""


class SharedDeflate(PerMessageDeflate):
    """One connection's side."""

    newest: Newest

    def encode(self, frame: Frame) -> Frame:
        """See Extension."""
        if frame.opcode is not Opcode.TEXT or not frame.fin or len(frame.data) < LARGE:
            return super().encode(frame)
        digest = hashlib.blake2b(frame.data, digest_size=16).digest() + bytes([self.local_max_window_bits])
        if digest != self.newest.digest:
            self.newest.digest, self.newest.compressed = digest, super().encode(frame).data
        return Frame(frame.opcode, self.newest.compressed, frame.fin, rsv1=True)


class SharedDeflateFactory(ServerPerMessageDeflateFactory):
    """Negotiates for all connections of one server."""

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS,
            compress_settings={"memLevel": MEMORY_LEVEL},
        )
        self._newest = Newest()

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """See ServerExtensionFactory."""
        answer, made = super().process_request_params(params, accepted_extensions)
        shared = SharedDeflate(
            made.remote_no_context_takeover,
            made.local_no_context_takeover,
            made.remote_max_window_bits,
            made.local_max_window_bits,
            made.compress_settings,
        )
        shared.newest = self._newest
        return answer, shared
