"""TensorBoard's event files."""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

# protobuf creates these names when the module is imported.
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar


class Events:
    """Scalars of a run in an event file, which is created by the first write.

    This is not tensorboardX's `SummaryWriter`, which writes in a thread that dies when the disk is
    full: its queue then fills up, and the run waits forever.

    Args:
      folder: folder of the run.
      start: step from which it resumes; TensorBoard hides what older files hold of later steps.
    """

    def __init__(self, folder: Path, *, start: int):
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        session = SessionLog(status=SessionLog.START)
        self.head = [
            Event(file_version="brain.Event:2"),
            Event(step=start + 1, session_log=session),
        ]

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes scalars of a step.

        Raises:
          OSError: if they can't be written, naming the file.
        """
        rows = [Event(step=step, summary=scalar(name, value)) for name, value in scalars.items()]
        content = b"".join(_record(event) for event in self.head + rows)
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.head = []


def _record(event: Event) -> bytes:
    """Returns an event as the file has it: its length and its bytes, each with a checksum."""
    event.wall_time = time.time()
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
    return length + checksums[0] + content + checksums[1]
