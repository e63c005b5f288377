{{/*
A job around `helm uninstall` that deletes collections of objects, and the account it needs.
Context: dict root name when rules collections.
*/}}
{{- define "sie.cleanup" -}}
{{- $hook := dict "helm.sh/hook" .when "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" }}
{{- $self := dict "root" .root "component" "cleanup" "name" .name "annotations" $hook }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "sie.metadata" $self | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "sie.metadata" $self | nindent 2 }}
rules:
  {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "sie.metadata" $self | nindent 2 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }} }
subjects:
  - { kind: ServiceAccount, name: {{ .name }}, namespace: {{ .root.Release.Namespace | quote }} }
---
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "sie.metadata" (merge (dict "annotations" (merge (dict "helm.sh/hook-weight" "1") $hook)) $self) | nindent 2 }}
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 180
  template:
    metadata:
      labels:
        {{- include "sie.podLabels" $self | nindent 8 }}
    spec:
      {{- include "sie.scriptPod" (dict "root" .root "file" "files/remove.py" "account" .name "args" .collections) | nindent 6 }}
{{- end -}}
