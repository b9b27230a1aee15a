{{- /*
One service's container. Takes: root, slot (from `tabserve.slot`), component.
KServe's controller appends arguments that are missing, so all are given here.
*/ -}}
{{- define "tabserve.container" -}}
{{- $root := .root -}}
{{- $values := index .slot .component -}}
{{- $standard := eq $root.Values.mode "Standard" -}}
{{- $collocated := eq $root.Values.transformer.placement "collocated" -}}
{{- $behind := and $collocated (eq .component "predictor") -}}
{{- $grpc := and (not $behind) (or $standard (eq $root.Values.knative.port "grpc")) -}}
{{- $http := ternary 8085 8080 $behind -}}
{{- $admin := ternary 8086 8082 $behind -}}
name: {{ ternary "transformer-container" "kserve-container" (and $collocated (eq .component "transformer")) }}
image: {{ $values.imageReference | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args:
  - --model_name={{ $root.Values.modelName }}
  - --workers=1
  - --http_port={{ $http }}
  - --grpc_port={{ ternary 8081 0 $grpc }}
  - --admin_port={{ $admin }}
  {{- if eq .component "transformer" }}
  - --predictor_host={{ if $collocated }}127.0.0.1:8085{{ else }}{{ .slot.name }}-predictor-pods:8080{{ end }}
  {{- end }}
env:
  - {name: TABSERVE_RELEASE, value: {{ .slot.release | quote }}}
  - {name: TABSERVE_DIGEST, value: {{ .slot.bundle.digest | quote }}}
  {{- if not $standard }}
  {{- if not (hasKey $values.settings "max_concurrency") }}
  - {name: TABSERVE_MAX_CONCURRENCY, value: {{ include "tabserve.envValue" $root.Values.knative.containerConcurrency }}}
  {{- end }}
  {{- end }}
  {{- range $name, $value := $values.settings }}
  - {name: TABSERVE_{{ upper $name }}, value: {{ include "tabserve.envValue" $value }}}
  {{- end }}
  {{- if and (eq .component "transformer") (not $collocated) .slot.bundle.storageUri }}
  - {name: STORAGE_URI, value: {{ .slot.bundle.storageUri | quote }}}
  {{- end }}
  {{- if not (contains "ORT_DISABLE_TELEMETRY" (toJson $values.env)) }}
  - {name: ORT_DISABLE_TELEMETRY, value: "1"}
  {{- end }}
  {{- range compact (list $values.env $values.logEnv) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if $standard }}
{{- if not $behind }}
ports:
  - {name: http-rest, containerPort: 8080, protocol: TCP}
  - {name: grpc-port, containerPort: 8081, protocol: TCP}
{{- end }}
{{- else if not $behind }}
ports:
  - {{ ternary "{name: h2c, containerPort: 8081, protocol: TCP}" "{name: http1, containerPort: 8080, protocol: TCP}" $grpc }}
{{- end }}
resources: {{- toYaml $values.resources | nindent 2 }}
{{- if or $standard (not $behind) (has "multi-container-probing" $root.Values.knative.features) }}
{{- $started := dict "httpGet" (dict "path" "/v2/health/live" "port" $admin) }}
{{- $ready := dict "httpGet" (dict "path" "/v2/health/ready" "port" $admin) }}
{{- $live := $started }}
{{- if not (or $standard $behind) }}
{{- /* Knative asks the serving container for liveness at the port for requests, whatever is said here. */}}
{{- $live = $grpc | ternary (dict "grpc" (dict "port" 8081)) (dict "httpGet" (dict "path" "/v2/health/live" "port" $http)) }}
{{- end }}
startupProbe:
  {{- toYaml $started | nindent 2 }}
  periodSeconds: 1
  timeoutSeconds: {{ $values.probes.timeoutSeconds }}
  failureThreshold: {{ $values.probes.startupSeconds }}
readinessProbe:
  {{- toYaml $ready | nindent 2 }}
  periodSeconds: {{ $values.probes.readinessPeriodSeconds }}
  timeoutSeconds: {{ $values.probes.timeoutSeconds }}
  failureThreshold: 2
  successThreshold: 1
livenessProbe:
  {{- toYaml $live | nindent 2 }}
  periodSeconds: {{ $values.probes.livenessPeriodSeconds }}
  timeoutSeconds: {{ $values.probes.timeoutSeconds }}
  failureThreshold: 3
{{- end }}
{{- if $standard }}
lifecycle:
  preStop:
    sleep: {seconds: {{ $values.preStopSeconds }}}
{{- end }}
securityContext: {{- include "tabserve.containerSecurity" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "tabserve.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
