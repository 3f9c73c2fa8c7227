"""What one machine can do with a store, without a socket: one file per verb."""

from geostore.node.node import Node

__all__ = ["Node"]
