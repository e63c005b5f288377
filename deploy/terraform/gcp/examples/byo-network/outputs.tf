output "kubectl_command" {
  description = "Gives kubectl and helm access, within the network."
  value       = module.sie_gke.kubectl_command
}

output "workload_identity_sa" {
  description = "E-mail of the workers' service account."
  value       = module.sie_gke.workload_identity_sa
}

output "subnetwork_name" {
  description = "The subnetwork of the machines."
  value       = module.sie_gke.subnetwork_name
}
