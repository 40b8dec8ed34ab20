"""How long one backend takes in one bucket: a level that follows change, holds against outliers and knows its doubt.

Everything is in natural logarithms of seconds. No choice is made here, and no other pair's estimate is looked at.

A level is a Kalman filter's: what is known weighs as it is certain, and a run as its noise is small. Page's cumulative
sums of the residuals tell a change from noise; then the level begins again at the runs since the change.
"""

import math
from collections import deque

from server.selection.character import LONGEST_SILENCE, SILENCE, Character
from server.selection.illness import MATERIAL, STEADY, TRIED_ROUGHLY, Illness

# Doubt grows while nobody looks: variance per second and per batch of the bucket. After five minutes and 150 batches
# without a run an estimate is good to about 11 %.
DRIFT_PER_SECOND, DRIFT_PER_BATCH = 2e-5, 4e-5
# A backend that became slower may be well again: one in e is not after so many seconds, or so many batches.
RECOVERY_SECONDS, RECOVERY_BATCHES = 900.0, 450.0
LARGEST_DOUBT = 4.0  # variance: a factor of e squared up or down, so nothing is known
UNKNOWN = 0.4  # variance where a backend was never measured: within a factor of 1.9 of what is guessed
FIRST = 0.04  # variance that a first run has above the noise's: it may be an outlier, and nothing shows it
SMALLEST_DOUBT = 0.002  # variance after other runs took a doubt away: 4 %
CLIP = 3.0  # standard deviations: an outlier counts as that, no matter how far out
# Change: three runs in succession that are far out, or four that are two standard deviations out; luck alone takes
# thousands of runs.
STEP, ALARM, CHANGE_CLIP = 0.6, 5.0, 2.5
EVEN, RULED_OUT, SURE = 0.5, 0.1, 20.0  # the chance of being cold: at first, when it counts as warm; logarithm of odds
RECENT = 12  # runs from which the level after a change is taken
LARGE = 0.2  # a jump that one single run may show to be undone


