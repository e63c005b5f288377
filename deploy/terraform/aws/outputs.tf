output "region" {
  description = "Region of the cluster."
  value       = var.region
}

output "cluster_name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the Kubernetes API."
  value       = aws_eks_cluster.this.endpoint
}

output "cluster_ca_certificate" {
  description = "Certificate authority of the Kubernetes API, base64."
  value       = aws_eks_cluster.this.certificate_authority[0].data
}

output "kubectl_command" {
  description = "Command that gives kubectl and helm access to the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${var.cluster_name}"
}

output "network_name" {
  description = "Id of the VPC."
  value       = local.vpc_id
}

output "private_subnet_ids" {
  description = "Subnets of the machines."
  value       = local.private_subnet_ids
}

output "cpu_node_pool_name" {
  description = "Name of the node group without GPUs."
  value       = aws_eks_node_group.cpu.node_group_name
}

output "gpu_node_pool_names" {
  description = "Names of the GPU pools."
  value       = keys(local.pools)
}

output "gpu_node_pools" {
  description = "Of each GPU pool what a workload needs to know: machine, GPUs, bounds, labels, taints, GiB of disk for pods."
  value = {
    for name, pool in local.pools : name => {
      machine_type   = pool.machine_type
      gpu_type       = pool.gpu_type
      gpu_count      = pool.gpu_count
      min_node_count = pool.min_node_count
      max_node_count = pool.max_node_count
      spot           = pool.spot
      labels         = pool.labels
      taints         = pool.taints
      disk_gib       = pool.disk_gib
    }
  }
}

output "nodes_role_arn" {
  description = "IAM role of the machines."
  value       = aws_iam_role.node.arn
}

output "workload_identity_role_arn" {
  description = "IAM role that the workers have, by EKS Pod Identity: their Kubernetes account needs no annotation. Null without enable_workload_identity."
  value       = one(values({ for name, role in aws_iam_role.pod : name => role.arn if name == "workload" }))
}

output "artifact_registry_url" {
  description = "Where to push images, and imageRegistry of the chart. Null without create_artifact_registry."
  value       = var.create_artifact_registry ? local.registry_path : null
}

output "pull_through_urls" {
  description = "Where copies of public registries are, by the names of pull_through_registries."
  value       = local.pull_through_urls
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

output "karpenter_objects" {
  description = "Karpenter's EC2NodeClasses and NodePools for the GPU pools; empty without enable_node_auto_provisioning. install_node_autoscaling installs them."
  value       = local.karpenter_objects
}
