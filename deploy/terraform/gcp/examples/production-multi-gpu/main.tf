# L4 machines, of which one always runs, and A100 spot machines from zero.

module "sie_gke" {
  source = "../.."

  project_id   = var.project_id
  region       = var.region
  cluster_name = "sie-prod"

  gpu_node_pools = [
    {
      name           = "l4-pool"
      machine_type   = "g2-standard-8"
      gpu_type       = "nvidia-l4"
      gpu_count      = 1
      min_node_count = 1 # Keep 1 warm
      max_node_count = 20
      spot           = false
    },
    {
      name           = "a100-pool"
      machine_type   = "a2-highgpu-1g"
      gpu_type       = "nvidia-tesla-a100"
      gpu_count      = 1
      min_node_count = 0
      max_node_count = 10
      spot           = true
    },
  ]

  authorized_networks = var.authorized_networks

  enable_workload_identity = true
  sie_namespace            = "sie"
  sie_service_account_name = "sie-server"
}
