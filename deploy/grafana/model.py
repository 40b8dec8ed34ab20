"""The dashboard "Model": what one model's clients see, and what their requests spend their time on."""

from grafana_foundation_sdk.builders import dashboard as builders

from deploy.grafana import parts

_VERSION = 'model="$model", version=~"$version"'
_HERE = f'{_VERSION}, signature=~"$signature"'
_RATE = "[$__rate_interval]"

_STATES = {
    "10": ("start", "yellow"),
    "20": ("loading", "blue"),
    "30": ("available", "green"),
    "40": ("unloading", "purple"),
    "50": ("failed", "red"),
}


def dashboard() -> builders.Dashboard:
    """All of it."""
    series = 'segue_request_latency_seconds_count{model="$model"}'
    made = (
        parts.begin("Segue: model", "segue-model", "One model's requests, versions and batches.")
        .with_variable(parts.variable("model", "Model", "segue_model_version_state"))
        .with_variable(parts.variable("version", "Version", series, every=True))
        .with_variable(parts.variable("signature", "Signature", series, every=True))
    )
    for panel in (*_requests(), *_stages(), *_batches(), *_versions()):
        made = made.with_panel(panel)
    return made


def _requests() -> list[parts.Panel]:
    latency = f"sum by (le) (rate(segue_request_latency_seconds_bucket{{{_HERE}}}{_RATE}))"
    quantiles = [(f"histogram_quantile({q}, {latency})", f"p{100 * q:g}") for q in (0.5, 0.95, 0.99)]
    ended = 'segue_requests_total{model="$model"'
    return [
        parts.by_code(
            parts.lines(
                "Requests",
                "Requests per second, by how they end.",
                "reqps",
                [(f"sum by (method, code) (rate({ended}}}{_RATE}))", "{{method}}: {{code}}")],
                stacked=True,
            )
        ),
        parts.lines("Latency", "Of answers, from the request's bytes to the answer's bytes.", "s", quantiles),
        parts.lines(
            "Share of requests that end with an error",
            "Of all kinds, the client's own mistakes included.",
            "percentunit",
            [(f'sum(rate({ended}, code!="OK"}}{_RATE})) / sum(rate({ended}}}{_RATE}))', "share")],
            usual=0.05,
        ),
        parts.lines(
            "Refused",
            "Requests for which there was no room or no time, per second.",
            "reqps",
            [(f'sum by (reason) (rate(segue_refused_requests_total{{model="$model"}}{_RATE}))', "{{reason}}")],
            none="None was refused",
        ),
    ]


def _stages() -> list[parts.Panel]:
    stage = "segue_request_stage_seconds"
    requests = f'sum(rate({stage}_count{{{_HERE}, stage="run"}}{_RATE}))'
    spent = f"sum by (stage) (rate({stage}_sum{{{_HERE}}}{_RATE}))"
    by_stage = f"sum by (le, stage) (rate({stage}_bucket{{{_HERE}}}{_RATE}))"
    return [
        parts.lines(
            "What a request spends its time on",
            "Mean seconds: waiting for a thread, waiting to be joined with others, the run, the answer's bytes.",
            "s",
            [(f"{spent} / on () group_left () {requests}", "{{stage}}")],
            stacked=True,
        ),
        parts.lines(
            "95th percentile of each stage",
            "Of the requests that went through it.",
            "s",
            [(f"histogram_quantile(0.95, {by_stage})", "{{stage}}")],
        ),
    ]


def _batches() -> list[parts.Panel]:
    rows = f"segue_batch_rows_sum{{{_HERE}}}"
    runs = f"segue_batch_rows_count{{{_HERE}}}"
    mean = f"sum by (signature) (rate({rows}{_RATE})) / sum by (signature) (rate({runs}{_RATE}))"
    padding = f"segue_batch_padding_rows_total{{{_HERE}}}"
    return [
        parts.lines(
            "Rows in a batch",
            "Mean, of signatures whose requests may be joined.",
            "short",
            [(mean, "{{signature}}")],
            span=8,
        ),
        parts.lines(
            "Rows that wait",
            "In the queues of signatures whose requests may be joined.",
            "short",
            [(f"sum by (signature) (segue_queue_rows{{{_HERE}}})", "{{signature}}")],
            span=8,
        ),
        parts.lines(
            "Rows run only to fill batches up",
            "Share of all rows run.",
            "percentunit",
            [(f"sum(rate({padding}{_RATE})) / (sum(rate({padding}{_RATE})) + sum(rate({rows}{_RATE})))", "share")],
            span=8,
            usual=1,
        ),
    ]


def _versions() -> list[parts.Panel]:
    return [
        parts.states(
            "Versions",
            "The state of each version.",
            ('max by (version) (segue_model_version_state{model="$model"})', "{{version}}"),
            _STATES,
            span=12,
        ),
        parts.bars(
            "What loading took",
            "Preparing, loading and proving, by version and backend.",
            "s",
            (f"max by (version, backend) (segue_model_load_seconds{{{_VERSION}}})", "{{version}}: {{backend}}"),
        ),
    ]
