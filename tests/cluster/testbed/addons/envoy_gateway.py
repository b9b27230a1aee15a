"""Envoy Gateway: the Gateway API, and the gateway of Standard mode on 127.0.0.1."""

import yaml

from tests.cluster.testbed import build
from tests.cluster.testbed.addons import chart, namespace, node_port, small
from tests.cluster.testbed.api import Object, load, named
from tests.cluster.testbed.catalog import ENVOY, ENVOY_GATEWAY
from tests.cluster.testbed.places import MANIFESTS, STANDARD_PORT

NAMESPACE = "envoy-gateway-system"
MODULE = "github.com/envoyproxy/gateway"


def definitions() -> list[Object]:
    """The kinds of the Gateway API and Envoy Gateway."""
    values = {"crds": {"gatewayAPI": {"enabled": True, "channel": "standard"}, "envoyGateway": {"enabled": True}}}
    return chart(build.ENVOY_GATEWAY.taken(MODULE, "charts/gateway-crds-helm"), "crds", NAMESPACE, values)


def objects() -> list[Object]:
    """The controller, and the Gateway `kserve/kserve-ingress-gateway` that KServe attaches its routes to."""
    folder = build.ENVOY_GATEWAY.taken(MODULE, "charts/gateway-helm")
    # The module's values are a template, which the project's release fills in.
    template = (folder / "values.tmpl.yaml").read_text()
    for name, value in {"GatewayImage": ENVOY_GATEWAY.tag, "GatewayImagePullPolicy": "IfNotPresent"}.items():
        template = template.replace(f"${{{name}}}", value)
    values = yaml.safe_load(template)
    # One replica: no lease to lose on a busy machine.
    values["config"]["envoyGateway"]["provider"]["kubernetes"] = {"leaderElection": {"disable": True}}
    gateway = load(MANIFESTS / "gateway.yaml")
    proxy = named(gateway, "EnvoyProxy", "testbed")["spec"]["provider"]["kubernetes"]
    proxy["envoyDeployment"]["container"]["image"] = ENVOY.tag
    pods = {"gateway.envoyproxy.io/owning-gateway-name": "kserve-ingress-gateway"}
    return [
        namespace(NAMESPACE),
        namespace("kserve"),
        *small(chart(folder, "envoy-gateway", NAMESPACE, values, "--skip-crds")),
        *gateway,
        node_port("standard-gateway", NAMESPACE, pods, 10080, STANDARD_PORT),
    ]
