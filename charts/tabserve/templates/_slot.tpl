{{- /*
A slot as YAML: name (of its InferenceService), deployed, bundle, predictor, transformer (the values, with the release's
own over them), release (its id) and runtime (the name of its ServingRuntime).
Takes: root, slot.
*/ -}}
{{- define "tabserve.slot" -}}
{{- $root := .root -}}
{{- $given := index $root.Values.releases .slot | default dict -}}
{{- $fullname := include "tabserve.fullname" $root -}}
{{- $bundle := $given.bundle | default dict -}}
{{- $predictor := mergeOverwrite (deepCopy $root.Values.predictor) (deepCopy ($given.predictor | default dict)) -}}
{{- $transformer := mergeOverwrite (deepCopy $root.Values.transformer) (deepCopy ($given.transformer | default dict)) -}}
{{- $_ := set $predictor "imageReference" (include "tabserve.image" (dict "root" $root "image" $predictor.image)) -}}
{{- $_ := set $transformer "imageReference" (include "tabserve.image" (dict "root" $root "image" $transformer.image)) -}}
{{- /* Part of the settings, and so of the release. */ -}}
{{- with $root.Values.trusted -}}
{{- $_ := set $predictor.settings "trusted" (join "," .) -}}
{{- $_ := set $transformer.settings "trusted" (join "," .) -}}
{{- end -}}
{{- $answering := list (pick $predictor "imageReference" "settings" "env") -}}
{{- if ne $transformer.placement "none" -}}
{{- $answering = append $answering (pick $transformer "imageReference" "settings" "env") -}}
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

{{- define "tabserve.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /*
The slots that have objects, as a YAML list of `tabserve.slot`: every deployed one in Standard mode; in Knative mode, with
its one InferenceService, the canary's if there is one and the stable one's if not.
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
