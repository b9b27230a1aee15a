{{- /* Whether there are NetworkPolicies; empty if not. */ -}}
{{- define "tabserve.walled" -}}
{{- $given := .Values.networkPolicy.enabled -}}
{{- if ternary (eq .Values.mode "Standard") $given (kindIs "invalid" $given) }}true{{ end -}}
{{- end }}

{{- /*
The ports that URLs and places of storage are reached at, as a JSON list without duplicates; the places of volumes have none.
Takes: places (a list of strings), env (environment variables, whose values may be URLs).
*/ -}}
{{- define "tabserve.ports" -}}
{{- $ports := list -}}
{{- $places := .places -}}
{{- range .env }}{{ $places = append $places (toString .value) }}{{ end -}}
{{- range $places -}}
{{- $place := toString . -}}
{{- $authority := regexFind "^[a-z0-9]+://[^/?]+" $place -}}
{{- $named := regexFindAll ":[0-9]+" $authority -1 -}}
{{- if regexMatch "^(https?|kafka)://" $place -}}
{{- range $named }}{{ $ports = append $ports (trimPrefix ":" . | int) }}{{ end -}}
{{- if not $named }}{{ $ports = append $ports (get (dict "http" 80 "https" 443 "kafka" 9092) (regexFind "^[a-z]+" $place)) }}{{ end -}}
{{- else if regexMatch "^(s3|gs|gcs|abfss?|hf)://" $place -}}
{{- $ports = append $ports 443 -}}
{{- end -}}
{{- end -}}
{{ uniq $ports | toJson }}
{{- end }}

{{- /*
The rules of a pod's egress, as YAML: DNS, the ports of its places, its own rules, and `networkPolicy.extraEgress`.
Takes: root, places, env, rules (a list).
*/ -}}
{{- define "tabserve.egress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}, {port: 5353, protocol: UDP}, {port: 5353, protocol: TCP}]
{{- $ports := list -}}
{{- range include "tabserve.ports" . | fromJsonArray }}{{ $ports = append $ports (dict "port" (int .)) }}{{ end -}}
{{- with $ports }}
- ports: {{ toJson . }}
{{- end }}
{{- with concat .rules .root.Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The rule that lets a pod reach others at ports. Takes: selector (YAML of labels), ports. */ -}}
{{- define "tabserve.reaches" -}}
{{- $ports := list -}}
{{- range .ports }}{{ $ports = append $ports (dict "port" .) }}{{ end -}}
{{ dict "to" (list (dict "podSelector" (dict "matchLabels" (fromYaml .selector)))) "ports" $ports | toJson }}
{{- end }}

{{- /* The egress of a slot's workload. Takes: root, slot, component (the workload's). */ -}}
{{- define "tabserve.workloadEgress" -}}
{{- $root := .root -}}
{{- $collocated := eq $root.Values.transformer.placement "collocated" -}}
{{- $places := list .slot.bundle.storageUri $root.Values.tracing.endpoint -}}
{{- $env := (index .slot .component).env -}}
{{- $rules := list -}}
{{- if or $collocated (eq .component "transformer") -}}
{{- $places = append $places $root.Values.decisionLog.to -}}
{{- $env = concat $env .slot.transformer.env $root.Values.decisionLog.env -}}
{{- end -}}
{{- if eq .component "transformer" -}}
{{- $predictor := include "tabserve.podSelector" (dict "slot" .slot "component" "predictor") -}}
{{- $rules = append $rules (include "tabserve.reaches" (dict "selector" $predictor "ports" (list 8080)) | fromJson) -}}
{{- end -}}
{{ include "tabserve.egress" (dict "root" $root "places" $places "env" $env "rules" $rules) }}
{{- end }}

{{- /* The egress of the gate: the API server, both slots' pods, and the Prometheus that it asks. Takes the root. */ -}}
{{- define "tabserve.gateEgress" -}}
{{- $rules := list (dict "ports" (list (dict "port" 443) (dict "port" 6443))) -}}
{{- range $slot := include "tabserve.slots" . | fromJsonArray -}}
{{- range $component := include "tabserve.workloads" $ | splitList " " -}}
{{- $pods := include "tabserve.podSelector" (dict "slot" $slot "component" $component) -}}
{{- $rules = append $rules (include "tabserve.reaches" (dict "selector" $pods "ports" (list 8080 8082)) | fromJson) -}}
{{- end -}}
{{- end -}}
{{ include "tabserve.egress" (dict "root" . "places" (list .Values.rollout.prometheus) "env" list "rules" $rules) }}
{{- end }}

{{- /* The policy of a pod that is none of a slot's and that nobody calls but for metrics. Takes: root, name, scraped, places, env. */ -}}
{{- define "tabserve.ownPolicy" -}}
{{- $name := printf "%s-%s" (include "tabserve.fullname" .root) .name -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "tabserve.labels" .root | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      serving.kserve.io/inferenceservice: {{ $name }}
  policyTypes: [Ingress, Egress]
  {{- if .scraped }}
  ingress:
    - ports: [{port: 8082}]
      {{- with .root.Values.networkPolicy.metricsFrom }}
      from: {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- else }}
  ingress: []
  {{- end }}
  egress: {{- include "tabserve.egress" (dict "root" .root "places" .places "env" .env "rules" list) | nindent 4 }}
{{- end }}
