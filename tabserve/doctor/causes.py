"""The known causes why a release does not answer, each with how it is found and what to do: one table.

docs/troubleshooting.md holds the same table (`make docs-causes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tabserve.doctor import signs
from tabserve.doctor.seen import Seen
from tabserve.doctor.signs import Sign


class Cause(NamedTuple):
    """A cause. name: for programs. title: for people.

    remedy: sentences, with {release}, {namespace}, {service} (the InferenceService) and {slot} where they depend on it.
    find: its signs in what was seen. rest: whether its signs count only where there is none of another cause.
    """

    name: str
    title: str
    remedy: str
    find: Callable[[Seen], Iterable[Sign]]
    rest: bool = False


_CREDENTIALS = (
    r"authentication failed|[Aa]ccess denied|Invalid AWS credentials|S3 error \[40[13]\]|Unable to locate credentials"
)
_NOT_FOUND = (
    r"No model found in|resource (?:'[^']*' )?not found|bucket '[^']*' does not exist|S3 error \[404\]"
    r"|Cannot locate source uri"
)
_NO_STORE = r"Failed to connect to|Could not connect to the endpoint|ConnectTimeout|Name or service not known"

CAUSES = (
    Cause(
        "no-release",
        "no such release",
        "Look for it with `helm list -A`, and give its namespace with `-n`.",
        signs.no_release,
    ),
    Cause(
        "no-controller",
        "KServe's controller does not answer",
        "Run `tabserve doctor`, and look at the pods in KServe's namespace.",
        signs.no_controller,
    ),
    Cause(
        "quota",
        "quota exceeded",
        "Raise the ResourceQuota in {namespace}, or lower `pods.resources`, `predictor.resources`, "
        "`transformer.resources` or the replicas.",
        signs.refused(r"exceeded quota"),
    ),
    Cause(
        "limits",
        "resources outside the namespace's limits",
        "Change the LimitRange in {namespace}, or set `predictor.resources` and `transformer.resources` within it.",
        signs.refused(r"(?:maximum|minimum) \S+ (?:usage|limit to request)"),
    ),
    Cause(
        "pod-security",
        "refused by Pod Security",
        "Remove what the message names from `extraVolumes` and the other values; the chart's own pods meet "
        "`restricted`. For the storage initializer see `tabserve doctor`.",
        signs.refused(r"violates PodSecurity"),
    ),
    Cause(
        "service-account",
        "ServiceAccount missing",
        "Make it in {namespace}, or set `serviceAccount.create` to true.",
        signs.refused(r"serviceaccount \"?[^\"]*\"? not found"),
    ),
    Cause(
        "admission",
        "pods refused by the cluster",
        "Do what the message says; it comes from a rule of your cluster.",
        signs.refused(r""),
        rest=True,
    ),
    Cause(
        "image",
        "image missing, or not to be pulled",
        "Push the image, or correct `predictor.image`, `transformer.image` and `pods.image.tag`. If the registry asks "
        "for credentials, name a Secret in `imagePullSecrets`.",
        signs.waits("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"),
    ),
    Cause(
        "missing-object",
        "ConfigMap or Secret missing",
        "Make it, with the key that is named, in {namespace}; the pods then start by themselves.",
        signs.missing_object,
    ),
    Cause(
        "claim-missing",
        "PersistentVolumeClaim missing",
        "Make the claim in {namespace}, or correct `releases.{slot}.bundle.storageUri` or `decisionLog.claim`.",
        signs.claim_missing,
    ),
    Cause(
        "claim-pending",
        "PersistentVolumeClaim not bound",
        "Look at `kubectl describe pvc -n {namespace}`: it needs a StorageClass with a provisioner, or a "
        "PersistentVolume of its size and access mode.",
        signs.claim_pending,
    ),
    Cause(
        "no-room",
        "no node has room",
        "Add a node, or lower `pods.resources.requests`, `predictor.resources.requests`, "
        "`transformer.resources.requests` or the replicas.",
        signs.unplaced(r"Insufficient |Too many pods"),
    ),
    Cause(
        "no-node",
        "no node fits",
        "Compare `nodeSelector`, `tolerations` and `affinity` with the labels and taints of `kubectl get nodes`.",
        signs.unplaced(r""),
        rest=True,
    ),
    Cause(
        "store-credentials",
        "no credentials for the store, or wrong ones",
        "Correct the Secret that the ServiceAccount names under `secrets` (docs/kubernetes.md), and name that account "
        "in `serviceAccount.name`. Pods try again by themselves.",
        signs.fetched(_CREDENTIALS),
    ),
    Cause(
        "bundle-not-found",
        "no bundle at the URI",
        "Upload the bundle's files to exactly that place, or correct `releases.{slot}.bundle.storageUri`.",
        signs.no_bundle(_NOT_FOUND),
    ),
    Cause(
        "no-store",
        "store not reached",
        "Look at the endpoint in the annotation `serving.kserve.io/s3-endpoint` of the Secret. With "
        "`networkPolicy.enabled`, allow its port in `networkPolicy.extraEgress`.",
        signs.fetched(_NO_STORE),
    ),
    Cause(
        "wrong-digest",
        "wrong digest",
        "Compare with `tabserve bundle show` of the bundle that you mean. Then set `releases.{slot}.bundle.digest`, or "
        "upload that bundle.",
        signs.ended(r"expected digest \S+, got "),
    ),
    Cause(
        "unsigned",
        "bundle not signed",
        'Sign it with `tabserve bundle sign`, and upload `bundle.sig` with it. Or set `trust.publicKey.name` to "".',
        signs.ended(r"^bundle\.sig: missing"),
    ),
    Cause(
        "wrong-signature",
        "signature not accepted",
        "Sign it with a key that `trust.publicKey` has, or add the signer's key there (docs/security.md).",
        signs.ended(r"^bundle\.sig: (?!missing)|is not what was signed"),
    ),
    Cause(
        "trust-key",
        "keys of the signers not usable",
        "Put public keys or certificates, as PEM, under `trust.publicKey.key` in the object `trust.publicKey.name`.",
        signs.ended(r"^/mnt/trust/"),
    ),
    Cause(
        "not-proven",
        "answers not repeated",
        "Save the bundle again with the image's versions of the libraries; `tabserve bundle check` in the image says "
        "whether it is repeated there.",
        signs.ended(r"does not repeat the reference answers"),
    ),
    Cause(
        "missing-library",
        "library or extra missing in the image",
        "Build the service's image with it; docs/your-model.md shows how for LightGBM.",
        signs.ended(r"is not installed|but the older \S+ is installed"),
    ),
    Cause(
        "wrong-setting",
        "wrong setting",
        "Correct `settings` or `env` under `pods`, `predictor` or `transformer`; docs/serving.md lists the settings.",
        signs.said(r"^Error: (.*)"),
    ),
    Cause(
        "bundle-refused",
        "refused by the service",
        "Do what the message says.",
        signs.ended(r""),
        rest=True,
    ),
    Cause(
        "out-of-memory",
        "out of memory",
        "Raise `predictor.resources.limits.memory`, or the transformer's; the requests as well.",
        signs.out_of_memory,
    ),
    Cause(
        "predictor-unreachable",
        "predictor not reached",
        "Look at the Service {service}-predictor-pods and at NetworkPolicies. If the predictors are of another "
        "release, wait for the rollout, or run the same `helm upgrade` again.",
        signs.predictor_unreachable,
    ),
    Cause(
        "no-gateway",
        "no Gateway",
        "Make the Gateway, or set `gateway.parentRefs` to one of `kubectl get gateways -A`.",
        signs.no_gateway,
    ),
    Cause(
        "gateway-class",
        "nobody runs the Gateway",
        "Install what implements its GatewayClass, or give the Gateway one of `kubectl get gatewayclasses`.",
        signs.gateway_class,
    ),
    Cause(
        "route-refused",
        "route not accepted",
        "Compare `gateway.hostnames` and the namespace with the Gateway's listeners (`allowedRoutes`, `hostname`).",
        signs.route_refused,
    ),
    Cause(
        "route-backend",
        "route to a Service that is not there",
        "Run the same `helm upgrade` again, or set `traffic.canaryPercent` to 0 until the slot is Ready.",
        signs.route_backend,
    ),
    Cause(
        "rollout-held",
        "rollout waits for you",
        "Promote slot {slot} by `traffic.stable`, or `tabserve rollout stop {release} -n {namespace}`.",
        signs.rollout("held"),
    ),
    Cause(
        "rollout-back",
        "canary taken back",
        "Read the reason, and empty slot {slot} or fill it with a new release. "
        "`tabserve rollout forget {release} -n {namespace}` lets the same be tried again.",
        signs.rollout("back"),
    ),
    Cause(
        "rollout-undecided",
        "rollout undecided",
        "Give it more traffic, a longer `rollout.maxDuration` or wider budgets; then "
        "`tabserve rollout forget {release} -n {namespace}`.",
        signs.rollout("undecided"),
    ),
    Cause(
        "rollout-damaged",
        "state of the rollout not readable",
        "`tabserve rollout forget {release} -n {namespace}` removes it; the rollout then begins anew.",
        signs.rollout("damaged"),
    ),
    Cause(
        "no-metrics",
        "autoscaler without metrics",
        "Install metrics-server (`tabserve doctor` says whether there is one), or set `autoscaling.enabled` to false.",
        signs.no_metrics,
    ),
    Cause(
        "starting",
        "still starting",
        "Wait, and ask again: `kubectl rollout status -n {namespace} deployment "
        "-l serving.kserve.io/inferenceservice={service}`.",
        signs.starting,
        rest=True,
    ),
    Cause(
        "not-ready",
        "pods not Ready",
        "Give slot {slot} no traffic until they are. The log of a pod says what it waits for "
        "(docs/operations.md lists the events).",
        signs.not_ready,
        rest=True,
    ),
)
