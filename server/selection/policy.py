"""The policy: which backend runs a batch of one model version. The rules meet here; each is told in its own module.

Not safe for threads: the caller holds a lock. The clock is passed in and never goes back.
"""

import math
from collections.abc import Sequence
from typing import Any

from server.selection import calibration, instead, news, persistence
from server.selection.blame import Court
from server.selection.budget import Budget
from server.selection.character import LONGEST_WARMING, Objective
from server.selection.history import FASTER, FORCED, PINNED, TRIAL, History, Switch, against
from server.selection.interface import Calibration, Decision, Failure, Outcome
from server.selection.pairs import CHURN_SECONDS, Bucket, Pair, Table
from server.selection.states import Health, State
from server.selection.weighing import ALARMED, MARGIN, Proposal, weigh

EVERY = 4  # batches between two considerations of a bucket in which nothing happens
SETTLED, CONFIRM = 12, 12  # batches after a switch: considered each time until then; confirmed if it lasted
DWELL = 6  # warm batches before a switch is taken back, unless the new backend is slower by
DISAPPOINTING = 0.7  # (twice)
TRIED, KNOWN = 20, 5  # batches since the last switch, and runs of the selected backend, before another is tried
CHECKED = 3  # warm batches in which a check must show that the backend is ill
PLAIN, SURE = 0.15, 1.6  # a gain, and its certainty in standard deviations, for which no restraint holds
WORTH_KEEPING = 0.1  # the gain of a switch that turned out well
PRICE = 0.005  # the expected improvement that a look must promise while the purse is half full
# So many warm runs show what was cold, and as far behind may it be for that (five times slower);
# seconds between two searches for one that was never served for long enough; switches that must be left; batches since
# the last switch.
WARM_RUNS, NOT_WARMED, WARM_PAUSE, WARM_SWITCHES, UNDISTURBED = 4, 1.6, 10.0, 1, 30
RETURNED = 0.7  # a backend that comes back may be another than before, twice as fast or slow
NOT_IDLE = 3.0  # seconds that a quarantined backend waits for an idle moment before a batch is tried on it
AGAIN = 30.0  # seconds until that is repeated, if nothing comes of it
POOR = 15.0  # seconds until a quarantined backend is asked again that could not be afforded
PAROLE = 90.0  # seconds in quarantine after which one that can't be afforded serves again, at one failure's notice
WASTED = 1.5  # typical times that a failed run costs: half of its own, and another backend's
ASKED_EVERY = 1.0  # seconds between two searches for what to calibrate


