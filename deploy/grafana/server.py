"""The dashboard "Server": the process, its load, and what does not go as it should."""

from grafana_foundation_sdk.builders import dashboard as builders

from deploy.grafana import parts

_HERE = 'instance=~"$instance"'
_RATE = "[$__rate_interval]"


def dashboard() -> builders.Dashboard:
    """All of it."""
    made = parts.begin("Segue: server", "segue-server", "Processes, load, and what does not go as it should.")
    made = made.with_variable(parts.variable("instance", "Server", "segue_build_info", every=True))
    for panel in (*_numbers(), *_load(), *_process()):
        made = made.with_panel(panel)
    row = builders.Row("GPUs")
    for panel in _gpus():
        row = row.with_panel(panel)
    return made.with_row(row)


def _numbers() -> list[parts.Panel]:
    return [
        parts.number("Servers", "That answer Prometheus.", "none", (f"count(segue_build_info{{{_HERE}}})", "servers")),
        parts.number(
            "Versions available",
            "On all servers together.",
            "none",
            (f"count(segue_model_version_state{{{_HERE}}} == 30) or vector(0)", "versions"),
        ),
        parts.number(
            "Versions failed",
            "They did not load; the log says why.",
            "none",
            (f"count(segue_model_version_state{{{_HERE}}} == 50) or vector(0)", "versions"),
            bad=1,
        ),
        parts.number(
            "Backends in quarantine",
            "In one bucket at least.",
            "none",
            (f'sum(segue_candidate_state{{{_HERE}, state="quarantined"}}) or vector(0)', "backends"),
            bad=1,
        ),
        parts.number(
            "Backends rejected",
            "They cannot run a version, or do not reproduce TensorFlow's answers.",
            "none",
            (f'sum(segue_candidate_state{{{_HERE}, state="rejected"}}) or vector(0)', "backends"),
        ),
        parts.number(
            "Refused in an hour",
            "Requests for which there was no room or no time.",
            "none",
            (f"sum(increase(segue_refused_requests_total{{{_HERE}}}[1h])) or vector(0)", "requests"),
            bad=1,
        ),
    ]


def _load() -> list[parts.Panel]:
    latency = f"sum by (le, model) (rate(segue_request_latency_seconds_bucket{{{_HERE}}}{_RATE}))"
    return [
        parts.lines(
            "Requests by model",
            "Per second; those that found no model have no name.",
            "reqps",
            [(f"sum by (model) (rate(segue_requests_total{{{_HERE}}}{_RATE}))", "{{model}}")],
            stacked=True,
        ),
        parts.by_code(
            parts.lines(
                "Requests that do not end well",
                "Per second, by gRPC status code.",
                "reqps",
                [(f'sum by (code) (rate(segue_requests_total{{{_HERE}, code!="OK"}}{_RATE}))', "{{code}}")],
                stacked=True,
            )
        ),
        parts.lines(
            "Latency by model",
            "95th percentile of answers.",
            "s",
            [(f"histogram_quantile(0.95, {latency})", "{{model}}")],
        ),
        parts.lines(
            "Refused",
            "Requests for which there was no room or no time, per second.",
            "reqps",
            [(f"sum by (reason) (rate(segue_refused_requests_total{{{_HERE}}}{_RATE}))", "{{reason}}")],
            none="None was refused",
        ),
        parts.lines(
            "Waiting",
            "Requests that wait for a thread, and rows that wait to be run.",
            "short",
            [
                (f"sum(segue_waiting_requests{{{_HERE}}})", "requests"),
                (f"sum(segue_queue_rows{{{_HERE}}})", "rows"),
            ],
        ),
        parts.lines(
            "Packages that did not load",
            "In an hour, by model.",
            "short",
            [(f"sum by (model) (increase(segue_model_load_failures_total{{{_HERE}}}[1h]))", "{{model}}")],
            none="All loaded",
        ),
    ]


def _process() -> list[parts.Panel]:
    return [
        parts.lines(
            "Memory",
            "Resident, and what requests in flight hold of it.",
            "bytes",
            [
                (f"process_resident_memory_bytes{{{_HERE}}} and on (instance) segue_build_info", "{{instance}}"),
                (f"segue_bytes_in_flight{{{_HERE}}}", "{{instance}}: in flight"),
            ],
            span=8,
        ),
        parts.lines(
            "Processor",
            "Cores in use.",
            "short",
            [
                (
                    f"rate(process_cpu_seconds_total{{{_HERE}}}{_RATE}) and on (instance) segue_build_info",
                    "{{instance}}",
                )
            ],
            span=8,
        ),
        parts.lines(
            "Open files",
            "Connections among them.",
            "short",
            [(f"process_open_fds{{{_HERE}}} and on (instance) segue_build_info", "{{instance}}")],
            span=8,
        ),
    ]


def _gpus() -> list[parts.Panel]:
    name = "{{instance}}: {{gpu}}"
    return [
        parts.lines(
            "GPU memory",
            "In use by all processes, as a share of what there is.",
            "percentunit",
            [(f"segue_gpu_memory_used_bytes{{{_HERE}}} / segue_gpu_memory_bytes{{{_HERE}}}", name)],
            span=8,
            none="No GPU",
            usual=1,
        ),
        parts.lines(
            "GPU use",
            "Share of time in which something ran.",
            "percentunit",
            [(f"segue_gpu_utilization_ratio{{{_HERE}}}", name)],
            span=8,
            none="No GPU",
            usual=1,
        ),
        parts.lines(
            "GPU power", "Drawn.", "watt", [(f"segue_gpu_power_watts{{{_HERE}}}", name)], span=8, none="No GPU"
        ),
    ]
