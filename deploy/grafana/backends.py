"""The dashboard "Backends compared": which backend answers in each bucket, why, and what the others would take."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana import parts

_VERSION = 'model="$model", version=~"$version"'
_SIGNATURE = f'{_VERSION}, signature=~"$signature"'
_HERE = f'{_SIGNATURE}, bucket=~"$bucket"'
_ROW = f'{_SIGNATURE}, bucket="$bucket"'

_RUNS = "segue_batch_run_seconds"
_ESTIMATE = f"segue_backend_estimate_seconds{{{_HERE}}}"
_SELECTED = f"segue_backend_selected{{{_HERE}}}"
_BY = "version, signature, bucket"

_KINDS = {
    "onnxruntime-(cpu|cuda).*": ("ONNX Runtime", "blue"),
    "openvino-[a-z]+": ("OpenVINO", "orange"),
    "openvino-[a-z]+-bf16": ("OpenVINO bf16", "semi-dark-orange"),
    "openvino-[a-z]+-fp16": ("OpenVINO fp16", "dark-orange"),
    "torch-[a-z]+": ("torch", "#c9b037"),
    "torch-[a-z]+-bf16": ("torch bf16", "semi-dark-yellow"),
    "torch-[a-z]+-fp16": ("torch fp16", "dark-yellow"),
    "onnxruntime-tensorrt.*": ("TensorRT", "green"),
}
"""How those that answer are shown: what matches a backend's name, text and colour."""

_SWITCHES = f"segue_backend_switches_total{{{_HERE}}}"
_OF_SWITCHES = f"{_BY}, from, to, reason"
MARKS = (
    f"sum by ({_OF_SWITCHES}) (increase({_SWITCHES}[$__rate_interval])) > 0"
    f" or sum by ({_OF_SWITCHES}) ({_SWITCHES} unless {_SWITCHES} offset $__rate_interval)"
)
"""A series begins with its first switch, which no increase shows."""
_IN_RANGE = (
    f"sum by (bucket, from, to, reason) ({_SWITCHES})"
    f" - (sum by (bucket, from, to, reason) ({_SWITCHES} offset $__range)"
    f" or sum by (bucket, from, to, reason) (0 * {_SWITCHES})) > 0"
)


class _SwitchAnnotation(models.AnnotationQuery):
    """With what the datasource's plugin reads besides: the texts, and how finely to look."""

    def to_json(self) -> dict[str, object]:
        """See AnnotationQuery."""
        return {
            **super().to_json(),
            "titleFormat": "{{from}} → {{to}}",
            "textFormat": "batches of up to {{bucket}}, signature {{signature}}: {{reason}}",
            "tagKeys": "reason,to",
            "step": "15s",
        }


class _Switches(builders.AnnotationQuery):
    """Marks on every panel."""

    def __init__(self) -> None:
        super().__init__()
        self._internal = _SwitchAnnotation(name="Switches", datasource=parts.SOURCE, icon_color="purple", expr=MARKS)


def dashboard() -> builders.Dashboard:
    """All of it."""
    made = parts.begin(
        "Segue: backends compared",
        "segue-backends",
        "Which backend answers, for each model and batch size, and what the others take.",
    )
    series = f'{_RUNS}_count{{model="$model"'
    made = (
        made.with_variable(parts.variable("model", "Model", "segue_model_version_state"))
        .with_variable(parts.variable("version", "Version", f"{series}}}", every=True))
        .with_variable(parts.variable("signature", "Signature", f"{series}}}", every=True))
        .with_variable(parts.variable("bucket", "Rows up to", f"{series}}}", every=True))
        .with_variable(parts.variable("backend", "Backend", f"{series}}}", every=True))
        .annotation(_Switches())
    )
    for panel in (*_choice(), *_cost(), *_distributions(), *_candidates()):
        made = made.with_panel(panel)
    made = made.with_row(builders.Row("Batches of up to $bucket rows").repeat("bucket"))
    for panel in _bucket():
        made = made.with_panel(panel)
    return made


def _who() -> str:
    """A number for each backend that answers, in the order of `_KINDS` from 1; 0 for another."""
    numbered = [f"{number} * {_answers(name)}" for number, name in enumerate(_KINDS, start=1)]
    return " or ".join([*numbered, f"0 * {_answers('.+')}"])


def _answers(name: str) -> str:
    return f'max by ({_BY}) (segue_backend_selected{{{_HERE}, backend=~"{name}"}} == 1)'


