{{- /* The number of a workload's pods. Takes: root, slot, component. */ -}}
{{- define "tabserve.scaling" -}}
{{- $values := index .slot .component -}}
{{- if eq .root.Values.mode "Standard" -}}
deploymentStrategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
{{- if $values.autoscaling.enabled }}
minReplicas: {{ $values.autoscaling.minReplicas }}
maxReplicas: {{ $values.autoscaling.maxReplicas }}
{{- else }}
minReplicas: {{ $values.replicas }}
maxReplicas: {{ $values.replicas }}
{{- end }}
{{- else -}}
{{- $knative := .root.Values.knative -}}
minReplicas: {{ $knative.minReplicas }}
maxReplicas: {{ $knative.maxReplicas }}
scaleMetric: {{ $knative.scaleMetric }}
scaleTarget: {{ $knative.scaleTarget }}
containerConcurrency: {{ $knative.containerConcurrency }}
timeout: {{ $knative.timeoutSeconds }}
{{- with include "tabserve.canaryTrafficPercent" .root }}
canaryTrafficPercent: {{ . }}
{{- end }}
{{- end -}}
{{- end }}

{{- /*
Knative's share for the newest revision; empty for all traffic. When a canary is dropped, the stable release becomes the
newest revision again. Until it is ready the canary's would be the newest, so the traffic stays pinned to the old one.
*/ -}}
{{- define "tabserve.canaryTrafficPercent" -}}
{{- $stable := (include "tabserve.slot" (dict "root" . "slot" .Values.traffic.stable) | fromYaml).release -}}
{{- $live := (include "tabserve.live" (dict "root" . "name" (include "tabserve.fullname" .)) | fromYaml).annotations | default dict -}}
{{- if .Values.traffic.canary -}}
{{ .Values.traffic.canaryPercent }}
{{- else if and (eq (get $live "tabserve/stable-release") $stable) (ne (get $live "tabserve/release") $stable) -}}
0
{{- end -}}
{{- end }}

{{- /* Annotations of a workload, and so of its pods: what scales it, and Knative's settings. */ -}}
{{- define "tabserve.workloadAnnotations" -}}
{{- $values := index .slot .component -}}
{{- if eq .root.Values.mode "Standard" -}}
serving.kserve.io/autoscalerClass: {{ ternary "external" "none" $values.autoscaling.enabled }}
{{- else -}}
autoscaling.knative.dev/initial-scale: {{ .root.Values.knative.initialScale | quote }}
autoscaling.knative.dev/window: {{ .root.Values.knative.window }}
{{- end }}
{{ include "tabserve.podAnnotations" . }}
{{- end }}
