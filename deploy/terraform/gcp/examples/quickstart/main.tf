# A cluster with one pool of L4 spot machines, from zero. See docs/deployment/terraform.md.

module "sie_gke" {
  source = "../.."

  project_id   = var.project_id
  region       = var.region
  cluster_name = var.cluster_name

  enable_apis         = true
  enable_dns_endpoint = true # kubectl works from here, for whom IAM lets in
  deletion_protection = false

  gpu_node_pools = [
    {
      name            = "l4-spot"
      machine_type    = "g2-standard-8"
      gpu_type        = "nvidia-l4"
      gpu_count       = 1
      min_node_count  = 0
      max_node_count  = 5
      local_ssd_count = 1
      spot            = true
    },
  ]

  enable_workload_identity = true
  sie_namespace            = "sie"
  sie_service_account_name = "sie-server"
}
