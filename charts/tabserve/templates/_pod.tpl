{{- /* The port of health and metrics of each container of a pod. */ -}}
{{- define "tabserve.adminPorts" -}}
{{- if eq .Values.transformer.placement "collocated" -}}
transformer-container: 8082
kserve-container: 8086
{{- else -}}
kserve-container: 8082
{{- end -}}
{{- end }}

{{- /* The containers of a predictor's pod, and their volumes. Takes: root, slot. */ -}}
{{- define "tabserve.predictorContainers" -}}
{{- $components := ternary (list "predictor" "transformer") (list "predictor") (eq .root.Values.transformer.placement "collocated") -}}
containers:
  {{- range $components }}
  - {{- include "tabserve.container" (dict "root" $.root "slot" $.slot "component" .) | nindent 4 }}
  {{- end }}
volumes:
  {{- include "tabserve.volumes" (dict "slot" .slot "components" $components) | nindent 2 }}
{{- end }}

{{- define "tabserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /*
Everything in a pod except its containers. Takes: root, slot, component (the workload's).
Knative refuses most of it unless its flags are on.
*/ -}}
{{- define "tabserve.pod" -}}
{{- $root := .root -}}
{{- $values := index .slot .component -}}
{{- $standard := eq $root.Values.mode "Standard" -}}
{{- $features := $root.Values.knative.features -}}
{{- $app := printf "isvc.%s-%s" .slot.name .component -}}
serviceAccountName: {{ include "tabserve.serviceAccountName" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- if or $standard (has "kubernetes.podspec-securitycontext" $features) }}
securityContext: {{- include "tabserve.podSecurity" . | nindent 2 }}
{{- end }}
{{- if $standard }}
terminationGracePeriodSeconds: {{ include "tabserve.graceSeconds" . }}
{{- end }}
{{- if and $values.spreadOver (or $standard (has "kubernetes.podspec-topologyspreadconstraints" $features)) }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $values.spreadOver }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "tabserve.podSelector" . | nindent 8 }}
{{- end }}
{{- range $name, $flag := dict "nodeSelector" "nodeselector" "tolerations" "tolerations" "affinity" "affinity" "priorityClassName" "priorityclassname" }}
{{- $value := index $values $name }}
{{- if and $value (or $standard (has (printf "kubernetes.podspec-%s" $flag) $features)) }}
{{ $name }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /*
The sum of the containers' longest sleep before SIGTERM, their longest drain, the second in which a service then ends what
is left, 4 for the container to go, and 5 in which a transformer writes what its decision log holds.
*/ -}}
{{- define "tabserve.graceSeconds" -}}
{{- $sleep := 0 -}}
{{- $drain := 0 -}}
{{- $log := 0 -}}
{{- range ternary (list "predictor" "transformer") (list .component) (eq .root.Values.transformer.placement "collocated") -}}
{{- $values := index $.slot . -}}
{{- $sleep = max $sleep $values.preStopSeconds -}}
{{- $drain = max $drain (ceil (dig "drain_seconds" 20 $values.settings)) -}}
{{- if hasKey $values "logEnv" }}{{ $log = 5 }}{{ end -}}
{{- end -}}
{{ add $sleep $drain 1 4 $log }}
{{- end }}

{{- /* The labels, set by KServe, that only a workload's pods have. */ -}}
{{- define "tabserve.podSelector" -}}
serving.kserve.io/inferenceservice: {{ .slot.name }}
component: {{ .component }}
{{- end }}

{{- /* The volumes of a pod; a volume that both containers name, as by `pods`, is there once. Takes: slot, components. */ -}}
{{- define "tabserve.volumes" -}}
{{- $extra := list -}}
{{- range .components }}{{ $extra = concat $extra (index $.slot . "extraVolumes") }}{{ end -}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- with uniq $extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels and annotations that KServe copies to a workload's pods. Takes: root, slot, component. */ -}}
{{- define "tabserve.podLabels" -}}
{{- toYaml (merge (dict "tabserve/slot" .slot.slot) (index .slot .component "podLabels")) -}}
{{- end }}

{{- define "tabserve.podAnnotations" -}}
{{- $annotations := dict "tabserve/release" .slot.release -}}
{{- if .root.Values.scrapeAnnotations -}}
{{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" "8082" "prometheus.io/path" "/metrics") -}}
{{- end -}}
{{- toYaml (merge $annotations (index .slot .component "podAnnotations")) -}}
{{- end }}
