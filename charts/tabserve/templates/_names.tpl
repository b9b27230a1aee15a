{{- define "tabserve.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{- define "tabserve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: tabserve
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tabserve.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "tabserve.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- /* The component that clients call. */ -}}
{{- define "tabserve.entry" -}}
{{ ternary "predictor" "transformer" (eq .Values.transformer.placement "none") }}
{{- end }}

{{- /* Components that have their own pods, separated by spaces. */ -}}
{{- define "tabserve.workloads" -}}
predictor{{ if eq .Values.transformer.placement "separate" }} transformer{{ end }}
{{- end }}

{{- /* The workload whose Service clients reach. */ -}}
{{- define "tabserve.entryWorkload" -}}
{{ ternary "transformer" "predictor" (eq .Values.transformer.placement "separate") }}
{{- end }}

{{- define "tabserve.hostnames" -}}
{{ toYaml (.Values.gateway.hostnames | default (list (printf "%s-%s.example.com" (include "tabserve.fullname" .) .Release.Namespace))) }}
{{- end }}

{{- /* A number or a string as an environment variable's value; Helm holds whole numbers as floats. */ -}}
{{- define "tabserve.envValue" -}}
{{ ternary (toString .) (toJson .) (kindIs "string" .) | quote }}
{{- end }}
