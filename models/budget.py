"""Budget: the lambda that keeps exploration to a share of the shown slots.

A window of slots tells which share exploration changed at the lambda that was in use, and corrects *that* lambda:
feedback about an older one, delayed by the stream and the publish interval, cannot wind the controller up.
Pure arithmetic; its state travels in the checkpoint. The constants are ours.
"""

import math

#: Slots per correction: at a target of 5 % the share's standard error is 1 %.
WINDOW = 500
#: A correction multiplies lambda by e^(GAIN (1 - share / target)), but by no less than e^-DEEPEST. Were excess cut as
#: short as want is by nature, a share that jumps past its target and back would stay above it on average.
GAIN, DEEPEST = 0.7, 7.0
#: Bounds of lambda: below, nothing moves; above, the step leaves every region the model has seen.
LOWEST, HIGHEST = 1e-3, 1e4


class Budget:
    """Holds lambda.

    Args:
        target: share of slots to change.
        lambda_: where to start.
    """

    def __init__(self, target: float, lambda_: float) -> None:
        self.target = target
        self.lambda_ = lambda_
        self._changed = self._slots = 0
        self._log_lambda = 0.0  # sum over slots of log lambda used

    def observe(self, changed: int, slots: int, lambda_used: float) -> None:
        """One slate: how many of its slots exploration changed, and at which lambda."""
        self._changed += changed
        self._slots += slots
        self._log_lambda += slots * math.log(min(max(lambda_used, LOWEST), HIGHEST))
        if self._slots >= WINDOW:
            change = max(GAIN * (1.0 - self._changed / self._slots / self.target), -DEEPEST)
            log_lambda = self._log_lambda / self._slots + change
            self.lambda_ = min(max(math.exp(log_lambda), LOWEST), HIGHEST)
            self._changed = self._slots = 0
            self._log_lambda = 0.0

    def state(self) -> tuple[float, float, float, float]:
        """(lambda, changed, slots, sum of logs): what `restore` takes."""
        return self.lambda_, self._changed, self._slots, self._log_lambda

    @classmethod
    def restore(cls, target: float, state: tuple[float, float, float, float]) -> "Budget":
        """A budget that continues from `state`, under a target that may be new."""
        budget = cls(target, state[0])
        budget._changed, budget._slots, budget._log_lambda = int(state[1]), int(state[2]), state[3]
        return budget
