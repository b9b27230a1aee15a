{{- /* Fails if the step from the live state to these values would cost requests. Takes: root, stable, canary. */ -}}
{{- define "tabserve.checkLive" -}}
{{- if eq .root.Values.mode "Standard" -}}
{{- include "tabserve.checkStandard" . -}}
{{- else -}}
{{- include "tabserve.checkKnative" . -}}
{{- end -}}
{{- end }}

{{- define "tabserve.checkStandard" -}}
{{- $root := .root -}}
{{- $traffic := $root.Values.traffic -}}
{{- $fullname := include "tabserve.fullname" $root -}}
{{- $route := dict -}}
{{- if $root.Values.gateway.enabled }}{{ $route = lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $root.Release.Namespace $fullname | default dict }}{{ end -}}
{{- $was := dig "metadata" "annotations" dict $route -}}
{{- $had := list -}}
{{- if $was -}}
{{- if lt (get $was "tabserve/canary-percent" | int) 100 }}{{ $had = append $had (get $was "tabserve/stable") }}{{ end -}}
{{- if gt (get $was "tabserve/canary-percent" | int) 0 }}{{ $had = append $had (get $was "tabserve/canary") }}{{ end -}}
{{- end -}}
{{- /* A slot that gets traffic must be Ready, unless it is the very first release. Argo CD says which kinds the cluster has,
       and looks nothing up: there every sync looks like a first install. */ -}}
{{- $gets := dict $traffic.stable .stable -}}
{{- if gt (int $traffic.canaryPercent) 0 }}{{ $_ := set $gets $traffic.canary .canary }}{{ end -}}
{{- range $name, $slot := $gets -}}
{{- if and (not (has $name $had)) (or $was (and $root.Release.IsUpgrade (eq $name $traffic.canary))) -}}
{{- with include "tabserve.lacking" (dict "root" $root "slot" $slot) -}}
{{- fail (printf "ERROR: slot %s can't be given traffic: %s; set %s when it is Ready" $name . (ternary "traffic.canaryPercent to 0 and raise it" "traffic.stable" (eq $name $traffic.canary))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* What the gate's route leads to must stay. */ -}}
{{- $gate := lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $root.Release.Namespace (printf "%s-rollout" $fullname) | default dict -}}
{{- $gateHas := dig "metadata" "annotations" dict $gate -}}
{{- if and $gateHas (not $root.Values.rollout.enabled) (or (ne (get $gateHas "tabserve/mirror") "0") (gt (get $gateHas "tabserve/weight" | int) 0)) -}}
{{- fail (printf "ERROR: requests follow the gate's route, and without `rollout` the gate could not take it away; promote, or run `tabserve rollout stop %s -n %s`, and set rollout.enabled to false after it" $fullname $root.Release.Namespace) -}}
{{- end -}}
{{- if and (gt (get $gateHas "tabserve/weight" | int) 0) (include "tabserve.gated" $root) (ne (get $gateHas "tabserve/job") (include "tabserve.rolloutJob" $root)) -}}
{{- fail (printf "ERROR: the gate gives slot %s %s %%, and its settings or a release would be changed; first run `tabserve rollout forget %s -n %s`, which takes the canary back" $traffic.canary (get $gateHas "tabserve/weight") $fullname $root.Release.Namespace) -}}
{{- end -}}
{{- /* No request follows a route that is about to be deleted. */ -}}
{{- if and (eq (get $gateHas "tabserve/warm") "true") (eq (get $gateHas "tabserve/weight") "0") }}{{ $gate = dict }}{{ end -}}
{{- /* A slot that has traffic, from the chart's route or from another, must stay as it is. */ -}}
{{- range $name := list "a" "b" -}}
{{- $slot := include "tabserve.slot" (dict "root" $root "slot" $name) | fromYaml -}}
{{- $live := include "tabserve.live" (dict "root" $root "name" $slot.name) | fromYaml -}}
{{- $emptied := not $slot.deployed -}}
{{- $changed := and $live (eq $root.Values.transformer.placement "separate") (ne (get $live.annotations "tabserve/release") $slot.release) -}}
{{- $has := "" -}}
{{- $remedy := "promote the other slot or set traffic.canaryPercent to 0" -}}
{{- $gated := and $gate (include "tabserve.leads" (dict "route" $gate "slot" $slot.name "namespace" $root.Release.Namespace)) -}}
{{- if has $name $had -}}
{{- $has = "has traffic" -}}
{{- else if $gated -}}
{{- $has = printf "has traffic from the gate's route %s-rollout" $fullname -}}
{{- $remedy = printf "run `tabserve rollout stop %s -n %s`" $fullname $root.Release.Namespace -}}
{{- else if and $live (or $emptied $changed) -}}
{{- with include "tabserve.routesTo" (dict "root" $root "slot" $slot) -}}
{{- $has = printf "has traffic from %s" . -}}
{{- $remedy = "set its weight there to 0 and remove any mirror to it" -}}
{{- end -}}
{{- end -}}
{{- if and $has $emptied -}}
{{- fail (printf "ERROR: slot %s %s and would be emptied; first %s, then empty it" $name $has $remedy) -}}
{{- end -}}
{{- if and $has $changed -}}
{{- fail (printf "ERROR: slot %s %s, and its release would be changed in place, from %s to %s; set releases.%s instead" $name $has (get $live.annotations "tabserve/release") $slot.release (ternary "b" "a" (eq $name "a"))) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tabserve.checkKnative" -}}
{{- $root := .root -}}
{{- $traffic := $root.Values.traffic -}}
{{- $live := include "tabserve.live" (dict "root" $root "name" .stable.name) | fromYaml -}}
{{- $liveRelease := get ($live.annotations | default dict) "tabserve/release" -}}
{{- $liveStable := get ($live.annotations | default dict) "tabserve/stable-release" -}}
{{- if and .canary (not $live) -}}
{{- fail "ERROR: on a first install KServe would send the canary all traffic; set traffic.canary to \"\", and add the canary when the stable release is Ready" -}}
{{- end -}}
{{- if and .canary (ne $liveStable .stable.release) -}}
{{- fail (printf "ERROR: slot %s is not the live stable release, and a canary would take its place; set traffic.canary to \"\" first" $traffic.stable) -}}
{{- end -}}
{{- $target := .stable -}}
{{- if .canary }}{{ $target = .canary }}{{ end -}}
{{- $share := and .canary (gt (int $traffic.canaryPercent) 0) -}}
{{- $promotion := and (not .canary) $live (ne $liveStable .stable.release) (ne $liveStable $liveRelease) -}}
{{- if or $share $promotion -}}
{{- $name := get ($live.revisions | default dict) "latestReadyRevision" | default "none" -}}
{{- $revision := lookup "serving.knative.dev/v1" "Revision" $root.Release.Namespace $name | default dict -}}
{{- if ne (dig "metadata" "annotations" "tabserve/release" "" $revision) $target.release -}}
{{- fail (printf "ERROR: slot %s can't be given traffic: its revision is not Ready; set traffic.canaryPercent to 0 and raise it when it is" $target.slot) -}}
{{- end -}}
{{- end -}}
{{- end }}
