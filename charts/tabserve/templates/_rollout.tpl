{{- /* Whether a gate moves the canary's weight; empty if none does. */ -}}
{{- define "tabserve.gated" -}}
{{- if and .Values.rollout.enabled .Values.traffic.canary }}true{{ end -}}
{{- end }}

{{- /* The labels that only the gate's pod has. */ -}}
{{- define "tabserve.gateSelector" -}}
tabserve/gate: {{ include "tabserve.fullname" . }}
{{- end }}

{{- /* A slot as the gate knows it, as JSON. Takes: root, slot. */ -}}
{{- define "tabserve.gatedSlot" -}}
{{- $slot := include "tabserve.slot" . | fromYaml -}}
{{- $images := dict "predictor" $slot.predictor.imageReference -}}
{{- if ne .root.Values.transformer.placement "none" }}{{ $_ := set $images "transformer" $slot.transformer.imageReference }}{{ end -}}
{{ toJson (dict "slot" $slot.slot "release" $slot.release "digest" $slot.bundle.digest "images" $images) }}
{{- end }}

{{- /* What the gate is told (tabserve/rollout/settings.py), as JSON. */ -}}
{{- define "tabserve.rolloutSettings" -}}
{{- $v := .Values -}}
{{- $change := dict "decisions" (index $v.rollout.change "decisions") "scores" (index $v.rollout.change "scores") -}}
{{- $course := merge (dict "change" $change) (omit $v.rollout "enabled" "resources" "change") -}}
{{- $gateway := dict "parentRefs" $v.gateway.parentRefs "hostnames" (include "tabserve.hostnames" . | fromYamlArray) "timeout" $v.gateway.timeout -}}
{{- toJson (dict
  "name" (include "tabserve.fullname" .)
  "namespace" .Release.Namespace
  "stable" (include "tabserve.gatedSlot" (dict "root" . "slot" $v.traffic.stable) | fromJson)
  "canary" (include "tabserve.gatedSlot" (dict "root" . "slot" $v.traffic.canary) | fromJson)
  "entry" (include "tabserve.entryWorkload" .)
  "workloads" (include "tabserve.workloads" . | splitList " ")
  "gateway" $gateway
  "header" $v.traffic.canaryHeader
  "course" $course) -}}
{{- end }}

{{- /* The gate's pod, as YAML. It can't be changed, so what it holds is part of the Job's name. */ -}}
{{- define "tabserve.gatePod" -}}
{{- $service := ternary "predictor" "transformer" (eq .Values.transformer.placement "none") -}}
{{- $values := get (include "tabserve.slot" (dict "root" . "slot" .Values.traffic.stable) | fromYaml) $service -}}
metadata:
  labels:
    app.kubernetes.io/name: tabserve
    app.kubernetes.io/instance: {{ .Release.Name }}
    {{- include "tabserve.gateSelector" . | nindent 4 }}
spec:
  serviceAccountName: {{ include "tabserve.fullname" . }}-rollout
  automountServiceAccountToken: true
  enableServiceLinks: false
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 15
  securityContext: {{- include "tabserve.podSecurity" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $name := list "nodeSelector" "affinity" "priorityClassName" }}
  {{- with index $.Values.pods $name }}
  {{ $name }}: {{ toJson . }}
  {{- end }}
  {{- end }}
  tolerations:
    {{- /* If the node is gone, so is the gate soon, and with it its route. */}}
    {{- range list "unreachable" "not-ready" }}
    - {key: node.kubernetes.io/{{ . }}, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
    {{- end }}
    {{- with .Values.pods.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  containers:
    - name: gate
      image: {{ $values.imageReference | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [python, -P, -m, tabserve.cli]
      args: [rollout, run]
      env:
        - {name: TABSERVE_ROLLOUT, value: {{ include "tabserve.rolloutSettings" . | quote }}}
        {{- $fields := dict "POD" "metadata.name" "POD_UID" "metadata.uid" "JOB" "metadata.labels['batch.kubernetes.io/job-name']" "JOB_UID" "metadata.labels['batch.kubernetes.io/controller-uid']" }}
        {{- range $name, $path := $fields }}
        - name: TABSERVE_{{ $name }}
          valueFrom: {fieldRef: {fieldPath: {{ $path | quote }}}}
        {{- end }}
      ports:
        - {name: copies, containerPort: 8080, protocol: TCP}
        - {name: admin, containerPort: 8082, protocol: TCP}
      livenessProbe:
        httpGet: {path: /v2/health/live, port: 8082}
        initialDelaySeconds: 60
        periodSeconds: 20
        timeoutSeconds: 5
        failureThreshold: 3
      resources: {{- toYaml .Values.rollout.resources | nindent 8 }}
      securityContext: {{- include "tabserve.containerSecurity" . | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- /* The name of the gate's Job, which differs with the releases and with all that its pod holds. */ -}}
{{- define "tabserve.rolloutJob" -}}
{{- printf "%s-rollout-%s" (include "tabserve.fullname" .) (include "tabserve.gatePod" . | sha256sum | trunc 8) -}}
{{- end }}
