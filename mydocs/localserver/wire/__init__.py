"""Bytes on a socket, and what they carry: messages, logins, batches of results."""
