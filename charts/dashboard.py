"""Write the chart's Grafana dashboard, `files/dashboard.json` (`make chart-docs`).

The chart sets its title and what its variables select, of one Helm release: `all` its pods, `entry` those of the
service that clients reach, `gate` that of its rollout, `monitor` the metrics that its monitor pushes. Imported by hand,
it shows all that there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, VisibilityMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FILE = Path(__file__).parent / "tabserve" / "files" / "dashboard.json"
_ALL, _ENTRY, _MONITOR, _GATE = "${all:raw}", "${entry:raw}", "${monitor:raw}", "${gate:raw}"
VARIABLES = {"all": 'pod=~".+"', "entry": 'pod=~".+"', "monitor": 'release=~".*"', "gate": 'pod=~".+"'}
"""Of queries, each with a selector that takes everything."""
_SINCE = f'{_MONITOR},window="release"'
_RATE = "[$__rate_interval]"
_ERRORS = "INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|UNKNOWN"


class Panel(NamedTuple):
    """A graph. queries: expression and legend of each; unit: Grafana's name; about: what it shows, and what to do."""

    title: str
    unit: str
    about: str
    queries: Sequence[tuple[str, str]]


def counted(metric: str, by: str, where: str = _ALL) -> str:
    """A counter's rate by labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}{_RATE}))"


def quantile(part: float, metric: str, by: str = "", where: str = _ALL) -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {counted(f'{metric}_bucket', labels, where)})"


def quantiles(metric: str, where: str = _ALL) -> list[tuple[str, str]]:
    """The median and the 99th percentile of a histogram."""
    return [(quantile(0.5, metric, where=where), "p50"), (quantile(0.99, metric, where=where), "p99")]


ROWS: dict[str, list[Panel]] = {
    "Requests": [
        Panel(
            "Requests by status",
            "reqps",
            "Answers to clients. 5xx, UNAVAILABLE and INTERNAL are errors of the services.",
            [(counted("tabserve_requests_total", "status", _ENTRY), "{{status}}")],
        ),
        Panel(
            "Latency",
            "s",
            "From a request's headers to its answer.",
            quantiles("tabserve_request_seconds", _ENTRY),
        ),
        Panel(
            "Errors by status and pod",
            "reqps",
            "One pod or all? The log of that pod says why.",
            [
                (
                    counted("tabserve_requests_total", "status, pod", f'{_ALL},status=~"5..|{_ERRORS}"'),
                    "{{status}} {{pod}}",
                )
            ],
        ),
        Panel(
            "Refused",
            "reqps",
            "Requests over max_concurrency. Add pods, or CPU.",
            [(counted("tabserve_requests_rejected_total", "pod"), "{{pod}}")],
        ),
        Panel(
            "In flight and waiting",
            "short",
            "Near max_concurrency for long, or waiting at all: refusals are next.",
            [
                (f"sum by (pod) (tabserve_requests_in_flight{{{_ALL}}})", "{{pod}}"),
                (f"sum by (pod) (tabserve_requests_waiting{{{_ALL}}})", "waiting {{pod}}"),
            ],
        ),
        Panel(
            "Requests by slot and arm",
            "reqps",
            "Which slot answers, and how requests came to it: by the route's split, or forced by the header.",
            [
                (
                    f"sum by (slot, arm) (label_replace(rate(tabserve_requests_total{{{_ENTRY}}}{_RATE}), "
                    '"slot", "$1", "pod", ".*-([ab])-(?:predictor|transformer)-.*"))',
                    "{{slot}} {{arm}}",
                )
            ],
        ),
    ],
    "Decisions": [
        Panel(
            "Shares of the decisions",
            "percentunit",
            "By record. A sudden change: ask who owns the model.",
            [
                (
                    f"{counted('tabserve_decisions_total', 'decision')} / ignoring (decision) group_left "
                    f"sum(rate(tabserve_decisions_total{{{_ALL}}}{_RATE}))",
                    "{{decision}}",
                )
            ],
        ),
        Panel("Score", "short", "The score behind the decision, if it is a probability.", quantiles("tabserve_score")),
        Panel(
            "Decision records",
            "cps",
            "What became of them. `dropped` and `failed` are lost: `decision_log_failing` in the log.",
            [(counted("tabserve_log_records_total", "result"), "{{result}}")],
        ),
        Panel(
            "Decision records that wait",
            "short",
            "Yet to be written, by pod.",
            [(f"sum by (pod) (tabserve_log_buffer_rows{{{_ALL}}})", "{{pod}}")],
        ),
        Panel(
            "Time to the store",
            "s",
            "From a decision until its record is on disk or in the store.",
            quantiles("tabserve_log_seconds"),
        ),
    ],
    "Where the time goes": [
        Panel(
            "Waiting for the predictor",
            "s",
            "p99 by status. 503: no predictor; 504: too slow.",
            [(quantile(0.99, "tabserve_predictor_seconds", "status"), "{{status}}")],
        ),
        Panel(
            "Queue",
            "s",
            "Waiting for an engine. It rises before anything is refused.",
            quantiles("tabserve_queue_seconds"),
        ),
        Panel(
            "Engine",
            "s",
            "p99 of one call. A rise without more rows: less CPU.",
            [(quantile(0.99, "tabserve_engine_seconds", "engine"), "{{engine}}")],
        ),
        Panel(
            "Rows of a call",
            "short",
            "Large calls delay small requests.",
            [
                (
                    f"{counted('tabserve_batch_rows_sum', 'engine')} / "
                    f"{counted('tabserve_batch_rows_count', 'engine')}",
                    "{{engine}}",
                )
            ],
        ),
    ],
    "Pods": [
        Panel(
            "Predictors that are ready",
            "short",
            "As each transformer sees them. 0: it refuses requests.",
            [(f"min by (pod) (tabserve_predictors_ready{{{_ALL}}})", "{{pod}}")],
        ),
        Panel(
            "Memory",
            "percentunit",
            "Of what the process may have.",
            [
                (
                    f"max by (pod, container) (process_resident_memory_bytes{{{_ALL}}} / "
                    f"tabserve_memory_limit_bytes{{{_ALL}}})",
                    "{{pod}} {{container}}",
                )
            ],
        ),
        Panel(
            "CPU",
            "short",
            "Cores in use. At the container's limit the pod is throttled.",
            [(counted("process_cpu_seconds_total", "pod, container"), "{{pod}} {{container}}")],
        ),
        Panel(
            "Models",
            "short",
            "Pods by version. Two digests in one slot: a release is under way.",
            [(f"count by (version, digest) (tabserve_model_info{{{_ALL}}})", "{{version}} {{digest}}")],
        ),
    ],
    "Rollout": [
        Panel(
            "The canary's weight",
            "percent",
            "Percent of the requests that the gate gives it.",
            [(f"max(tabserve_rollout_weight{{{_GATE}}})", "weight")],
        ),
        Panel(
            "Evidence against the canary",
            "percentunit",
            "As a part of what takes it back; at 100 % it is.",
            [
                (
                    f"max by (check) (tabserve_rollout_evidence{{{_GATE}}}) / on () group_left "
                    f"max(tabserve_rollout_threshold{{{_GATE}}})",
                    "{{check}}",
                )
            ],
        ),
        Panel(
            "Proof that budgets are kept",
            "short",
            "At 1 / falseAdvance a budget is proven.",
            [(f"max by (budget) (tabserve_rollout_proof{{{_GATE}}})", "{{budget}}")],
        ),
    ],
    "What has changed": [
        Panel(
            "Beyond chance",
            "percentunit",
            "Distance from the reference since the release, less what may be chance. Above the tolerance: an alarm.",
            [
                (
                    f"max by (what, measure) "
                    f"(tabserve_monitor_distance{{{_SINCE}}} - tabserve_monitor_bound{{{_SINCE}}})",
                    "{{what}} {{measure}}",
                ),
                (f"min(tabserve_monitor_tolerance{{{_SINCE}}})", "the smallest tolerance"),
            ],
        ),
        Panel(
            "Decisions that were compared",
            "short",
            "It rises with each run of the monitor.",
            [(f"tabserve_monitor_records{{{_MONITOR}}}", "decisions")],
        ),
    ],
}


def built() -> str:
    """The dashboard as JSON."""
    made = (
        dashboard.Dashboard("tabserve")
        .uid("tabserve")
        .tags(["tabserve"])
        .readonly()
        .time("now-3h", "now")
        .refresh("30s")
    )
    made.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source"))
    for name, selector in VARIABLES.items():
        made.with_variable(dashboard.ConstantVariable(name).value(selector))
    number = 0
    for title, panels in ROWS.items():
        number += 1
        made.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            made.with_panel(_graph(panel).id(number))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _graph(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = timeseries.Panel().title(panel.title).description(panel.about).unit(panel.unit).min(0).height(8).span(8)
    made.datasource(DataSourceRef(type_val="prometheus", uid="$datasource")).show_points(VisibilityMode.NEVER)
    made.legend(legend.show_legend(True))
    for letter, (expression, name) in zip("ABC", panel.queries, strict=False):
        made.with_target(prometheus.Dataquery().expr(expression).legend_format(name).ref_id(letter).range())
    return made


def main() -> None:
    """Write the file."""
    FILE.write_text(built())


if __name__ == "__main__":
    main()
