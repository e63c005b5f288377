{{/* Spec of a worker's pod. Context: dict root pool. */}}
{{- define "sie.workerPod" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{- $common := $root.Values.workers.common -}}
serviceAccountName: {{ $root.Values.serviceAccount.name | quote }}
automountServiceAccountToken: false # a worker runs models, and asks the Kubernetes API nothing
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $pool.grace }}
securityContext:
  {{- include "sie.podSecurity" $root | nindent 2 }}
{{- with include "sie.pullSecrets" $root }}{{ . | nindent 0 }}{{ end }}
{{- with $common.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $common.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $pool.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if $common.topologySpreadConstraints }}
  {{- toYaml $common.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- $labels := dict "sie.superlinked.com/pool" $pool.name }}
  {{- include "sie.spread" (dict "root" $root "component" "worker" "labels" $labels "over" (list "topology.kubernetes.io/zone")) | trim | nindent 2 }}
  {{- end }}
affinity:
  {{- if $common.affinity }}
  {{- toYaml $common.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "sie.selector" (dict "root" $root "component" "worker") | nindent 14 }}
  {{- end }}
containers:
  - name: worker
    image: {{ include "sie.image" (dict "root" $root "own" true "image" $common.image "tag" (printf "%s-%s-%s" ($common.image.tag | default $root.Chart.AppVersion) $pool.platform $pool.bundle)) }}
    imagePullPolicy: {{ $common.image.pullPolicy }}
    args: [serve]
    ports:
      - { name: http, containerPort: 8080 }
    env:
      {{- include "sie.env" (dict "own" (include "sie.workerEnv" .) "extra" .pool.extraEnv) | nindent 6 }}
    # A fast check at the start is what a cold start waits for; loading models has no part in it.
    startupProbe:
      httpGet: { path: /healthz, port: http }
      periodSeconds: 2
      failureThreshold: {{ div (add $common.startupSeconds 1) 2 }}
    livenessProbe:
      httpGet: { path: /livez, port: http }
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 6
    readinessProbe:
      httpGet: { path: /readyz, port: http }
      periodSeconds: 2
      timeoutSeconds: 5
    {{- if $common.preStopSeconds }}
    lifecycle:
      preStop:
        sleep: { seconds: {{ $common.preStopSeconds }} }
    {{- end }}
    {{- $extra := dict }}
    {{- if gt (int $pool.gpus) 0 }}{{ $_ := set $extra "nvidia.com/gpu" (int $pool.gpus) }}{{ end }}
    {{- $requests := merge (dict) (dig "requests" dict $pool.resources) $extra }}
    {{- with $common.ephemeralStorageRequest }}{{ $_ := set $requests "ephemeral-storage" . }}{{ end }}
    resources:
      requests:
        {{- toYaml $requests | nindent 8 }}
      {{- with merge (dict) (dig "limits" dict $pool.resources) $extra }}
      limits:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    securityContext:
      {{- include "sie.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - { name: models-cache, mountPath: /models }
      - { name: tmp, mountPath: /tmp }
      - { name: shm, mountPath: /dev/shm }
      {{- with include "sie.catalogMounts" $root }}{{ . | nindent 6 }}{{ end }}
volumes:
  {{- if not $common.cachePersistence.enabled }}
  - { name: models-cache, emptyDir: { sizeLimit: {{ $common.cacheVolumeSize }} } }
  {{- end }}
  - { name: tmp, emptyDir: { sizeLimit: 1Gi } }
  - { name: shm, emptyDir: { medium: Memory, sizeLimit: {{ $common.sharedMemorySize }} } }
  {{- with include "sie.catalogVolumes" $root }}{{ . | nindent 2 }}{{ end }}
{{- end -}}
