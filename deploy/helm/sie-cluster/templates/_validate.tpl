{{/* Rules between values, which a schema cannot say in words. */}}
{{- define "sie.validate" -}}
{{- $name := include "sie.name" . -}}
{{- if or (gt (len $name) 24) (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name)) -}}
{{- fail (printf "'%s' cannot stand in front of names: at most 24 lower-case letters, digits and dashes, a letter first; set fullnameOverride" $name) -}}
{{- end -}}
{{- if regexMatch "-pool(-|$)" $name -}}
{{- fail (printf "'%s' looks like the name of a pool that tenants reserve in a release '%s'; set fullnameOverride" $name (regexReplaceAll "-pool(-.*|$)" $name "")) -}}
{{- end -}}
{{- with .Values.global.namespace -}}
{{- fail (printf "global.namespace is not a value of this chart; everything goes to the namespace of the release: helm -n %v" .) -}}
{{- end -}}
{{- include "sie.validatePodLabels" (dict "path" "router.podLabels" "labels" .Values.router.podLabels) -}}
{{- include "sie.validatePodLabels" (dict "path" "workers.common.podLabels" "labels" .Values.workers.common.podLabels) -}}
{{- include "sie.validateMonitor" . -}}
{{- include "sie.validateRouter" . -}}
{{- include "sie.validateAccess" . -}}
{{- include "sie.validateWorkers" . -}}
{{- include "sie.validatePools" . -}}
{{- end -}}