class Estimate:
    """The level of one backend in one bucket.

    Attributes:
        level: Logarithm of the typical seconds.
        variance: Of the level, when it was last seen.
        runs: How many it comes from.
        ran: When the last run ended.
        seen: When the level was last known, by a run or another bucket's; `at` is the bucket's count of batches then.
        row: How many runs since loading or a silence.
        jump: By how much it was once slower at a stroke and hasn't been seen well since; 0 if nothing such happened.
        jumped_at: When.
        undone: Whether the last run showed the jump undone. Whoever tells the other buckets clears it.
        alarm: Variance that it has because the serving backend jumped.
        watch: How closely its recovery is awaited; less where another bucket's tells as much for less.
        chill: The chance that it is still cold.
        old: From before a restart, not seen since.
        illness: Whether it became slower while it was served from, and may be well again.
    """

    __slots__ = (
        "alarm", "at", "chill", "down", "illness", "jump", "jumped_at", "level", "old", "onset", "ran", "recent",
        "row", "runs", "seen", "streak", "undone", "up", "variance", "watch",
    )  # fmt: skip

    def __init__(self) -> None:
        self.level, self.variance, self.runs, self.row = 0.0, UNKNOWN, 0, 0
        self.ran = self.seen = -math.inf
        self.at = 0
        self.jump, self.jumped_at, self.undone, self.watch = 0.0, -math.inf, False, 1.0
        self.up, self.down, self.streak, self.onset = 0.0, 0.0, 0, 0.0
        self.alarm, self.old, self.chill = 0.0, False, EVEN
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.illness = Illness()

    def doubt(self, now: float, count: int, character: Character | None = None) -> float:
        """Variance now: what it was, and what may have happened since.

        With the character, a pair that is warming up is in doubt by that as well: its next runs will tell.
        """
        if not self.runs:
            return UNKNOWN
        if character is not None and self.row <= character.cold_runs and now - self.ran < character.silence:
            return self.variance + character.cold * character.cold / 4
        grown = self.variance + DRIFT_PER_SECOND * (now - self.seen) + DRIFT_PER_BATCH * (count - self.at)
        return grown if grown < LARGEST_DOUBT else LARGEST_DOUBT

    def recovery(self, now: float, count: int) -> float:
        """The chance that a jump is undone by now."""
        passed = (now - self.seen) / RECOVERY_SECONDS + (count - self.at) / RECOVERY_BATCHES
        return 1 - math.exp(-self.watch * passed) if self.jump else 0.0

    def hope(self, spread: float) -> None:
        """It is tried: take it for as quick as it was before it became slower, until a run denies that."""
        self.level, self.variance = self.illness.hope(self.level), max(4 * spread, TRIED_ROUGHLY)
        self._calm()
        self.recent.clear()

    def unsettle(self, jump: float) -> None:
        """Something near it moved by so much, so it may have moved as well."""
        self.variance = min(self.variance + jump * jump, LARGEST_DOUBT)

    def fear(self, jump: float) -> None:
        """The bucket's serving backend moved by so much; perhaps all did."""
        self.alarm = jump * jump
        self.unsettle(jump)

    def reassure(self) -> None:
        """It was not all of them."""
        self.variance = max(self.variance - self.alarm, SMALLEST_DOUBT)
        self.alarm = 0.0

    def revert(self, now: float, count: int) -> None:
        """Another bucket's jump, of the same time, was undone: this one most likely too."""
        self.level -= self.jump
        self.variance, self.jump = 10 * SMALLEST_DOUBT, 0.0
        self.seen, self.at = now, count

    def leave(self) -> None:
        """No longer served from: if it was just growing slower, remember since when."""
        jump = self.level - self.onset
        if self.streak and self.up > 0 and jump > MATERIAL:
            self.jump, self.jumped_at = jump, self.seen
            self._calm()
        self.illness.left(self.level, self.row, self.seen)

    def settle(self, warm: list[float], spread: float) -> None:
        """Take the level of these runs, for what was seen before them was warming up."""
        self.level, self.variance = sum(warm) / len(warm), spread / len(warm)
        self._calm()

    def observe(self, value: float, now: float, count: int, character: Character) -> float:
        """Take in a run.

        Args:
            value: Logarithm of its seconds.
            now: When it ended.
            count: The bucket's count of batches.
            character: The backend's; it learns from the run if the run was an ordinary one.

        Returns:
            By how much the level jumped; 0 if it only moved on.
        """
        silence, self.ran = now - self.ran, now
        if silence > character.silence:
            self.row = 0
        self.row += 1
        character.longest = max(character.longest, self.row)
        cold = character.cold if self.row <= character.cold_runs else 0.0
        if not self.runs:
            return self._begin(value, now, count, character, cold)
        if self.illness.well is not None:
            self._examine(value, now, character)
        if self.jump > LARGE and silence > SILENCE and self._is_undone(value, cold):
            self.level -= self.jump
            off = min(abs(value - self.level), abs(value - self.level - cold))
            self.variance = max(5 * SMALLEST_DOUBT, (0.15 * self.jump) ** 2, off * off)
            self.seen, self.at, self.jump, self.undone = now, count, 0.0, True
        before, residual, noise = self.doubt(now, count), value - self.level, character.spread
        if cold:
            residual, noise, cold = self._without_cold(residual, before, silence, character)
        before_run, total = self.level, before + noise
        limit, gain = CLIP * math.sqrt(total), before / total
        self.level += gain * (limit if residual > limit else -limit if residual < -limit else residual)
        self.variance = gain * noise
        self.runs += 1
        self.seen, self.at, self.alarm, self.old = now, count, 0.0, False
        self.recent.append(value)
        if cold:
            return 0.0
        if not self.streak:
            self.onset = before_run
        return self._changed(residual, noise, character)

    def _begin(self, value: float, now: float, count: int, character: Character, cold: float) -> float:
        """The first run; what is taken off for being cold is certain only where warming up is known."""
        known = character.warmed
        self.level = value - (cold if known else cold / 2)
        self.variance = character.spread + FIRST + cold * cold / (16 if known else 4)
        self.runs, self.seen, self.at, self.old = 1, now, count, False
        self.recent.append(value)
        return 0.0

    def _examine(self, value: float, now: float, character: Character) -> None:
        """A run of a backend that became slower: it may tell whether it still is."""
        sick = self.illness.tell(value, self.row, now, character)
        if sick is not None and self.illness.well is not None:
            self.level, self.variance = sick, 2 * TRIED_ROUGHLY
            self.jump = max(self.jump, sick - self.illness.well)
            self._calm()

    def _is_undone(self, value: float, cold: float) -> bool:
        """Whether a run is more like those before the jump than like those after it, be it cold or warm."""
        was = self.level - self.jump
        like_now = min(abs(value - self.level), abs(value - self.level - cold))
        return min(abs(value - was), abs(value - was - cold)) < like_now

    def _without_cold(
        self, residual: float, before: float, silence: float, character: Character
    ) -> tuple[float, float, float]:
        """A run that may be cold: the residual without what is likely of that, its noise, and how cold it was."""
        cold, spread = character.cold, character.spread
        if self.row == 1:
            self.chill = EVEN
        exponent = cold * (2 * residual - cold) / (2 * (before + spread))
        odds = self.chill / (1 - self.chill) * math.exp(max(-SURE, min(exponent, SURE)))
        share = self.chill = min(odds / (1 + odds), 1 - RULED_OUT)
        if share < RULED_OUT:
            if self.row == 1:
                self.row = character.cold_runs + 1
                if not self.jump and not self.undone:
                    character.silence = max(character.silence, min(silence, LONGEST_SILENCE))
            return residual, spread, 0.0
        return residual - share * cold, spread + (share * (1 - share) + share / 16) * cold * cold, cold

    def _changed(self, residual: float, noise: float, character: Character) -> float:
        z = residual / math.sqrt(noise)
        z = CHANGE_CLIP if z > CHANGE_CLIP else -CHANGE_CLIP if z < -CHANGE_CLIP else z
        up, down = self.up + z - STEP, self.down - z - STEP
        if up <= 0 and down <= 0:
            self._calm()
            character.learn(residual)
            if self.row >= STEADY:
                self.illness.steady(self.level)
            return 0.0
        self.streak += 1
        self.up, self.down = max(up, 0.0), max(down, 0.0)
        if up >= ALARM or down >= ALARM:
            return self._jump(character)
        if self.streak <= 2:  # noise still, most likely; of a change nothing is to be learnt about noise
            character.learn(residual)
        return 0.0

    def _jump(self, character: Character) -> float:
        """Begin again at the median of the runs since the change."""
        runs = min(self.streak, len(self.recent))
        since = sorted(list(self.recent)[-runs:])
        jump = (since[runs // 2] + since[(runs - 1) // 2]) / 2 - self.onset
        self.level, self.variance = self.onset + jump, 1.5 * character.spread / runs
        self._calm()
        if jump > 0:
            self.jump, self.jumped_at = jump, self.seen
        elif self.jump:
            self.undone = jump < -self.jump / 2
            self.jump = 0.0
        return jump

    def _calm(self) -> None:
        self.up = self.down = 0.0
        self.streak = 0
