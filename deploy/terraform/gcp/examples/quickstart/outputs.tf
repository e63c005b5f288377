output "kubectl_command" {
  description = "Gives kubectl and helm access: `$(terraform output -raw kubectl_command)`."
  value       = module.sie_gke.kubectl_command
}

output "workload_identity_sa" {
  description = "E-mail of the workers' service account, for the chart's annotation."
  value       = module.sie_gke.workload_identity_sa
}

output "artifact_registry_url" {
  description = "Where to push the images; imageRegistry of the chart."
  value       = module.sie_gke.artifact_registry_url
}

output "model_cache_url" {
  description = "workers.common.clusterCache.url of the chart."
  value       = module.sie_gke.model_cache_url
}

output "helm_values" {
  description = "Instead of helm-values.yaml: values made of what is here, with registry, bucket and account."
  value       = module.sie_gke.helm_values
}
