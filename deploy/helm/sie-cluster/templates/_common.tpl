{{/* The name in front of every object's name: the release's. */}}
{{- define "sie.name" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end -}}

{{/* Labels by which a component's pods are found. Context: dict root component. */}}
{{- define "sie.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels. Context: dict root component. */}}
{{- define "sie.labels" -}}
{{ include "sie.selector" . }}
app.kubernetes.io/part-of: sie
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Labels of a component's pods: nothing that changes with a release of the chart, which would restart them. */}}
{{- define "sie.podLabels" -}}
{{ include "sie.selector" . }}
app.kubernetes.io/part-of: sie
{{- end -}}

{{/* A map as JSON, without what is null: so one values file takes away what another gave. */}}
{{- define "sie.map" -}}
{{- $kept := dict -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ $_ := set $kept $key $value }}{{ end }}{{ end -}}
{{- toJson $kept -}}
{{- end -}}

{{/* metadata of an object. Context: dict root component name [annotations] [labels]. */}}
{{- define "sie.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "sie.labels" . | nindent 2 }}
  {{- with include "sie.map" .labels | fromJson }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with include "sie.map" .annotations | fromJson }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's name. Context: dict root image tag, and for an image of ours: own true. */}}
{{- define "sie.image" -}}
{{- $ours := ternary .root.Values.imageRegistry "" (.own | default false) -}}
{{- with .image.registry | default $ours | default .root.Values.global.imageRegistry }}{{ . }}/{{ end }}
{{- .image.repository }}
{{- with .image.digest }}@{{ . }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}

{{- define "sie.routerImage" -}}
{{- $image := .Values.router.image -}}
{{- include "sie.image" (dict "root" . "own" true "image" $image "tag" ($image.tag | default .Chart.AppVersion)) -}}
{{- end -}}

{{- define "sie.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a pod, and of a container. */}}
{{- define "sie.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "sie.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "sie.routerAccount" -}}
{{- with .Values.router.serviceAccount }}
{{- .name | default (ternary (printf "%s-router" (include "sie.name" $)) "default" .create) }}
{{- end }}
{{- end -}}

{{- define "sie.prometheus" -}}
{{- $namespace := ternary .Release.Namespace "monitoring" (index .Values "kube-prometheus-stack" "install") -}}
{{- .Values.autoscaling.prometheusAddress | default (printf "http://prometheus-operated.%s.svc:9090" $namespace) | trimSuffix "/" -}}
{{- end -}}

{{/* Matchers of the routers' series. */}}
{{- define "sie.routerSeries" -}}
{{- $labels := dict "namespace" .Release.Namespace "service" (printf "%s-router" (include "sie.name" .)) -}}
{{- $matchers := list -}}
{{- range $label, $value := include "sie.map" .Values.autoscaling.metricLabels | fromJson | default $labels -}}
{{- $matchers = append $matchers (printf "%s=%s" $label (quote $value)) -}}
{{- end -}}
{{- join "," $matchers -}}
{{- end -}}

{{/* What the triggers of a pool ask, as a JSON object by name. Context: dict root pool. */}}
{{- define "sie.queries" -}}
{{- $selector := printf "{%s," (include "sie.routerSeries" .root) -}}
{{- $found := dict -}}
{{- range $name, $query := .root.Files.Get "files/queries.yaml" | fromYaml -}}
{{- if ne $name "lease" -}}
{{- $own := $query | replace "{" $selector | replace "$profile" $.pool.profile | replace "$bundle" $.pool.bundle -}}
{{- $own = $own | replace "$threshold" ($.pool.scaling.queueDepthThreshold | int64 | toString) -}}
{{- $_ := set $found $name ($own | replace "\n" " ") -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Pods of a component apart from each other where possible. Context: dict root component over [labels]. */}}
{{- define "sie.spread" -}}
{{- range .over }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "sie.selector" $ | nindent 6 }}
      {{- with $.labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Secret with the token of the Hugging Face hub, or nothing. */}}
{{- define "sie.hfSecret" -}}
{{- if .Values.hfToken.create -}}
{{ include "sie.name" . }}-hf-token
{{- else -}}
{{ .Values.hfToken.existingSecret }}
{{- end -}}
{{- end -}}

{{/*
Variables of a container, each once: of several with one name the last counts, and Kubernetes refuses to apply them.
Context: dict own (as YAML) extra (a list).
*/}}
{{- define "sie.env" -}}
{{- $names := list -}}
{{- $found := dict -}}
{{- range concat (fromYamlArray .own) (.extra | default list) -}}
{{- if not (hasKey $found .name) }}{{- $names = append $names .name }}{{- end -}}
{{- $_ := set $found .name . -}}
{{- end -}}
{{- range $names }}
- {{ get $found . | toJson }}
{{- end -}}
{{- end -}}

{{/* Variables that make a program read the models of ConfigMaps. */}}
{{- define "sie.catalogEnv" -}}
{{- if .Values.catalog.modelsConfigMap }}
- { name: SIE_MODELS_DIR, value: /catalog/models }
- { name: SIE_BUNDLES_DIR, value: /catalog/bundles }
{{- end }}
{{- end -}}

{{- define "sie.catalogMounts" -}}
{{- if .Values.catalog.modelsConfigMap -}}
- { name: models, mountPath: /catalog/models, readOnly: true }
- { name: bundles, mountPath: /catalog/bundles, readOnly: true }
{{- end }}
{{- end -}}

{{- define "sie.catalogVolumes" -}}
{{- with .Values.catalog.modelsConfigMap -}}
- { name: models, configMap: { name: {{ . | quote }} } }
- { name: bundles, configMap: { name: {{ $.Values.catalog.bundlesConfigMap | quote }} } }
{{- end }}
{{- end -}}

{{/* The bytes of a quantity in Mi, Gi or Ti. */}}
{{- define "sie.bytes" -}}
{{- $unit := regexFind "[MGT]" . -}}
{{- $scale := get (dict "M" 1048576 "G" 1073741824 "T" 1099511627776) $unit -}}
{{- mul (regexFind "[0-9]+" . | int64) $scale -}}
{{- end -}}

{{/* The milliseconds of a duration such as 1m30s. */}}
{{- define "sie.milliseconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $scale := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+" .) -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int64) $scale) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
