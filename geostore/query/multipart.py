"""Whole messages in and out of a socket, without waiting."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from geostore.query.frames import Buffer

COPIED_BYTES = 65_536  # a frame below this is copied into the socket: cheaper than keeping it alive until it is sent
_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def send(socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
    """Hand `frames` to `socket` as one message. Raises zmq.Again if it takes no more, zmq.ZMQError without a peer."""
    last = len(frames) - 1
    for i, frame in enumerate(frames):
        socket.send(frame, _MORE if i < last else _LAST, copy=len(frame) < COPIED_BYTES)


def try_send(socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> bool:
    """`send`, or False if the socket takes no more."""
    try:
        send(socket, frames)
    except zmq.Again:
        return False
    return True


def receive(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """The next message of `socket`. Raises zmq.Again if there is none."""
    frame = socket.recv(_LAST, copy=False)
    found = [frame]
    while frame.more:
        frame = socket.recv(copy=False)
        found.append(frame)
    return found


def receive_some(socket: zmq.Socket[bytes], *, messages: int, nbytes: int) -> list[list[zmq.Frame]]:
    """Messages that are there: at most so many, and none after the one that reaches `nbytes`."""
    found: list[list[zmq.Frame]] = []
    while len(found) < messages and nbytes > 0:
        try:
            found.append(receive(socket))
        except zmq.Again:
            break
        nbytes -= len(found[-1][-1])
    return found
