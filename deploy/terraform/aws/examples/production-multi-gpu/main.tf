# L4 machines with one always warm, and A100 machines from zero; a NAT in each zone, and administrators by name.

module "sie_eks" {
  source = "../.."

  region             = var.region
  cluster_name       = "sie-prod"
  kubernetes_version = "1.34"

  authorized_networks = var.authorized_networks
  access_entries      = { for name, arn in var.administrators : name => { principal_arn = arn, policy = "admin" } }

  availability_zones  = var.availability_zones
  nat_gateways        = "per_zone"
  interface_endpoints = ["ecr.api", "ecr.dkr", "sts"]

  cpu_node_pool = {
    machine_type   = "m6i.2xlarge"
    min_node_count = 3
    max_node_count = 8
  }

  gpu_node_pools = [
    {
      name           = "l4-pool"
      machine_type   = "g6.2xlarge"
      gpu_type       = "nvidia-l4"
      gpu_count      = 1
      min_node_count = 1 # Keep 1 warm
      max_node_count = 20
      spot           = false
    },
    {
      name           = "a100-pool"
      machine_type   = "p4d.24xlarge" # eight GPUs: no smaller machine has an A100
      gpu_type       = "nvidia-tesla-a100"
      gpu_count      = 8
      min_node_count = 0
      max_node_count = 2
      spot           = true
    },
    {
      name           = "a100-80gb-pool"
      machine_type   = "p4de.24xlarge"
      gpu_type       = "nvidia-a100-80gb"
      gpu_count      = 8
      min_node_count = 0
      max_node_count = 1
      spot           = false
    },
  ]

  enable_workload_identity = true
  sie_namespace            = "sie"
  sie_service_account_name = "sie-server"

  model_cache_versioning_enabled = true

  install_node_autoscaling = true
}
