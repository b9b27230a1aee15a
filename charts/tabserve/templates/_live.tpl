{{- /* Whether templates see a cluster; without one (`helm template`, GitOps) no API names its kinds. */ -}}
{{- define "tabserve.connected" -}}
{{- if .Capabilities.APIVersions.Has "v1/Pod" }}true{{ end -}}
{{- end }}

{{- /* An InferenceService in the cluster, as YAML: annotations, ready, lacking (why not). Takes: root, name. */ -}}
{{- define "tabserve.live" -}}
{{- if .root.Capabilities.APIVersions.Has "serving.kserve.io/v1beta1/InferenceService" -}}
{{- $found := lookup "serving.kserve.io/v1beta1" "InferenceService" .root.Release.Namespace .name -}}
{{- if $found -}}
{{- $conditions := dict -}}
{{- range dig "status" "conditions" list $found }}{{ $_ := set $conditions .type . }}{{ end -}}
{{- $ready := get $conditions "Ready" | default dict -}}
annotations: {{ toJson (dig "metadata" "annotations" dict $found) }}
percent: {{ toJson (dig "spec" "predictor" "canaryTrafficPercent" 100 $found) }}
ready: {{ eq (get $ready "status") "True" }}
revisions: {{ toJson (dig "status" "components" "predictor" dict $found) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /*
What keeps a Standard slot from being given traffic; empty if nothing does. KServe's own status can be that of the
release before, so the Deployments are asked as well. Takes: root, slot.
*/ -}}
{{- define "tabserve.lacking" -}}
{{- $live := include "tabserve.live" (dict "root" .root "name" .slot.name) | fromYaml -}}
{{- if not $live -}}
InferenceService {{ .slot.name }} does not exist
{{- else if ne (get $live.annotations "tabserve/release") .slot.release -}}
InferenceService {{ .slot.name }} is of another release
{{- else if not $live.ready -}}
InferenceService {{ .slot.name }} is not Ready
{{- else -}}
{{- range $component := include "tabserve.workloads" .root | splitList " " -}}
{{- $deployment := lookup "apps/v1" "Deployment" $.root.Release.Namespace (printf "%s-%s" $.slot.name $component) -}}
{{- $status := $deployment.status | default dict -}}
{{- $release := dig "spec" "template" "metadata" "annotations" "tabserve/release" "" $deployment -}}
{{- if or (ne $release $.slot.release) (lt (int $status.observedGeneration) (int (dig "metadata" "generation" 0 $deployment))) -}}
{{ $component }} of slot {{ $.slot.slot }} is not of this release yet
{{- else if or (eq (int $status.updatedReplicas) 0) (lt (int $status.availableReplicas) (int $status.updatedReplicas)) (gt (int $status.replicas) (int $status.updatedReplicas)) -}}
{{ $component }} of slot {{ $.slot.slot }} has {{ int $status.availableReplicas }} of {{ int $status.replicas }} pods
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
