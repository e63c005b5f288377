{{/* Pods of Prometheus. */}}
{{- define "sie.prometheusPeer" -}}
- podSelector:
    matchLabels: { app.kubernetes.io/name: prometheus }
  namespaceSelector:
    {{- with .Values.networkPolicy.monitoringNamespace }}
    matchLabels: { kubernetes.io/metadata.name: {{ . | quote }} }
    {{- else }} {}
    {{- end }}
{{- end }}
