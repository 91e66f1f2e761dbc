"""Processes of a cluster: started detached, recorded before they run, ended by whoever has the record.

A test that dies, even by SIGKILL, must not leave an API server behind, and a pid read from a file must never
end somebody else's process. So each process writes its own record (its line of /proc/PID/stat and the boot's
id) before it becomes the command, and nobody signals a pid whose start time differs from the record.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.waiting import NotYet, until

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LAUNCH = f'cat /proc/$$/stat {_BOOT} >"$0.new" && mv "$0.new" "$0" && exec "$@"'
"""`sh -c` with the record's path as $0: the shell's pid and start time stay those of the command."""


@dataclass(frozen=True)
class Identity:
    """One process for all time: its /proc/PID/stat when it started, and the boot that it belongs to."""

    text: str

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a running process. Raises OSError where there is none."""
        return cls(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace") + _BOOT.read_text()
        )

    @property
    def pid(self) -> int:
        """Its pid, as seen from the host."""
        return int(self.text.split(maxsplit=1)[0])

    @property
    def alive(self) -> bool:
        """Whether this very process still runs.

        A zombie does not, unless threads of it are still ending: they hold its sockets, and a successor
        could not listen on its port.
        """
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # reap it if it was ours
        try:
            now = Identity.of(self.pid)
        except OSError:
            return False
        runs = now._fields[0] not in "ZX" or int(now._fields[17]) > 1
        return runs and now._birth == self._birth

    @property
    def _fields(self) -> list[str]:
        """What follows the name, which may hold anything: state, ..., threads (17), start time (19), boot."""
        return self.text.rpartition(")")[2].split()

    @property
    def _birth(self) -> tuple[str, str]:
        """Start time in ticks, and boot."""
        return self._fields[19], self._fields[-1]


@dataclass(frozen=True)
class Processes:
    """The processes whose records lie in `records`; each one's output is appended to `logs/NAME.log`."""

    records: Path
    logs: Path

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        netns: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start `command` in a session of its own, return its pid once it is recorded.

        `netns` names a network namespace (`ip netns add`); `environment` adds to ours. It goes on when this
        process ends. Raises RuntimeError when a process of that name runs already.
        """
        if self.pid(name) is not None:
            raise RuntimeError(f"{name} runs already: stop it first")
        self._record(name).unlink(missing_ok=True)
        inside = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        words = ["/bin/sh", "-c", _LAUNCH, str(self._record(name)), *inside, *map(str, command)]
        with self.log(name).open("ab") as log:
            # Not subprocess: nobody waits for it, and its objects warn of children that outlive them.
            pid = os.posix_spawnp(
                words[0],
                words,
                {**os.environ, **(environment or {})},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        until(self._record(name).exists, f"the record of {name}", seconds=10, every=0.002)
        return pid

    def record(self, name: str, pid: int) -> None:
        """Record a process that somebody else started, so that it is ended with the others."""
        partial = self._record(name).with_suffix(".partial")
        partial.write_text(Identity.of(pid).text, encoding="utf-8")
        partial.replace(self._record(name))

    def log(self, name: str) -> Path:
        """Return where the output of `name` goes."""
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = 5) -> str:
        """Return the last lines of the output of `name`, for messages."""
        try:
            text = self.log(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def names(self) -> list[str]:
        """Return all recorded processes, running or not, oldest first."""
        found = {}
        for path in self.records.glob("*.process"):
            with contextlib.suppress(FileNotFoundError):  # another thread ends it just now
                found[path.stem] = path.stat().st_mtime_ns
        return sorted(found, key=lambda name: found[name])

    def pid(self, name: str) -> int | None:
        """Return the pid of `name` if it runs."""
        found = self._identity(name)
        return found.pid if found is not None and found.alive else None

    def check(self, name: str) -> None:
        """Raise RuntimeError with the end of its log when `name` does not run."""
        if self.pid(name) is None:
            raise RuntimeError(f"{name} has ended; its log {self.log(name)} ends with\n{self.tail(name)}")

    def memory(self, name: str) -> int:
        """Return the resident memory of `name` in bytes; 0 when it does not run."""
        pid = self.pid(name)
        if pid is None:
            return 0
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def stop(self, name: str, *, how: signal.Signals = signal.SIGKILL, seconds: float = 20) -> bool:
        """End `name` with its children, wait until it is gone and forget it; return whether it ran.

        SIGKILL by default: everything here is test data, and an API server takes seconds to say goodbye.
        What outlives `how` for `seconds` is killed.
        """
        found = self._identity(name)
        ran = found is not None and _end(found, how, seconds)
        self._record(name).unlink(missing_ok=True)
        return ran

    def stop_all(self, *, how: signal.Signals = signal.SIGKILL) -> list[str]:
        """End everything recorded, newest first; return the names of those that ran."""
        return [name for name in reversed(self.names()) if self.stop(name, how=how)]

    def _record(self, name: str) -> Path:
        """Return where `name` is recorded."""
        return self.records / f"{name}.process"

    def _identity(self, name: str) -> Identity | None:
        """Return the recorded process, None for none."""
        try:
            return Identity(self._record(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def _end(identity: Identity, how: signal.Signals, seconds: float) -> bool:
    """Signal the process (and its group, if it leads one) until it is gone; return whether it was there."""
    if not identity.alive:
        return False

    def gone() -> bool:
        if identity.alive:
            raise NotYet(f"pid {identity.pid} is still there")
        return True

    for sent in (how, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(identity.pid) == identity.pid:
                os.killpg(identity.pid, sent)
            else:
                os.kill(identity.pid, sent)
        try:
            until(gone, f"the end of pid {identity.pid}", seconds=seconds, every=0.01)
        except TimeoutError:
            if sent == signal.SIGKILL:
                raise
        else:
            break
    return True
