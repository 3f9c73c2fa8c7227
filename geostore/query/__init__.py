"""The query layer: messages, and later frames and sockets. Import from its modules."""
