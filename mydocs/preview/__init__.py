"""
Show what migrations would do, by running them on a copy.

This is the only place where the runner and the local server meet. Neither imports the other, or this package.
"""
