output "project_id" {
  description = "Project of the cluster."
  value       = var.project_id
}

output "region" {
  description = "Region of the cluster."
  value       = var.region
}

output "cluster_name" {
  description = "Name of the cluster."
  value       = google_container_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the Kubernetes API, for kubernetes and helm providers: the DNS name where enable_dns_endpoint is set, else the IP address."
  value = (
    var.enable_dns_endpoint
    ? google_container_cluster.this.control_plane_endpoints_config[0].dns_endpoint_config[0].endpoint
    : google_container_cluster.this.endpoint
  )
}

output "cluster_ca_certificate" {
  description = "Certificate authority of the Kubernetes API, base64. Null with enable_dns_endpoint, whose certificate is one that everybody trusts."
  value       = var.enable_dns_endpoint ? null : google_container_cluster.this.master_auth[0].cluster_ca_certificate
}

output "kubectl_command" {
  description = "Command that gives kubectl and helm access to the cluster."
  value = join(" ", compact([
    "gcloud container clusters get-credentials ${var.cluster_name} --region ${var.region} --project ${var.project_id}",
    var.enable_dns_endpoint ? "--dns-endpoint" : length(var.authorized_networks) == 0 ? "--internal-ip" : "",
  ]))
}

output "network_name" {
  description = "The VPC."
  value       = local.network
}

output "subnetwork_name" {
  description = "The subnetwork of the machines."
  value       = local.subnetwork
}

output "cpu_node_pool_name" {
  description = "Name of the pool without GPUs."
  value       = google_container_node_pool.cpu.name
}

output "gpu_node_pool_names" {
  description = "Names of the GPU pools."
  value       = keys(local.pools)
}

output "gpu_node_pools" {
  description = "Of each GPU pool what a workload needs to know: machine, GPUs, bounds, labels, taints, GiB of disk for pods."
  value = {
    for name, pool in local.pools : name => {
      machine_type       = pool.machine_type
      gpu_type           = pool.gpu_type
      gpu_count          = pool.gpu_count
      gpu_driver_version = pool.gpu_driver_version
      min_node_count     = pool.min_node_count
      max_node_count     = pool.max_node_count
      spot               = pool.spot
      zones              = pool.zones
      labels             = pool.labels
      taints             = pool.taints
      disk_gib           = pool.disk_gib
    }
  }
}

output "nodes_service_account" {
  description = "E-mail of the machines' service account."
  value       = google_service_account.nodes.email
}

output "workload_identity_sa" {
  description = "E-mail of the workers' service account, for the annotation iam.gke.io/gcp-service-account. Empty without enable_workload_identity."
  value       = var.enable_workload_identity ? local.workload_email : ""
}

output "workload_identity_annotation" {
  description = "The annotation of the workers' Kubernetes account, as a map."
  value       = local.chart_values.serviceAccount.annotations
}

output "workload_identity_member" {
  description = "The Kubernetes account that has the workers' service account, as IAM writes it. Null without enable_workload_identity."
  value       = one(google_service_account_iam_member.workload[*].member)
}

output "artifact_registry_url" {
  description = "Where to push images, and imageRegistry of the chart. Null without create_artifact_registry."
  value       = lookup(local.registry_urls, "images", null)
}

output "pull_through_urls" {
  description = "Where copies of public registries are, by the names of pull_through_registries."
  value       = { for name, url in local.registry_urls : name => url if name != "images" }
}

output "model_cache_bucket_name" {
  description = "Bucket with the models. Null without one."
  value       = local.model_cache_bucket
}

output "model_cache_url" {
  description = "workers.common.clusterCache.url of the chart. Null without a bucket."
  value       = local.model_cache_url
}

output "helm_values" {
  description = "Values of the chart sie-cluster for this cluster, as YAML: pools, bucket, registry, access."
  value       = yamlencode(local.chart_values)
}
