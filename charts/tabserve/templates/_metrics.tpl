{{- /*
Selectors of the services' metrics, by the labels that the PodMonitor gives every series: all pods of this Helm release.
Pods are named NAME-SLOT-COMPONENT-… in Standard mode, and NAME-COMPONENT-… in Knative mode.
*/ -}}
{{- define "tabserve.podNames" -}}
{{ include "tabserve.fullname" . }}{{ if eq .Values.mode "Standard" }}-[ab]{{ end }}-(predictor|transformer)-.+
{{- end }}

{{- /* What selects the series of all services. */ -}}
{{- define "tabserve.measured" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "tabserve.podNames" . }}"
{{- end }}

{{- /* What selects the series of the service that clients reach; a shadow's copies are no client's. */ -}}
{{- define "tabserve.entered" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "tabserve.podNames" . | replace "(predictor|transformer)" (include "tabserve.entryWorkload" .) }}"
{{- if eq .Values.transformer.placement "collocated" }},container!="kserve-container"{{ end }},arm!="shadow"
{{- end }}

{{- /* What selects the series of the gate's pod. */ -}}
{{- define "tabserve.gating" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "tabserve.fullname" . }}-rollout-.+"
{{- end }}
