"""Decide how many documents the next batch has, from the time of the server's answers. Pure."""

from dataclasses import replace

from mydocs.migrations.values import value

SLOW = 2.0  # times the usual time: after a slower batch the next one has half the size
WEIGHT = 0.2  # of the latest batch in the usual time
SMALLEST = 64  # a batch is never smaller than the whole divided by this


@value
class Pace:
    """
    The size of the next batch.

    A batch is to be answered in the usual time of a whole one. So a busy server gets smaller batches, but a distant one
    does not.

    :param whole: the script's batch size, in documents
    :param noise: seconds of a normal variation, which never count as slow
    :param usual: the usual seconds to read and write a whole batch; ``None`` before the first
    """

    whole: int
    size: int
    noise: float
    usual: float | None = None

    def after(self, seconds: float) -> "Pace":
        """
        Return the pace after a batch.

        :param seconds: the time of the answers to the last batch
        """
        if self.usual is None:
            return replace(self, usual=seconds)
        size = self.size
        if seconds > SLOW * self.usual + self.noise:
            size = max(1, self.whole // SMALLEST, size // 2)
        elif seconds <= self.usual + self.noise:
            size = min(self.whole, size * 2)
        usual = self.usual if self.size < self.whole else self.usual + WEIGHT * (seconds - self.usual)
        return replace(self, size=size, usual=usual)
