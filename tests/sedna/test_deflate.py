from __future__ import annotations

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from engram.sedna.blind import BlindLearner
from engram.sedna.deflate import LARGE, SharedDeflateFactory
from tests.sedna.conftest import Connect, Running, settings


def text(data: bytes) -> Frame:
    return Frame(Opcode.TEXT, data)


def test_a_broadcast_is_compressed_once_for_all_and_reads_the_same() -> None:
    factory = SharedDeflateFactory()
    ours = [factory.process_request_params([], [])[1] for _ in range(2)]
    theirs = [PerMessageDeflate(True, False, 12, 12) for _ in range(2)]
    large = [b"1.25," * LARGE, b"2.5," * LARGE]
    for data in (large[0], b"small", large[1], large[0]):
        encoded = [side.encode(text(data)) for side in ours]
        assert [side.decode(frame).data for side, frame in zip(theirs, encoded, strict=True)] == [data, data]
        assert all(frame.rsv1 for frame in encoded)
        assert (encoded[0].data is encoded[1].data) == (len(data) >= LARGE)


def test_every_client_reads_it(client: Connect) -> None:
    model = [[float(index) for index in range(50_000)]]
    with Running(settings(2, 2), BlindLearner("split")) as running:
        workers = [client(running, f"w{index}").subscribe() for index in range(2)]
        for _ in range(2):
            for worker in workers:
                worker.upload(model)
            assert [worker.weights()["data"]["weights"] for worker in workers] == [model, model]
