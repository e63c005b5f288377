output "kubectl_command" {
  description = "Gives kubectl and helm access."
  value       = module.sie_gke.kubectl_command
}

output "workload_identity_sa" {
  description = "E-mail of the workers' service account."
  value       = module.sie_gke.workload_identity_sa
}

output "artifact_registry_url" {
  description = "Where to push the images."
  value       = module.sie_gke.artifact_registry_url
}

output "gpu_node_pools" {
  description = "What workloads need to know of the GPU pools."
  value       = module.sie_gke.gpu_node_pools
}

output "helm_values" {
  description = "Values of the chart for this cluster."
  value       = module.sie_gke.helm_values
}
