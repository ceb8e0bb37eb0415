"""TensorBoard's event files."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar


class Events:
    """Scalars of a run in an event file, which is made when there is something to write.

    tensorboardX's own `SummaryWriter` writes in a thread, which a full disk ends: the queue to it
    then fills up, and the run waits forever.

    Args:
      folder: of the run.
      start: step from which it goes on; TensorBoard hides what older files hold of later steps.
    """

    def __init__(self, folder: Path, *, start: int):
        self.folder = folder
        self.start = start
        self.writer: RecordWriter | None = None

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes scalars of a step.

        Raises:
          OSError: if they can't be written, naming the folder's event files.
        """
        try:
            if self.writer is None:
                self._open()
            for name, value in scalars.items():
                self._write(Event(step=step, summary=scalar(name, value)))
            self.writer.flush()
        except OSError as error:
            self.close()
            where = str(self.folder / "events.out.tfevents.*")
            raise OSError(error.errno, os.strerror(error.errno), where) from error

    def _open(self) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        # Absolute: a relative path may begin like an address.
        self.writer = RecordWriter(os.path.abspath(self.folder / name))
        self._write(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=self.start + 1, session_log=start))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.writer.write(event.SerializeToString())

    def close(self) -> None:
        """Ends the file."""
        if self.writer is not None:
            # All is flushed, or can't be.
            with contextlib.suppress(OSError):
                self.writer.close()
        self.writer = None
