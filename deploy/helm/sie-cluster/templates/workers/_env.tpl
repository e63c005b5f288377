{{/* Context: dict root pool. */}}
{{- define "sie.workerEnv" -}}
{{- $values := .root.Values -}}
{{- $common := $values.workers.common -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- { name: SIE_MACHINE_PROFILE, value: {{ .pool.profile | quote }} }
- { name: SIE_BUNDLE, value: {{ .pool.bundle | quote }} }
- { name: SIE_DEVICE, value: {{ ternary "cuda" "cpu" (gt (int .pool.gpus) 0) }} }
- { name: SIE_DRAIN_GRACE_S, value: {{ .pool.drain | quote }} }
- { name: SIE_LOG_LEVEL, value: {{ $values.logging.level | lower }} }
- { name: SIE_LOG_JSON, value: {{ $values.logging.json | quote }} }
- { name: HF_HOME, value: /models/huggingface }
- { name: SIE_LOCAL_CACHE, value: /models/sie }
# A tenth of the volume is left: what a pod writes beyond its bound gets it evicted.
- { name: SIE_CACHE_MAX_BYTES, value: {{ div (mul (include "sie.bytes" $common.cacheVolumeSize) 9) 10 | quote }} }
- { name: SIE_HF_FALLBACK, value: {{ $common.hfFallback | quote }} }
{{- with $common.clusterCache }}
{{- if .enabled }}
- { name: SIE_CLUSTER_CACHE, value: {{ .url | quote }} }
- { name: SIE_CLUSTER_CACHE_WRITE, value: {{ .write | quote }} }
{{- end }}
{{- end }}
{{- with $common.preloadModels }}
- { name: SIE_PRELOAD_MODELS, value: {{ join "," . | quote }} }
{{- end }}
{{- with include "sie.hfSecret" .root }}
- name: HF_TOKEN
  valueFrom: { secretKeyRef: { name: {{ . | quote }}, key: {{ $values.hfToken.key | quote }} } }
{{- end }}
{{- include "sie.catalogEnv" .root }}
{{- end -}}