def _choice() -> list[parts.Panel]:
    chosen = f"max by (backend, {_BY}) ({_ESTIMATE} and {_SELECTED} == 1)"
    other = f"min by ({_BY}) ({_ESTIMATE} and {_SELECTED} == 0)"
    texts = {str(index): kind for index, kind in enumerate(_KINDS.values(), start=1)}
    return [
        parts.states(
            "Who answers",
            "The backend that answers, for each size of batch; violet marks are switches.",
            (_who(), "{{signature}} ≤ {{bucket}}"),
            {**texts, "0": ("another", "#5a5a5a")},
        ),
        parts.bars(
            "Gain over the best other backend",
            "By how much less time a run takes, by the policy's estimates; below zero while it learns, or is pinned.",
            "percentunit",
            (f"1 - max by ({_BY}) ({chosen}) / {other}", "{{signature}} ≤ {{bucket}}"),
        ).max(1),
        parts.rows(
            "Switches, and why",
            "In the time shown, by the reason's class; the log and the server's own page have the words.",
            (_IN_RANGE, ""),
            {"bucket": "rows up to", "from": "from", "to": "to", "reason": "reason", "Value": "times"},
            none="No switch in the time shown",
        ),
    ]


def _cost() -> list[parts.Panel]:
    busy = f"segue_backend_busy_seconds_total{{{_SIGNATURE}}}"
    failures = f"segue_backend_failures_total{{{_SIGNATURE}}}"
    by_kind, by_kind_before = (f"sum by (backend, kind) ({failures}{shift})" for shift in ("", " offset 1h"))
    learning = f'segue_backend_busy_seconds_total{{{_SIGNATURE}, purpose!="serve"}}'
    return [
        parts.lines(
            "Time of runs, by what they are for",
            "Answers of the backend chosen, answers to learn about another, golden inputs while idle.",
            "percentunit",
            [(f"sum by (purpose) (rate({busy}[$__rate_interval]))", "{{purpose}}")],
            stacked=True,
        ),
        parts.number(
            "Exploration",
            "Share of busy time that went into learning over an hour; the promise is 1 %.",
            "percentunit",
            (f"sum(rate({learning}[1h])) / sum(rate({busy}[1h]))", "share"),
            bad=0.01,
            height=8,
        ),
        parts.by_backend(
            parts.lines(
                "Failures that another backend stepped in for",
                "In the hour before: runs that raised, or answered with values that are not finite.",
                "short",
                [(f"{by_kind} - ({by_kind_before} or 0 * {by_kind})", "{{backend}}: {{kind}}")],
                span=8,
                none="No run has failed",
            )
        ),
    ]


def _distributions() -> list[parts.Panel]:
    rates = f'rate({_RUNS}_bucket{{{_HERE}, backend="$backend"}}[$__rate_interval])'
    panel = parts.distribution(
        "Runs of $backend", "How long its runs take, for the buckets chosen above.", f"sum by (le) ({rates})"
    )
    return [panel.repeat("backend").repeat_direction("h")]


def _candidates() -> list[parts.Panel]:
    of_version = f"{{{_VERSION}}}"
    return [
        parts.rows(
            "Candidates",
            "How far each backend is with the version.",
            (f"max by (version, backend, state) (segue_candidate_state{of_version}) == 1", ""),
            {"backend": "backend", "state": "state", "version": "version", "Value": ""},
            span=7,
        ),
        parts.rows(
            "Largest differences from TensorFlow",
            "On golden inputs, measured on this machine when the backend was loaded.",
            (f"max by (version, signature, output, backend) (segue_proof_max_absolute_difference{of_version})", ""),
            {"backend": "backend", "output": "output", "Value": "difference", "signature": "signature", "version": ""},
            unit="sci",
            span=10,
        ),
        parts.bars(
            "What bringing a backend up took",
            "Preparing (compiling, say), loading and proving.",
            "s",
            (f"max by (version, backend) (segue_model_load_seconds{of_version})", "{{backend}} ({{version}})"),
            span=7,
        ),
        parts.states(
            "Left out because they fail",
            "Backends in quarantine, in one size of batch at least.",
            (f"max by (backend) (segue_backend_quarantined{{{_HERE}}})", "{{backend}}"),
            {"1": ("quarantined", "red"), "0": ("fit", "#3a3a3a")},
            height=6,
        ),
    ]


def _bucket() -> list[parts.Panel]:
    rates = f"sum by (le, backend) (rate({_RUNS}_bucket{{{_ROW}}}[$__rate_interval]))"
    counts = f"rate({_RUNS}_count{{{_ROW}}}[$__rate_interval])"
    quantiles = [(f"histogram_quantile({q}, {rates})", f"{{{{backend}}}} p{round(100 * q)}") for q in (0.5, 0.95)]
    estimates = (
        f"min by (backend) (segue_backend_estimate_seconds{{{_ROW}}})",
        "{{backend}}",
    )
    panels = [
        parts.lines("Runs of up to $bucket rows", "Median and 95th percentile of batches.", "s", quantiles, span=10),
        parts.lines("Estimates", "What a run takes now, by the policy's estimate.", "s", [estimates], span=7),
        parts.lines(
            "Batches",
            "Runs per second, by the backend that made them.",
            "ops",
            [(f"sum by (backend) ({counts})", "{{backend}}")],
            span=7,
            stacked=True,
        ),
    ]
    return [parts.by_backend(panel) for panel in panels]