class Selector:
    """Chooses backends so that the objective is least, per bucket.

    Attributes:
        table: All pairs of backend and bucket.
        budget: What exploration may cost, and how many switches may be made.
        history: The last switches.
    """

    def __init__(self, buckets: Sequence[int], objective: Objective = Objective.MEAN) -> None:
        self.table = Table(buckets, objective)
        self.budget, self.history = Budget(), History()
        self._court = Court()
        self._pinned: tuple[str, ...] = ()
        self._asked, self._wishes, self._warmed_at = -math.inf, 0, -math.inf

    def backend_state(self, backend: str, *, available: bool, now: float, reason: str = "") -> None:
        """A backend is proved and loaded, or was taken away."""
        table = self.table
        table.present = [name for name in table.present if name != backend]
        if not available:
            table.stages[backend] = State.AWAY, reason or "not loaded"
            for bucket in table.buckets.values():
                if bucket.selected is not None and bucket.selected.backend == backend:
                    bucket.selected = bucket.previous = None
                bucket.probe = None
            return
        known = backend in table.characters
        table.stages.pop(backend, None)
        table.add(backend, now)
        table.present = sorted([*table.present, backend])
        for bucket in table.buckets.values():
            pair, bucket.due = bucket.pairs[backend], 0
            if known:
                pair.health = Health()
                if not pair.estimate.old:
                    pair.estimate.unsettle(RETURNED)

    def stage(self, backend: str, state: State, reason: str = "") -> None:
        """A backend that can't be had yet, or ever: it is being built or proved, or was rejected."""
        self.table.stages[backend] = state, reason

    def pin(self, order: Sequence[str] | str | None) -> None:
        """Serve from the first of these that is there and not quarantined; None to choose freely again."""
        released, self._pinned = bool(self._pinned), (order,) if isinstance(order, str) else tuple(order or ())
        for bucket in self.table.buckets.values():
            bucket.due, bucket.probe = 0, None
            bucket.released = (released or bucket.released) and not self._pinned

    @property
    def pinned(self) -> tuple[str, ...]:
        """The pinned backends in order of preference; empty if the choice is free."""
        return self._pinned

    def choose(self, bucket: int, now: float, failed: Sequence[str] = ()) -> Decision:
        """Choose for a batch that starts now.

        Args:
            bucket: The batch's bucket.
            now: Seconds.
            failed: The backends that this batch failed on already.

        Raises:
            ValueError: No backend is available that hasn't failed the batch.
        """
        place = self.table.buckets[bucket]
        if failed:
            return instead.of_failed(self.table, place, failed).decision
        place.count, place.asked_at = place.count + 1, now
        selected = place.selected
        if selected is None or selected.health.reason is not None or self._pinned or place.released:
            selected = self._reselect(place, now)
        if self._pinned and selected.backend in self._pinned:
            return selected.decision
        if place.count >= place.due:
            selected = self._consider(place, selected, now)
        look, place.probe = place.probe, None
        if place.retry_at + NOT_IDLE <= now and selected.health.reason is None:
            look = self._ask_again(place, now) or look
        if look is None or look is selected or look.backend not in self.table.present:
            return selected.decision
        look.exploring += 1
        return look.look

    def observe(self, outcome: Outcome, now: float) -> None:
        """A run ended."""
        bucket = self.table.buckets.get(outcome.bucket)
        pair = bucket.pairs.get(outcome.backend) if bucket is not None else None
        if bucket is None or pair is None:
            return
        batch, exploring = outcome.batch, outcome.batch is None
        failed_before = None if batch is None else self._court.is_exploring(batch)
        if failed_before is not None:
            exploring = failed_before
        elif batch is not None and pair.exploring:
            pair.exploring -= 1
            exploring = True
        if batch is not None or self._wishes:  # what was measured without being asked for, as proofs are, is free
            self._wishes -= batch is None
            self.budget.ran(outcome.seconds, exploring=exploring)
        if outcome.failure is not None:
            if batch is None:
                self._blame(pair, outcome.failure, now)
            else:
                self._court.failed(batch, pair, outcome.failure, self.table.present, exploring=exploring)
            return
        if batch is not None and failed_before is not None:
            for culprit, failure in self._court.answered(batch):
                self._blame(culprit, failure, now)
        self._learn(pair, outcome, now)

    def idle(self, now: float) -> Calibration | None:
        """Nothing runs and nothing waits: what to calibrate, if anything."""
        wish = calibration.ask_again(self.table, self.budget, now)
        if wish is None and now >= self._asked and not self._pinned:
            wish = calibration.missing(self.table, self.budget)
            if wish is None:
                self._asked = now + ASKED_EVERY
        self._wishes += wish is not None
        return wish

    def has_no_inputs(self, bucket: int) -> None:
        """What `idle` wanted can't be run: there are no golden inputs of this size, nor will there be."""
        self.table.buckets[bucket].has_inputs = False
        self._wishes -= 1

    def disturbed(self, seconds: float) -> None:
        """What `idle` wanted was run, beside something else: it cost so much and tells nothing."""
        self._wishes -= 1
        self.budget.ran(seconds, exploring=True)

    def snapshot(self, now: float) -> dict[str, Any]:
        """What is selected, and each pair's state, as plain data."""
        return persistence.snapshot(self.table, self.budget, self.history, self._pinned, now)

    def export(self, now: float) -> dict[str, Any]:
        """Everything that was learnt, as JSON-able data, with ages instead of times."""
        return persistence.export(self.table, self.budget, self.history, now)

    def restore(self, data: object, now: float) -> None:
        """Take up what was exported; estimates are marked old and looked at again.

        Raises:
            ValueError: The data isn't such an export. Nothing was taken up.
        """
        persistence.restore(self.table, self.budget, self.history, data, now)

    def _reselect(self, bucket: Bucket, now: float) -> Pair:
        """Where to go when the selected pair can't be had, or the operator has a say."""
        before = bucket.selected
        chosen = instead.of_selected(self.table, bucket, self._pinned)
        if chosen is not before:
            left = bucket.last
            bucket.select(chosen)
            if left is not None:
                news.remember(self.table, left)
            if left is not None and left is not chosen:
                self._note(bucket, now, left, chosen, *instead.why(self.table, bucket, left, chosen, self._pinned))
        bucket.released = False
        return chosen

    def _consider(self, bucket: Bucket, selected: Pair, now: float) -> Pair:
        """Compare, and switch, try or have a look if it is worth that."""
        since = bucket.count - bucket.switched_at
        bucket.due = bucket.count + (EVERY if since > SETTLED else 1)
        if not selected.estimate.runs:
            return selected
        if bucket.previous is not None and since >= CONFIRM and news.confirmed(self.table, bucket) > WORTH_KEEPING:
            self.budget.switches.proved_right()
        for pair in bucket.pairs.values():
            if pair is not selected and pair.then:
                news.follow(self.table, pair)
        found, alarmed = weigh(self.table, bucket, selected, now), bucket.count - bucket.alarmed_at < ALARMED
        if found.better is not None and self._may_switch(bucket, selected, found, since, now):
            self._switch(bucket, selected, found.better, now)
            return found.better
        if bucket.count < bucket.patient_until:
            return selected
        if found.look is not None and self._may_look(found.look, found.worth, alarmed=alarmed):
            bucket.probe = found.look
        elif (
            found.trial is not None
            and since >= TRIED
            and selected.estimate.runs >= KNOWN
            and self._allows(1 if alarmed and not found.is_check else 2, now)
        ):
            self._try(bucket, selected, found.trial, now, is_check=found.is_check)
            return found.trial
        else:
            return self._warm(bucket, selected, since, now) or selected
        return selected

    def _try(self, bucket: Bucket, selected: Pair, tried: Pair, now: float, *, is_check: bool) -> None:
        """Serve from a backend to find out about it: what it is, or whether it is well again."""
        if is_check:
            tried.estimate.hope(tried.character.spread)
        self._switch(bucket, selected, tried, now, TRIAL)
        if is_check:
            bucket.left_to_check, bucket.checked_at = selected, now
        else:
            bucket.alarmed_at = bucket.count  # be as quick to take it back

    def _warm(self, bucket: Bucket, selected: Pair, since: int, now: float) -> Pair | None:
        """Try, once, a backend of which too few runs in a row were seen to tell that it doesn't become faster yet."""
        if since < UNDISTURBED or now < self._warmed_at + WARM_PAUSE or not self._allows(WARM_SWITCHES, now):
            return None
        self._warmed_at = now
        for pair in self.table.usable(bucket):
            character = pair.character
            seen = character.longest > LONGEST_WARMING or (character.warmed and character.cold_runs > 0)
            known = seen or not pair.estimate.runs
            if not known and pair is not selected and self.table.cost(pair) - self.table.cost(selected) < NOT_WARMED:
                self._switch(bucket, selected, pair, now, TRIAL)
                character.longest = LONGEST_WARMING + 1
                bucket.patient_until = bucket.count + LONGEST_WARMING + WARM_RUNS
                return pair
        return None

    def _may_switch(self, bucket: Bucket, selected: Pair, found: Proposal, since: int, now: float) -> bool:
        if bucket.count < bucket.patient_until and found.gain <= NOT_WARMED:
            return False
        if bucket.left_to_check is not None and since <= selected.character.cold_runs + CHECKED:
            return selected.estimate.illness.denied_at > bucket.checked_at
        if found.gain <= MARGIN * (1 + bucket.recent_switches(now)):
            return False
        character, estimate = selected.character, selected.estimate
        if since < DWELL + character.cold_runs:
            cold = character.cold if estimate.row <= character.cold_runs else 0.0
            if found.gain <= DISAPPOINTING + cold:
                return False
        plain = found.gain > PLAIN and found.gain > SURE * found.deviation
        seen = found.better is not None and not found.better.estimate.alarm
        return self._allows(1, now) or (plain and seen)

    def _allows(self, switches: int, now: float) -> bool:
        return self.budget.switches.allows(switches, now, self.table.busy(now))

    def _may_look(self, pair: Pair, worth: float, *, alarmed: bool) -> bool:
        left = self.budget.left(math.exp(self.table.cost(pair)))
        if alarmed and pair.estimate.alarm:
            return left > 0
        return left > 0 and worth > PRICE * (1 / left - 1)

    def _switch(self, bucket: Bucket, old: Pair, new: Pair, now: float, kind: str = FASTER) -> None:
        prefix = "trial: " if kind == TRIAL else ""
        reason = prefix + against(self.table, bucket, new, old)
        bucket.select(new)
        if new is bucket.left_to_check:
            bucket.previous = None  # no switch that could turn out well, but the end of a check
        bucket.left_to_check = None
        news.remember(self.table, old)
        self._note(bucket, now, old, new, reason, kind)

    def _note(self, bucket: Bucket, now: float, old: Pair, new: Pair, reason: str, kind: str) -> None:  # noqa: PLR0917 - a switch's facts
        self.history.append(Switch(now, bucket.size, old.backend, new.backend, reason, kind))
        if kind == PINNED:
            bucket.previous = None
        if kind in FORCED:  # what operators and failures make necessary is no reason to be slow about the way back
            return
        self.budget.switches.switched()
        bucket.churn = 1 + bucket.churn * math.exp((bucket.churned_at - now) / CHURN_SECONDS)
        bucket.churned_at = now

    def _learn(self, pair: Pair, outcome: Outcome, now: float) -> None:
        """Take in an answered run, and tell other pairs what it says about them."""
        table, bucket, estimate = self.table, pair.bucket, pair.estimate
        if pair.health.answer(now):
            for one in (pair, *table.siblings(pair)):
                one.health.release_on_parole(now)
                one.bucket.due = 0
        elif pair.health.reason is not None:
            bucket.retry_at = now
        serves = pair is bucket.selected
        if not serves:
            news.follow(table, pair)
        before, feared, hoped = estimate.level, estimate.alarm, estimate.illness.hopes
        deviation = 0.0 if serves else math.sqrt(estimate.doubt(now, bucket.count) + pair.character.spread)
        value = math.log(max(outcome.seconds, 1e-9))
        jump = estimate.observe(value, now, bucket.count, pair.character)
        if estimate.illness.well is not None:
            news.examined(table, pair, now, hoped=hoped)
        if estimate.runs <= news.FIRST_RUNS and news.warming(table, pair, now):
            jump = 0.0
        if jump:
            news.jumped(table, pair, jump)
        if estimate.undone:
            news.recovered(table, pair, now)
        if not serves:
            news.looked(table, pair, value - before, feared, deviation)
            news.remember(table, pair)

    def _blame(self, pair: Pair, failure: Failure, now: float) -> None:
        bucket = pair.bucket
        if failure is Failure.LEFT:
            pair.health.leave(now)
        else:
            pair.character.fail(WASTED)
            pair.health.fail(now, failure)
            for sibling in self.table.siblings(pair):
                sibling.health.hear()
        if pair.health.reason is not None and self.table.waits_for_smaller(pair):
            pair.health.wait_for_another(now)
        bucket.retry_at = min(bucket.retry_at, pair.health.retry_at)
        bucket.due = 0

    def _may_parole(self, pair: Pair, now: float) -> bool:
        """Whether to end a quarantine without proof; a smaller bucket, if it waits as well, does that for less."""
        health = pair.health
        long = now - health.since > PAROLE * (1 + health.relapses)
        return long and not self.table.waits_for_smaller(pair) and self._allows(1, now)

    def _ask_again(self, bucket: Bucket, now: float) -> Pair | None:
        """A quarantined backend that no idle moment came for, to be tried on a batch."""
        bucket.retry_at, found = math.inf, None
        for pair in (bucket.pairs[name] for name in self.table.present):
            health = pair.health
            if health.reason is None:
                continue
            if health.retry_at + NOT_IDLE <= now:
                if calibration.affordable(self.table, self.budget, pair):
                    found, health.retry_at = pair, now + AGAIN
                elif self._may_parole(pair, now):
                    health.release_on_parole(now)
                    bucket.due = 0
                    continue
                else:
                    health.retry_at = now + POOR
            bucket.retry_at = min(bucket.retry_at, health.retry_at)
        return found
