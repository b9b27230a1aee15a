{{- /*
A CronJob with the bundle of `traffic.stable` at /mnt/models, which KServe's webhook puts there by the same label and
annotation as into the pods that serve it. Takes: root, job (`batch` or `monitor`), name, args (a list), env, volumes and
mounts (lists that `job` does not have).
*/ -}}
{{- define "tabserve.cronJob" -}}
{{- $root := .root -}}
{{- $slot := include "tabserve.slot" (dict "root" $root "slot" $root.Values.traffic.stable) | fromYaml -}}
{{- $name := printf "%s-%s" (include "tabserve.fullname" $root) .name -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "tabserve.labels" $root | nindent 4 }}
spec:
  schedule: {{ .job.schedule | quote }}
  suspend: {{ .job.suspend }}
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: {{ .job.retries }}
      activeDeadlineSeconds: {{ .job.timeoutSeconds }}
      template:
        metadata:
          {{- include "tabserve.ownPodMetadata" (dict "root" $root "slot" $slot "name" $name "annotations" dict) | nindent 10 }}
        spec:
          restartPolicy: Never
          {{- include "tabserve.ownPod" (dict "root" $root) | nindent 10 }}
          containers:
            - name: kserve-container
              image: {{ include "tabserve.ownImage" (dict "root" $root "image" .job.image) | quote }}
              imagePullPolicy: {{ .job.image.pullPolicy }}
              args:
                {{- toYaml .args | nindent 16 }}
                {{- if include "tabserve.trustVolume" $root }}
                - --verify=/mnt/trust/{{ $root.Values.trust.publicKey.key }}
                {{- end }}
              env:
                - {name: ORT_DISABLE_TELEMETRY, value: "1"}
                {{- with concat .env .job.env }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
              resources: {{- toYaml .job.resources | nindent 16 }}
              securityContext: {{- include "tabserve.containerSecurity" $root | nindent 16 }}
              terminationMessagePolicy: FallbackToLogsOnError
              volumeMounts:
                - {name: tmp, mountPath: /tmp}
                {{- if include "tabserve.trustVolume" $root }}
                - {name: trust, mountPath: /mnt/trust, readOnly: true}
                {{- end }}
                {{- with concat .mounts .job.extraVolumeMounts }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
          volumes:
            - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
            {{- with include "tabserve.trustVolume" $root }}
            - {{ . }}
            {{- end }}
            {{- with concat .volumes .job.extraVolumes }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
{{- end }}
