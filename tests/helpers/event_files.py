"""TensorBoard's event files, read back."""

from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]


def events(folder):
    """All events of the run in a folder, read record by record."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            if at + 16 + size > len(data):
                break  # cut within a record
            event = Event()
            event.ParseFromString(data[at + 12 : at + 12 + size])
            found.append(event)
            at += 16 + size
    return found
