{{/*
The enabled pools with everything that is left out filled in, as a JSON list, cheapest first: by costRank, then by name.
The order is that of the router's groups: the first is where requests without a machine profile start a worker.
*/}}
{{- define "sie.pools" -}}
{{- $common := .Values.workers.common -}}
{{- $sorted := dict -}}
{{- range $name, $pool := .Values.workers.pools -}}
{{- if $pool.enabled -}}
{{- $gpus := dig "gpu" "count" 0 $pool | int -}}
{{- $spot := $pool.spot | default false -}}
{{- $full := dict
  "name" $name
  "set" (printf "%s-worker-%s" (include "sie.name" $) $name)
  "profile" ($pool.machineProfile | default $name)
  "bundle" ($pool.bundle | default $common.bundle)
  "platform" ($pool.platform | default $common.platform | default (ternary "cuda12" "cpu" (gt $gpus 0)))
  "gpuType" ($pool.gpuType | default $name)
  "gpus" $gpus
  "product" (dig "gpu" "product" "" $pool)
  "spot" $spot
  "min" ($pool.minReplicas | default 0 | int)
  "max" ($pool.maxReplicas | default 1 | int)
  "drain" (ternary $common.spotDrainSeconds $common.drainSeconds $spot | int)
  "grace" (ternary $common.spotTerminationGracePeriodSeconds $common.terminationGracePeriodSeconds $spot | int)
  "resources" ($pool.resources | default dict)
  "tolerations" (concat ($common.tolerations | default list) ($pool.tolerations | default list) (ternary ($common.spotTolerations | default list) list $spot))
  "scaling" (mergeOverwrite (deepCopy $.Values.autoscaling) (include "sie.map" $pool.autoscaling | fromJson))
  "extraEnv" (concat ($common.extraEnv | default list) ($pool.extraEnv | default list))
-}}
{{- $selector := dict -}}
{{- range list (ternary $common.spotNodeSelector dict $spot) $common.nodeSelector $pool.nodeSelector -}}
{{- range $label, $value := . }}{{- $_ := set $selector $label $value }}{{- end -}}
{{- end -}}
{{- if and $common.gpuProductLabel $full.product }}{{- $_ := set $selector $common.gpuProductLabel $full.product }}{{- end -}}
{{- $_ := set $full "nodeSelector" (include "sie.map" $selector | fromJson) -}}
{{- $_ := set $sorted (printf "%09d|%s" ($pool.costRank | default 100 | int) $name) $full -}}
{{- end -}}
{{- end -}}
{{- $pools := list -}}
{{- range $key := keys $sorted | sortAlpha }}{{- $pools = append $pools (get $sorted $key) }}{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* Pairs of pools with different GPUs whose nodes nothing tells apart, as a JSON list. */}}
{{- define "sie.alike" -}}
{{- $seen := dict -}}
{{- $pairs := list -}}
{{- range $pool := include "sie.pools" . | fromJsonArray -}}
{{- if gt (int .gpus) 0 -}}
{{- $nodes := toJson .nodeSelector -}}
{{- $other := get $seen $nodes -}}
{{- if not $other }}{{- $_ := set $seen $nodes $pool -}}
{{- else if ne $other.gpuType .gpuType }}{{- $pairs = append $pairs (list $other.name .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $pairs -}}
{{- end -}}

{{/* SIE_ROUTER_GROUPS: PROFILE:BUNDLE, cheapest first. */}}
{{- define "sie.groups" -}}
{{- $groups := list -}}
{{- range include "sie.pools" . | fromJsonArray }}{{- $groups = append $groups (printf "%s:%s" .profile .bundle) }}{{- end -}}
{{- join "," $groups -}}
{{- end -}}

{{/* SIE_ROUTER_MACHINE_PROFILES: what each profile is, as JSON. */}}
{{- define "sie.profiles" -}}
{{- $profiles := dict -}}
{{- range include "sie.pools" . | fromJsonArray -}}
{{- $_ := set $profiles .profile (dict "gpuType" .gpuType "gpus" (int .gpus) "product" .product "spot" .spot) -}}
{{- end -}}
{{- toJson $profiles -}}
{{- end -}}
