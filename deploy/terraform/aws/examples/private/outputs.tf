output "kubectl_command" {
  description = "Gives kubectl and helm access: `$(terraform output -raw kubectl_command)`."
  value       = module.sie_eks.kubectl_command
}

output "artifact_registry_url" {
  description = "Where to push the images; imageRegistry of the chart."
  value       = module.sie_eks.artifact_registry_url
}

output "pull_through_urls" {
  description = "Where copies of public registries are."
  value       = module.sie_eks.pull_through_urls
}
