{{/*
Spec of a pod that runs one of the chart's Python files in the image of the router.
Context: dict root file [args] [env] [account].
*/}}
{{- define "sie.scriptPod" -}}
{{- $router := .root.Values.router -}}
restartPolicy: Never
{{- with .account }}
serviceAccountName: {{ . }}
{{- end }}
automountServiceAccountToken: {{ .account | empty | not }}
enableServiceLinks: false
securityContext:
  {{- include "sie.podSecurity" .root | nindent 2 }}
{{- with include "sie.pullSecrets" .root }}{{ . | nindent 0 }}{{ end }}
{{- with include "sie.map" $router.nodeSelector | fromJson }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $router.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: script
    image: {{ include "sie.routerImage" .root }}
    imagePullPolicy: {{ $router.image.pullPolicy }}
    command: [python, -c, {{ .root.Files.Get .file | quote }}]
    {{- with .args }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .env }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      requests: { cpu: 10m, memory: 32Mi }
      limits: { cpu: 500m, memory: 128Mi }
    securityContext:
      {{- include "sie.containerSecurity" .root | nindent 6 }}
{{- end -}}
