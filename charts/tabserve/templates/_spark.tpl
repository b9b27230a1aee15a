{{- /*
What a SparkApplication is: the bundle of `traffic.stable` decides `batch.source`. The driver and its executors mount the
bundle, because KServe fetches it only for pods with a container of its own names. Takes: root, args.
*/ -}}
{{- define "tabserve.sparkSpec" -}}
{{- $root := .root -}}
{{- $batch := $root.Values.batch -}}
{{- $slot := include "tabserve.slot" (dict "root" $root "slot" $root.Values.traffic.stable) | fromYaml -}}
{{- $volumes := $batch.extraVolumes -}}
{{- $mounts := $batch.extraVolumeMounts -}}
{{- with $slot.bundle.storageUri -}}
{{- if not (hasPrefix "pvc://" .) -}}
{{- fail (printf "ERROR: Spark's pods can't fetch %s; put the bundle on a volume (releases.%s.bundle.storageUri: pvc://CLAIM/FOLDER), or into batch.image at /mnt/models (storageUri: \"\")" . $root.Values.traffic.stable) -}}
{{- end -}}
{{- $place := splitn "/" 2 (trimPrefix "pvc://" .) -}}
{{- $volumes = prepend $volumes (dict "name" "bundle" "persistentVolumeClaim" (dict "claimName" $place._0 "readOnly" true)) -}}
{{- $mount := dict "name" "bundle" "mountPath" "/mnt/models" "readOnly" true -}}
{{- with $place._1 }}{{ $_ := set $mount "subPath" . }}{{ end -}}
{{- $mounts = prepend $mounts $mount -}}
{{- end -}}
{{- with include "tabserve.trustVolume" $root -}}
{{- $volumes = append $volumes (fromJson .) -}}
{{- $mounts = append $mounts (dict "name" "trust" "mountPath" "/mnt/trust" "readOnly" true) -}}
{{- end -}}
{{- $pod := dict "env" (prepend $batch.env (dict "name" "ORT_DISABLE_TELEMETRY" "value" "1")) "volumeMounts" $mounts -}}
{{- $_ := set $pod "podSecurityContext" (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) -}}
{{- $_ := set $pod "securityContext" (dict "allowPrivilegeEscalation" false "capabilities" (dict "drop" (list "ALL"))) -}}
type: Python
pythonVersion: "3"
mode: cluster
sparkVersion: {{ $batch.spark.version | quote }}
image: {{ include "tabserve.ownImage" (dict "root" $root "image" $batch.image) | quote }}
imagePullPolicy: {{ $batch.image.pullPolicy }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {{ .name }}
  {{- end }}
{{- end }}
mainApplicationFile: {{ $batch.spark.main | quote }}
arguments: {{- toYaml .args | nindent 2 }}
{{- with $batch.spark.conf }}
sparkConf: {{- toYaml . | nindent 2 }}
{{- end }}
restartPolicy:
  type: OnFailure
  onFailureRetries: {{ $batch.retries }}
  onFailureRetryInterval: 30
  onSubmissionFailureRetries: {{ $batch.retries }}
  onSubmissionFailureRetryInterval: 30
{{- with $volumes }}
volumes: {{- toYaml . | nindent 2 }}
{{- end }}
driver: {{- toYaml (mergeOverwrite (deepCopy $pod) $batch.spark.driver) | nindent 2 }}
executor: {{- toYaml (mergeOverwrite (deepCopy $pod) $batch.spark.executor) | nindent 2 }}
{{- end }}