{{/* Context: dict path labels. */}}
{{- define "sie.validatePodLabels" -}}
{{- range $label, $_ := .labels -}}
{{- if regexMatch "^(app\\.kubernetes\\.io/(name|instance|component|part-of)$|sie\\.superlinked\\.com/)" $label -}}
{{- fail (printf "%s: %s is a label by which the chart finds its pods; choose another name" $.path $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sie.validateMonitor" -}}
{{- with .Values.serviceMonitor -}}
{{- if and .enabled (gt (include "sie.milliseconds" .scrapeTimeout | int64) (include "sie.milliseconds" .interval | int64)) -}}
{{- fail (printf "serviceMonitor.scrapeTimeout is %s, more than the interval of %s; the Prometheus operator would scrape nothing" .scrapeTimeout .interval) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sie.validateRouter" -}}
{{- $router := .Values.router -}}
{{- $auth := $router.auth -}}
{{- if and (eq $auth.mode "static") (not $auth.tokenSecretName) -}}
{{- fail "router.auth.mode is static without tokens; make a Secret with them and set router.auth.tokenSecretName" -}}
{{- end -}}
{{- if and (eq $auth.mode "none") $auth.tokenSecretName -}}
{{- fail "router.auth.tokenSecretName is set, but router.auth.mode is none: nobody would be asked for a token; set router.auth.mode=static" -}}
{{- end -}}
{{- $scraped := or .Values.serviceMonitor.enabled .Values.autoscaling.enabled -}}
{{- if and (eq $auth.mode "static") $scraped (not (or $auth.exemptOperational $auth.metricsTokenSecretKey)) -}}
{{- fail "Prometheus could not read /metrics, which asks for a token; set router.auth.metricsTokenSecretKey to the key of one token, or router.auth.exemptOperational=metrics" -}}
{{- end -}}
{{- if and $router.serviceAccount.create .Values.serviceAccount.create (eq (include "sie.routerAccount" .) .Values.serviceAccount.name) -}}
{{- fail (printf "serviceAccount.name and the routers' account are both '%s'; workers have no business with the rights of routers, give one another name" .Values.serviceAccount.name) -}}
{{- end -}}
{{- $least := add $router.drainSeconds $router.preStopSeconds 5 -}}
{{- if lt (int $router.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "router.terminationGracePeriodSeconds is %v, less than drainSeconds + preStopSeconds + 5 = %v; requests would be cut" $router.terminationGracePeriodSeconds $least) -}}
{{- end -}}
{{- if ne (empty .Values.catalog.modelsConfigMap) (empty .Values.catalog.bundlesConfigMap) -}}
{{- fail "catalog.modelsConfigMap and catalog.bundlesConfigMap go together; one is missing" -}}
{{- end -}}
{{- end -}}

{{- define "sie.validateAccess" -}}
{{- if and .Values.ingress.tls.enabled .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.tls.enabled needs ingress.host: a certificate is for a name" -}}
{{- end -}}
{{- if and .Values.ingress.tls.enabled (not .Values.ingress.enabled) -}}
{{- fail "ingress.tls.enabled has no effect without ingress.enabled" -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
{{- fail "gateway.enabled needs gateway.parentRefs: the Gateway that the route joins" -}}
{{- end -}}
{{- if .Values.auth.enabled -}}
{{- if not .Values.auth.oauth2Proxy.oidcIssuerUrl -}}
{{- fail "auth.enabled needs auth.oauth2Proxy.oidcIssuerUrl: the address of your identity provider" -}}
{{- end -}}
{{- if not (and .Values.ingress.enabled .Values.ingress.host) -}}
{{- fail "auth.enabled needs ingress.enabled and ingress.host: it is the ingress that asks the proxy" -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- fail "auth.enabled protects the ingress only; gateway.enabled would be a way around it" -}}
{{- end -}}
{{- if ne .Values.router.auth.mode "none" -}}
{{- fail "auth.enabled and router.auth.mode=static exclude each other: the router would take the proxy's token for a wrong one" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.auth.oauth2Proxy.secret.proxySecretKey (not .Values.auth.enabled) -}}
{{- fail "auth.oauth2Proxy.secret.proxySecretKey has no effect without auth.enabled" -}}
{{- end -}}
{{- if and .Values.hfToken.create (not .Values.hfToken.value) -}}
{{- fail "hfToken.create is true and hfToken.value is empty (is HF_TOKEN set in your shell?); without a token leave both out" -}}
{{- end -}}
{{- if and .Values.hfToken.create .Values.hfToken.existingSecret -}}
{{- fail "hfToken.create and hfToken.existingSecret exclude each other" -}}
{{- end -}}
{{- end -}}

{{- define "sie.validateWorkers" -}}
{{- $common := .Values.workers.common -}}
{{- if and $common.clusterCache.enabled (not $common.clusterCache.url) -}}
{{- fail "workers.common.clusterCache.enabled needs workers.common.clusterCache.url, for example gs://bucket/models" -}}
{{- end -}}
{{- $least := add $common.drainSeconds $common.preStopSeconds 5 -}}
{{- if lt (int $common.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "workers.common.terminationGracePeriodSeconds is %v, less than drainSeconds + preStopSeconds + 5 = %v; requests would be cut" $common.terminationGracePeriodSeconds $least) -}}
{{- end -}}
{{- $least := add $common.spotDrainSeconds $common.preStopSeconds 5 -}}
{{- if lt (int $common.spotTerminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "workers.common.spotTerminationGracePeriodSeconds is %v, less than spotDrainSeconds + preStopSeconds + 5 = %v; requests would be cut" $common.spotTerminationGracePeriodSeconds $least) -}}
{{- end -}}
{{- end -}}

{{- define "sie.validatePools" -}}
{{- $groups := dict -}}
{{- $images := dict -}}
{{- range $pool := include "sie.pools" . | fromJsonArray -}}
{{- if lt (int .max) (int .min) -}}
{{- fail (printf "workers.pools.%s.maxReplicas is %v, less than its minReplicas %v" .name .max .min) -}}
{{- end -}}
{{- if and (not $.Values.autoscaling.enabled) (eq (int .min) 0) -}}
{{- fail (printf "workers.pools.%s.minReplicas is 0 and autoscaling.enabled is false: nobody would ever start a worker" .name) -}}
{{- end -}}
{{- if and .spot (not .nodeSelector) -}}
{{- fail (printf "workers.pools.%s.spot chooses no spot nodes; use the values file of your cloud, or set workers.common.spotNodeSelector" .name) -}}
{{- end -}}
{{- range $kind := list "requests" "limits" -}}
{{- range $what := list "cpu" "memory" -}}
{{- if not (dig $kind $what "" $pool.resources) -}}
{{- fail (printf "workers.pools.%s.resources.%s.%s is missing; without it a worker may take what others on its node need" $pool.name $kind $what) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or (dig "requests" "nvidia.com/gpu" "" .resources) (dig "limits" "nvidia.com/gpu" "" .resources) -}}
{{- fail (printf "workers.pools.%s.resources names nvidia.com/gpu; set workers.pools.%s.gpu.count, which routers are told as well" .name .name) -}}
{{- end -}}
{{- $_ := set $images (printf "%s-%s" .platform .bundle) true -}}
{{- $group := printf "%s:%s" .profile .bundle | lower -}}
{{- if hasKey $groups $group -}}
{{- fail (printf "pools %s and %s have the same machine profile and bundle (%s): each would be scaled for both; give one another machineProfile" (get $groups $group) .name $group) -}}
{{- end -}}
{{- $_ := set $groups $group .name -}}
{{- end -}}
{{- if and .Values.workers.common.image.digest (gt (len $images) 1) -}}
{{- fail (printf "workers.common.image.digest is one image, and the pools need several: %s; leave it empty, and name them by tag" (keys $images | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if not $groups -}}
{{- fail "no pool is enabled; set workers.pools.NAME.enabled=true for one" -}}
{{- end -}}
{{- end -}}
