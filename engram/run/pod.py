"""What a process owes the pod it runs in: to end within seconds when told to, and to leave a last word.

Process 1 of a container has no default handlers: a SIGTERM before ours is in place would be lost and the pod
killed half a minute later. So `Pod.listen` comes before everything that takes time to import, and a thread
hears the signal (`signal.set_wakeup_fd`), because a handler in Python waits for the main thread, which may be
in the middle of a long step of torch. Until there is something to save the process just ends; later it is
asked to, and ends all the same when that takes too long: every closed round is on disk, and a worker's round
is trained again.

The last word goes to the file that ENGRAM_TERMINATION_LOG names, for the kubelet: of a worker or a reporter
the reason and a sentence (`engram.spec.last_word`), of the aggregator the final summary. Without that
variable nothing is written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

Role = Literal["aggregator", "worker", "reporter"]

RETRY = 75
"""`ExitCode.RETRY`, spelled here because this module comes before all others."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
MOST_BYTES = 4096
"""What the kubelet keeps of a termination message."""
TOO_EARLY = "told to stop before it had begun: it starts again"
FROM_THE_START = "told to stop: it starts again, and makes the whole report anew"
TOO_SLOW = "told to stop, and ended in the middle of a step: it starts again from the last closed round"


class Pod:
    """A process, as the pod around it sees it."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.asked = threading.Event()
        """Set when the process was told to stop."""
        self.result: Callable[[], Mapping[str, Any]] = dict
        """Fields of the FinalSummary that are known so far."""
        self._wake: Callable[[], None] | None = None
        self._seconds = 0.0
        self._lock = threading.Lock()
        self._listens = False

    def listen(self) -> None:
        """Hear SIGTERM and SIGINT from now on; only in the main thread, and only in a process of our own."""
        if self._listens:
            return
        self._listens = True
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # the byte in the pipe is what counts
        threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True).start()

    def orderly(self, seconds: float, wake: Callable[[], None] = lambda: None) -> None:
        """Let the process end by itself within `seconds` from now on: `asked` is set and `wake` called.

        `wake` runs in the thread that hears signals.
        """
        with self._lock:
            self._wake, self._seconds = wake, seconds

    def leave(self, code: int, sentence: str, reason: str = "") -> None:
        """Write the last word of a process that is about to end with `code`; the newest one counts."""
        from engram.spec.last_word import compose  # at the end: this module comes before all others
        from engram.spec.names import Environment

        path = os.environ.get(Environment.ENGRAM_TERMINATION_LOG)
        if not path:
            return
        text = (
            self._summary(code, sentence, reason)
            if self.role == "aggregator"
            else compose(reason, sentence) or "done"
        )
        content = text.encode(errors="replace")[:MOST_BYTES].decode(errors="ignore")
        try:
            # In place: the file is a mount of the kubelet's.
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
        except OSError as error:
            print(f"{path} cannot be written: {error.strerror}", file=sys.stderr, flush=True)

    def _summary(self, code: int, sentence: str, reason: str) -> str:
        outcome = {0: "complete", RETRY: "suspended"}.get(code, "failed")
        try:
            from engram.spec.summary import FinalSummary

            fields = {"outcome": outcome, "reason": reason, "message": sentence, "exit_code": code}
            return FinalSummary.model_validate({**self.result(), **fields}).encode(MOST_BYTES)
        except Exception:  # the last thing that this process does: an image without pydantic, a broken result
            import json

            said = {"outcome": outcome, "reason": reason, "message": sentence[:1024], "exitCode": code}
            return json.dumps(said)

    def _watch(self, reader: int) -> None:
        os.read(reader, 1)
        with self._lock:
            self.asked.set()
            wake, seconds = self._wake, self._seconds
        if wake is None:
            self._end(FROM_THE_START if self.role == "reporter" else TOO_EARLY)
        else:
            wake()
            threading.Event().wait(seconds)
            self._end(TOO_SLOW)

    def _end(self, sentence: str) -> None:
        with contextlib.suppress(OSError):
            print(f"engram: {sentence}", file=sys.stderr, flush=True)
        self.leave(RETRY, sentence)
        os._exit(RETRY)


_pods: dict[str, Pod] = {}


def this_pod(role: Role) -> Pod:
    """Return the one Pod of this process."""
    return _pods.setdefault(role, Pod(role))
