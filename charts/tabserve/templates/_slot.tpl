{{- /*
A service's values in a slot, as JSON: those of `pods`, with the service's own over them and the release's over both; also
imageReference. Takes: root, slot, component.
*/ -}}
{{- define "tabserve.component" -}}
{{- $root := .root -}}
{{- $of := dig .slot .component dict $root.Values.releases -}}
{{- $values := mergeOverwrite (deepCopy $root.Values.pods) (deepCopy (index $root.Values .component)) (deepCopy $of) -}}
{{- $image := $values.image -}}
{{- $reference := printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- with $image.digest }}{{ $reference = printf "%s@%s" $reference . }}{{ end -}}
{{- $_ := set $values "imageReference" $reference -}}
{{- with $root.Values.trusted }}{{ $_ := set $values.settings "trusted" (join "," .) }}{{ end -}}
{{- if and (eq .component "transformer") $root.Values.decisionLog.to }}{{ include "tabserve.logged" (dict "values" $values "log" $root.Values.decisionLog) }}{{ end -}}
{{- if and $root.Values.page (eq .component (ternary "predictor" "transformer" (eq $root.Values.transformer.placement "none"))) }}{{ $_ := set $values "settings" (merge (dict "page" true) $values.settings) }}{{ end -}}
{{- if $root.Values.tls.secretName }}{{ include "tabserve.secured" (dict "values" $values "component" .component "tls" $root.Values.tls "placement" $root.Values.transformer.placement) }}{{ end -}}
{{- with $root.Values.tracing.endpoint }}{{ $_ := set $values "settings" (merge (dict "tracing_endpoint" . "tracing_ratio" $root.Values.tracing.ratio) $values.settings) }}{{ end -}}
{{- with include "tabserve.trustVolume" $root }}
{{- $_ := set $values.settings "trust_public_key" (printf "/mnt/trust/%s" $root.Values.trust.publicKey.key) -}}
{{- include "tabserve.mounted" (dict "values" $values "volume" (fromJson .) "mount" (dict "mountPath" "/mnt/trust" "readOnly" true)) -}}
{{- end -}}
{{ toJson $values }}
{{- end }}

