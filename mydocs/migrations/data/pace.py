"""How many documents the next batch has, by how fast the server answers. Pure."""

from dataclasses import replace

from mydocs.migrations.values import value

SLOW = 2.0  # times the usual: a batch that takes longer is followed by one of half its size
WEIGHT = 0.2  # of the latest batch in what is usual
SMALLEST = 64  # parts of a batch that one never gets smaller than


@value
class Pace:
    """
    The size of the next batch.

    A batch is to be answered in the time that is usual for a whole one, so that a server with other work to do gets
    smaller ones, and a connection that is merely far away does not.

    :param whole: documents of a batch as the script has it
    :param noise: seconds that no answer counts as slow for
    :param usual: seconds that reading and writing a whole batch usually take; ``None`` before the first
    """

    whole: int
    size: int
    noise: float
    usual: float | None = None

    def after(self, seconds: float) -> "Pace":
        """:param seconds: that the answers to the last batch took"""
        if self.usual is None:
            return replace(self, usual=seconds)
        size = self.size
        if seconds > SLOW * self.usual + self.noise:
            size = max(1, self.whole // SMALLEST, size // 2)
        elif seconds <= self.usual + self.noise:
            size = min(self.whole, size * 2)
        usual = self.usual if self.size < self.whole else self.usual + WEIGHT * (seconds - self.usual)
        return replace(self, size=size, usual=usual)
