"""
See what migrations would do, by running them on a copy.

The one place where the runner and the local server meet: neither of the two imports the other, or this.
"""