{{- /* The volume with whom to trust, as JSON; empty if signatures are not looked at. */ -}}
{{- define "tabserve.trustVolume" -}}
{{- with .Values.trust.publicKey -}}
{{- if .name -}}
{{ ternary (dict "name" "trust" "secret" (dict "secretName" .name)) (dict "name" "trust" "configMap" (dict "name" .name)) (eq .kind "Secret") | toJson }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Adds to a service's values what TLS needs: settings, a volume and its mount. Takes: values, component, tls, placement. */ -}}
{{- define "tabserve.secured" -}}
{{- $folder := "/mnt/tls" -}}
{{- $settings := dict "tls_cert" (printf "%s/tls.crt" $folder) "tls_key" (printf "%s/tls.key" $folder) -}}
{{- $behind := and (eq .component "predictor") (ne .placement "none") -}}
{{- if or (eq .tls.clientCertificates "all") (and $behind (eq .tls.clientCertificates "predictor")) -}}
{{- $_ := set $settings "tls_client_ca" (printf "%s/ca.crt" $folder) -}}
{{- end -}}
{{- if eq .component "transformer" }}{{ $_ := set $settings "predictor_ca" (printf "%s/ca.crt" $folder) }}{{ end -}}
{{- $_ := set .values "settings" (merge $settings .values.settings) -}}
{{- $volume := dict "name" "tls" "secret" (dict "secretName" .tls.secretName) -}}
{{- include "tabserve.mounted" (dict "values" .values "volume" $volume "mount" (dict "mountPath" $folder "readOnly" true)) -}}
{{- end }}

{{- /* Adds a volume and its mount to a service's values. Takes: values, volume, mount (without the name). */ -}}
{{- define "tabserve.mounted" -}}
{{- $_ := set .values "extraVolumes" (append .values.extraVolumes .volume) -}}
{{- $_ := set .values "extraVolumeMounts" (append .values.extraVolumeMounts (merge (dict "name" .volume.name) .mount)) -}}
{{- end }}

{{- /*
Adds to the transformer's values what its decision log needs: settings, environment, volumes and their mounts.
Takes: values, log (`decisionLog`).
*/ -}}
{{- define "tabserve.logged" -}}
{{- $log := .log -}}
{{- $settings := dict "decision_log" $log.to "decision_log_sample" $log.sample "decision_log_always" (join "," $log.always) -}}
{{- range list "buffer_rows" "buffer_bytes" "file_seconds" "file_rows" -}}
{{- $_ := set $settings (printf "decision_log_%s" .) (index $log (camelcase . | untitle)) -}}
{{- end -}}
{{- with $log.hashSecret -}}
{{- $_ := set $settings "decision_log_hash_key_file" "/mnt/hash-key/key" -}}
{{- $volume := dict "name" "hash-key" "secret" (dict "secretName" .) -}}
{{- include "tabserve.mounted" (dict "values" $.values "volume" $volume "mount" (dict "mountPath" "/mnt/hash-key" "readOnly" true)) -}}
{{- end -}}
{{- with $log.kafkaSecret -}}
{{- $_ := set $settings "decision_log_kafka_file" "/mnt/kafka/kafka.yaml" -}}
{{- $volume := dict "name" "kafka" "secret" (dict "secretName" .) -}}
{{- include "tabserve.mounted" (dict "values" $.values "volume" $volume "mount" (dict "mountPath" "/mnt/kafka" "readOnly" true)) -}}
{{- end -}}
{{- $_ := set .values "settings" (merge $settings .values.settings) -}}
{{- $_ := set .values "logEnv" $log.env -}}
{{- with $log.claim -}}
{{- $volume := dict "name" "decisions" "persistentVolumeClaim" (dict "claimName" .) -}}
{{- include "tabserve.mounted" (dict "values" $.values "volume" $volume "mount" (dict "mountPath" "/mnt/decisions")) -}}
{{- end -}}
{{- end }}

{{- /*
Settings of the operation: they neither compute nor limit an answer, so changing one rolls a slot's pods in place, and its
release stays. All others belong to the answer, and so to the release. The README's list is written from this one.
*/ -}}
{{- define "tabserve.operation" -}}
allow_joblib trusted trust_public_key log_level log_format tls_cert tls_key tls_client_ca predictor_ca cors_origins tracing_endpoint tracing_ratio drain_seconds read_timeout write_timeout keep_alive predictor_refresh max_connections memory_limit_bytes decision_log decision_log_sample decision_log_always decision_log_buffer_rows decision_log_buffer_bytes decision_log_file_seconds decision_log_file_rows decision_log_hash_key_file decision_log_kafka_file feature_bins page
{{- end }}

{{- /* A service's part of a release: image, environment and settings of the answer, as JSON. Takes its values. */ -}}
{{- define "tabserve.answering" -}}
{{- $settings := deepCopy .settings -}}
{{- range include "tabserve.operation" . | splitList " " }}{{ $_ := unset $settings . }}{{ end -}}
{{ toJson (dict "imageReference" .imageReference "settings" $settings "env" .env) }}
{{- end }}

{{- /*
A slot as YAML: name (of its InferenceService), deployed, bundle, predictor, transformer (as `tabserve.component` gives
them), release (its id) and runtime (the name of its ServingRuntime).
Takes: root, slot.
*/ -}}
{{- define "tabserve.slot" -}}
{{- $root := .root -}}
{{- $fullname := include "tabserve.fullname" $root -}}
{{- $bundle := dig .slot "bundle" dict $root.Values.releases -}}
{{- $predictor := include "tabserve.component" (dict "root" $root "slot" .slot "component" "predictor") | fromJson -}}
{{- $transformer := include "tabserve.component" (dict "root" $root "slot" .slot "component" "transformer") | fromJson -}}
{{- $answering := list (include "tabserve.answering" $predictor | fromJson) -}}
{{- if ne $transformer.placement "none" -}}
{{- $answering = append $answering (include "tabserve.answering" $transformer | fromJson) -}}
{{- end -}}
{{- $release := dict "modelName" $root.Values.modelName "bundle" $bundle "answering" $answering | toJson | sha256sum | trunc 16 -}}
name: {{ ternary $fullname (printf "%s-%s" $fullname .slot) (eq $root.Values.mode "Knative") }}
slot: {{ .slot }}
deployed: {{ not (empty $bundle.digest) }}
release: {{ $release | quote }}
runtime: {{ printf "%s-%s-%s" $fullname .slot (trunc 8 $release) }}
bundle: {{ toJson $bundle }}
predictor: {{ toJson $predictor }}
transformer: {{ toJson $transformer }}
{{- end }}

{{- /*
The slots that have objects, as a YAML list of `tabserve.slot`: in Standard mode every deployed one. Knative mode has one
InferenceService, for the canary's slot if there is one and otherwise for the stable one.
*/ -}}
{{- define "tabserve.slots" -}}
{{- $root := . -}}
{{- $names := list "a" "b" -}}
{{- if eq .Values.mode "Knative" -}}
{{- $names = list (.Values.traffic.canary | default .Values.traffic.stable) -}}
{{- end -}}
{{- $slots := list -}}
{{- range $names -}}
{{- $slot := include "tabserve.slot" (dict "root" $root "slot" .) | fromYaml -}}
{{- if $slot.deployed }}{{ $slots = append $slots $slot }}{{ end -}}
{{- end -}}
{{ toJson $slots }}
{{- end }}
