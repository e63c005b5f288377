output "kubectl_command" {
  description = "Gives kubectl and helm access, within the network."
  value       = module.sie_gke.kubectl_command
}

output "artifact_registry_url" {
  description = "Where to push the images, before the chart is installed."
  value       = module.sie_gke.artifact_registry_url
}
