{{- /*
The routes that send requests to a slot, as "KIND NAMESPACE/NAME, …". The chart's own route does not count, because its
shares are values, and neither does the gate's. Nor do KServe's own routes, which come and go with the slot's
InferenceService. Takes: root, slot (its `tabserve.slot`).

Helm ends with an error if a list is forbidden. So the kinds and namespaces are values, and this is called only if a slot
would be emptied or changed.
*/ -}}
{{- define "tabserve.routesTo" -}}
{{- $root := .root -}}
{{- $slot := .slot -}}
{{- $routes := $root.Values.traffic.routes -}}
{{- $namespace := ternary "" $root.Release.Namespace $routes.allNamespaces -}}
{{- $fullname := include "tabserve.fullname" $root -}}
{{- $own := list (printf "HTTPRoute %s/%s-rollout" $root.Release.Namespace $fullname) -}}
{{- if $root.Values.gateway.enabled }}{{ $own = append $own (printf "HTTPRoute %s/%s" $root.Release.Namespace $fullname) }}{{ end -}}
{{- $found := list -}}
{{- range $kind := $routes.kinds -}}
{{- if $root.Capabilities.APIVersions.Has (printf "gateway.networking.k8s.io/v1/%s" $kind) -}}
{{- range $route := dig "items" list (lookup "gateway.networking.k8s.io/v1" $kind $namespace "") -}}
{{- $name := printf "%s %s/%s" $kind $route.metadata.namespace $route.metadata.name -}}
{{- if and (not (has $name $own)) (include "tabserve.leads" (dict "route" $route "slot" $slot.name "namespace" $root.Release.Namespace)) -}}
{{- $found = append $found $name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ join ", " $found }}
{{- end }}

{{- /*
Whether a route sends requests to a Service of a slot; empty if it does not. A mirror counts as well, whatever its
percentage: nobody waits for its answers, but without its Service Envoy Gateway answers 500 to every request of its rule.
Takes: route, slot (the name of its InferenceService), namespace (the slot's).
*/ -}}
{{- define "tabserve.leads" -}}
{{- $home := .route.metadata.namespace -}}
{{- $services := list (printf "%s-predictor" .slot) (printf "%s-transformer" .slot) (printf "%s-predictor-pods" .slot) -}}
{{- $backends := list -}}
{{- range $rule := dig "spec" "rules" list .route -}}
{{- $filters := $rule.filters | default list -}}
{{- range $backend := $rule.backendRefs -}}
{{- if gt (dig "weight" 1 $backend | int) 0 -}}
{{- $backends = append $backends $backend -}}
{{- $filters = concat $filters ($backend.filters | default list) -}}
{{- end -}}
{{- end -}}
{{- range $filters }}{{ with .requestMirror }}{{ $backends = append $backends .backendRef }}{{ end }}{{ end -}}
{{- end -}}
{{- $kserves := false -}}
{{- range $owner := .route.metadata.ownerReferences -}}
{{- if and $owner.controller (eq $owner.kind "InferenceService") (eq $owner.name $.slot) (eq $home $.namespace) }}{{ $kserves = true }}{{ end -}}
{{- end -}}
{{- range $backend := $backends -}}
{{- $service := and (eq ($backend.kind | default "Service") "Service") (has $backend.name $services) -}}
{{- if and $service (eq ($backend.namespace | default $home) $.namespace) (not $kserves) }}true{{ end -}}
{{- end -}}
{{- end }}
