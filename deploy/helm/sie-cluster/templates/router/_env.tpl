{{/* Values stand here and not in a ConfigMap, so that a change of pools rolls the routers out. */}}
{{- define "sie.routerEnv" -}}
{{- $router := .Values.router -}}
- name: SIE_ROUTER_K8S_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- { name: SIE_ROUTER_K8S_SERVICE, value: {{ include "sie.name" . }}-worker }
- { name: SIE_ROUTER_K8S_PORT, value: http }
- { name: SIE_ROUTER_K8S_RELEASE, value: {{ include "sie.name" . | quote }} }
- { name: SIE_ROUTER_GROUPS, value: {{ include "sie.groups" . | quote }} }
- { name: SIE_ROUTER_MACHINE_PROFILES, value: {{ include "sie.profiles" . | squote }} }
- { name: SIE_ROUTER_RETRY_AFTER_S, value: {{ $router.retryAfterSeconds | quote }} }
- { name: SIE_ROUTER_ESTIMATED_WAIT_S, value: {{ $router.estimatedWaitSeconds | quote }} }
- { name: SIE_ROUTER_DRAIN_S, value: {{ $router.drainSeconds | quote }} }
- { name: SIE_LOG_LEVEL, value: {{ .Values.logging.level | lower }} }
- { name: SIE_LOG_JSON, value: {{ .Values.logging.json | quote }} }
{{- $proxy := .Values.auth.oauth2Proxy.secret }}
{{- if and .Values.auth.enabled $proxy.proxySecretKey }}
- { name: SIE_AUTH_MODE, value: static }
- { name: SIE_AUTH_EXEMPT_OPERATIONAL, value: metrics }
- name: SIE_AUTH_PROXY_SECRET
  valueFrom: { secretKeyRef: { name: {{ $proxy.name | quote }}, key: {{ $proxy.proxySecretKey | quote }} } }
{{- else }}
- { name: SIE_AUTH_MODE, value: {{ $router.auth.mode }} }
{{- end }}
{{- with $router.auth }}
{{- if eq .mode "static" }}
- { name: SIE_AUTH_EXEMPT_OPERATIONAL, value: {{ .exemptOperational | quote }} }
- name: SIE_AUTH_TOKENS
  valueFrom: { secretKeyRef: { name: {{ .tokenSecretName | quote }}, key: {{ .tokenSecretKey | quote }} } }
{{- with .adminTokenSecretKey }}
- name: SIE_ADMIN_TOKEN
  valueFrom: { secretKeyRef: { name: {{ $router.auth.tokenSecretName | quote }}, key: {{ . | quote }} } }
{{- end }}
{{- end }}
{{- end }}
{{- include "sie.catalogEnv" . }}
{{- end -}}
