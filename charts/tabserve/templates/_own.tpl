{{- /*
The metadata of a pod that is none of an InferenceService's, and gets the bundle all the same: KServe's webhook fetches it
by this label and annotation. Takes: root, slot, name, annotations.
*/ -}}
{{- define "tabserve.ownPodMetadata" -}}
labels:
  {{- include "tabserve.labels" .root | nindent 2 }}
  serving.kserve.io/inferenceservice: {{ .name }}
{{- $annotations := .annotations -}}
{{- with .slot.bundle.storageUri }}
{{- $annotations = merge $annotations (dict "internal.serving.kserve.io/storage-initializer-sourceuri" .) -}}
{{- end }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What such a pod has besides its container. Takes: root. */ -}}
{{- define "tabserve.ownPod" -}}
serviceAccountName: {{ include "tabserve.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "tabserve.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The image of such a container. Takes: root, image. */ -}}
{{- define "tabserve.ownImage" -}}
{{- $reference := printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- with .image.digest }}{{ $reference = printf "%s@%s" $reference . }}{{ end -}}
{{ $reference }}
{{- end }}
