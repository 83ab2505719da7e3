"""One module for each question that a user asks. Start with `migrate`."""
