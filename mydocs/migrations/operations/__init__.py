"""Answer what a user asks for, in one module each. Start with `migrate`."""
