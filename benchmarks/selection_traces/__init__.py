"""1,200 frozen traces against which a policy that chooses backends is judged; made before, and without regard to, it.

Each trace is a list of batches (second, bucket) and the exact duration that each of two to four backends would have
had for each batch, so that the best choice in hindsight is exact. A judge plays a policy through `families.traces()`:
it shows the policy `calibration` (for a backend that joins late, from `ready` on), then for each batch the time, the
bucket and the duration of what was chosen; on failure it lets the policy choose another one, and adds up `elapsed`.
Idle probes are answered from `golden`. It never shows `level`, `episodes` or what was not chosen.

What is lost is counted against three hindsights, exact in `hindsight`: the best constant choice per bucket
(`per_bucket`), the best per bucket and minute (`per_window`), the best per batch (`per_batch`). The last two know noise
in advance, so no policy reaches 0 against them: where a minute holds three batches, the second is nearly the third. The
bounds (window, oracle) hold for the 95th percentile of a family's 48 seeds; `families` says how they were found. The
player that they stand on sees levels 5 to 15 batches or 20 seconds late. Over all 1,200 traces it loses 0.0 % at the
median and 7.0 % at the 95th percentile against the first hindsight, 0.8 and 19 % against the second, 4.5 and 35 %
against the third.

What happens, and what a good policy does (bounds in % of time lost: against the best per minute, against the oracle):

Machines
    contention (15, 21): neighbours slow the good backend most. Leave within 20 batches, come back when it is over.
    thermal_steps (6, 9): the clock moves for all. Don't compare a fresh sample of one with a stale one of the other.
    common_stalls (8, 10): the host stops everything at times. Never switch for what strikes all alike.
    cold_after_idle (18, 41): first batches after silence are slow. Take them into the mean, not for a change.
    collector_spikes (14, 43): regular pauses; in a third of the traces they outweigh the speed. Judge by the mean
        over many periods, neither by the median nor by a spike. Near break-even both choices lose little.
    bandwidth (4, 11): close batches disturb each other, golden runs never are. Believe served batches.
    two_modes (6, 18): a slow mode that stays for minutes is followed, one that stays for moments is averaged.
    leak (5, 10): 0.1 to 2 % a minute. Notice a slow crossing, and the restart that undoes it.
    clockwork (15, 42): a task slows the good backend for some seconds of each minute. Staying put is best within 1 %;
        who leaves must come back within seconds. The informed player loses 27 here: always a period too late.

Workloads
    hot_bucket (4, 6): a bucket comes up after most of the trace, its calibration perhaps stale. Doubt old figures.
    moving_crossover (5, 7): which batch sizes a backend is good at changes. Decide per bucket, relearn each.
    late_compiled (5, 7): a candidate joins, stutters, and then wins large batches only. Give it a second look.
    calibration_liar (4, 6): fastest when idle, each time it is asked, slow when serving. Believe served batches.
    near_ties (9, 33): differences are a tenth of the noise. Don't switch.
    sparse (47, 48): a batch a minute. 15 batches are a quarter of an hour, so use idle probes and large effects.
    dense (10, 17): hundreds a second, degradations of seconds. Decide by count, let no dwell of a minute stop it.

Faults
    failing_runs (7, 10): failures at once, after a time-out, as NaN, or now and then. A quick failure is no speed.
    poisoned (5, 8): inputs that fail everywhere, also sent again and again. They count against nobody.
    healing (25, 33): 2 to 10 times slower for minutes, and well again. A factor of 5 needs three batches, not 20, to
        be seen; backing off for longer than the illness costs as much as the illness.
    everything (10, 13): four backends, six buckets, a bit of all.

Adversaries
    costly_rivals (4, 6): each look at a hopeless rival costs 10 to 100 runs. Explore by time, not by count.
    late_reversal (5, 8): a long calm, then the ranking turns. Forget old runs.
    misleading_last (4, 21): one backend alternates between quick and slow. A mean, never the last run.
    seesaw (23, 32): two backends change places every few minutes, the one heals as the other falls. Short memories,
        and a probe of the other at once when the own one falls.
    decoys (6, 67): slow runs laid where the last one drives the hasty. Wait for evidence.
"""
