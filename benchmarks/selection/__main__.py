"""Play policies in the frozen world: print a Markdown table per family, write benchmarks/results/selection.json.

    python -m benchmarks.selection [--every N] [--policy NAME]

With --every only each N-th seed is played and nothing is written; with --policy the other policies' results are kept.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.selection.baselines import AlwaysB, AlwaysWorst, Baseline, Calibrated, EpsilonGreedy, Oracle, Ucb
from benchmarks.selection.conditions import Conditions, realise
from benchmarks.selection.hindsight import Hindsight, look_back
from benchmarks.selection.interface import Factory, Policy
from benchmarks.selection.manifest import CONDITIONS, SCORES, SPECIFICATIONS
from benchmarks.selection.scenarios import FAMILIES, SEEDS, frozen
from benchmarks.selection.score import Score, Summary, bars, score, summarise
from benchmarks.selection.world import play
from server.selection.policy import Selector

RESULT = Path(__file__).parents[1] / "results" / "selection.json"
Entry = Callable[[Conditions, Hindsight], Policy]


def blind(factory: Factory) -> Entry:
    """A policy that is told the buckets and nothing else."""
    return lambda conditions, _: factory(conditions.scenario.buckets)


POLICIES: dict[str, Entry] = {
    "always A": blind(Baseline),
    "always B": blind(AlwaysB),
    "always worst": AlwaysWorst,
    "calibrated once": blind(Calibrated),
    "ε-greedy": blind(EpsilonGreedy),
    "UCB": blind(Ucb),
    "segue": blind(Selector),
    "oracle": Oracle,
}


def measure(names: Sequence[str], seeds: range) -> dict[str, list[Score]]:
    """Play the scenarios of some seeds with the named policies; scores in the scenarios' order."""
    scores: dict[str, list[Score]] = {name: [] for name in names}
    for scenario in frozen(seeds):
        conditions = realise(scenario)
        hindsight = look_back(conditions)
        for name in names:
            record = play(conditions, POLICIES[name](conditions, hindsight))
            scores[name].append(score(conditions, hindsight, record))
    return scores


def report(scores: Sequence[Score]) -> dict[str, Any]:
    """Summaries for all scenarios, with the bars, and per family, ready for JSON."""
    total = summarise(scores)
    parts = {family: summarise([s for s in scores if s.family == family]) for family in FAMILIES}
    return {
        "all": _rounded(total),
        "bars": bars(total),
        "families": {family: _rounded(part) for family, part in parts.items()},
    }


def _rounded(summary: Summary) -> dict[str, float | None]:
    return {
        key: None if math.isnan(value) else round(value, 5) if isinstance(value, float) else value
        for key, value in asdict(summary).items()
    }


COLUMNS = (
    ("lost, median", "lost_median", 100, "%"),
    ("p95", "lost_p95", 100, "%"),
    ("switches per bucket and hour, median", "switches_median", 1, ""),
    ("most", "switches_max", 1, ""),
    ("calm", "calm_share", 100, "%"),
    ("batches until left, median", "left_median", 1, ""),
    ("most ", "left_max", 1, ""),
    ("within 20", "left_within", 100, "%"),
    ("exploration, median", "exploration_median", 100, "%"),
    ("p95 ", "exploration_p95", 100, "%"),
    ("client failures", "client_failures", 1, ""),
)


def table(title: str, rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table with a policy per row."""
    lines = [f"### {title}", "", f"| policy | {' | '.join(name for name, *_ in COLUMNS)} |", "|---" * 12 + "|"]
    for policy, row in rows.items():
        cells = [
            "-" if row[key] is None else f"{row[key] * factor:.{1 if isinstance(row[key], float) else 0}f}{unit}"
            for _, key, factor, unit in COLUMNS
        ]
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def show(policies: dict[str, Any]) -> None:
    """Print every table."""
    for family in FAMILIES:
        print(table(family.replace("_", " "), {name: found["families"][family] for name, found in policies.items()}))
    print(table("all", {name: found["all"] for name, found in policies.items()}))
    for name, found in policies.items():
        missed = [bar for bar, met in found["bars"].items() if not met]
        print(f"{name}: {'misses ' + ', '.join(missed) if missed else 'meets every bar'}")


def main() -> None:
    """Play, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="play each N-th seed only, write nothing")
    parser.add_argument("--policy", choices=list(POLICIES), action="append", help="play this one (repeatable)")
    options = parser.parse_args()
    begin = time.process_time()
    played = measure(options.policy or list(POLICIES), SEEDS[:: options.every])
    policies = {name: report(scores) for name, scores in played.items()}
    print(f"{time.process_time() - begin:.0f} s of processor time\n")
    digests = {"specifications": SPECIFICATIONS, "conditions": CONDITIONS, "scores": SCORES}
    if options.every == 1:
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        earlier = kept["policies"] if kept.get("world") == digests else {}
        policies = {name: {**earlier, **policies}[name] for name in POLICIES if name in {**earlier, **policies}}
        RESULT.write_text(json.dumps({"world": digests, "policies": policies}, indent=1, ensure_ascii=False) + "\n")
    show(policies)


if __name__ == "__main__":
    main()
