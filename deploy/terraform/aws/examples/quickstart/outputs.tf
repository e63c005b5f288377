output "kubectl_command" {
  description = "Gives kubectl and helm access: `$(terraform output -raw kubectl_command)`."
  value       = module.sie_eks.kubectl_command
}

output "workload_identity_role_arn" {
  description = "Role that the workers have; their account needs no annotation."
  value       = module.sie_eks.workload_identity_role_arn
}

output "artifact_registry_url" {
  description = "Where to push the images; imageRegistry of the chart."
  value       = module.sie_eks.artifact_registry_url
}

output "model_cache_url" {
  description = "workers.common.clusterCache.url of the chart."
  value       = module.sie_eks.model_cache_url
}

output "helm_values" {
  description = "Values of the chart made of what is here: pools, registry, bucket, access."
  value       = module.sie_eks.helm_values
}
