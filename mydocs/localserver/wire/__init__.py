"""Read and write the wire: messages, logins, batches of results."""
